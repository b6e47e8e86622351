//! libc's `syscall`: the numbers that concern sockets, descriptors and waiting go to the hooks of the calls
//! they stand for; all others, and calls on descriptors that are not Convoy's concern, go to the kernel as
//! they are.
//!
//! The kernel is called directly, not through libc's own `syscall`: the standard library's locks wait by
//! `syscall`, so finding libc's function here could wait for itself.

use core::ffi::{c_int, c_long, c_void};

use convoy_runtime::api::{self, Handled};
use libc::{fd_set, pollfd, sigset_t, timespec};
use redhook::hook;

use super::{
    connect, create, data, descriptor, epoll, identity, message, options, process, select, vector, wait,
};
use crate::{errno, pointer};

/// The six arguments of a system call.
pub(crate) type Arguments = [usize; 6];

/// Calls the kernel; the answer is a negated errno or the result.
///
/// # Safety
/// The arguments are valid for that system call.
#[inline]
unsafe fn kernel(number: c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the arguments are the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// As libc's `syscall`: -1 and errno on failure.
///
/// # Safety
/// The arguments are valid for that system call.
#[inline]
pub(crate) unsafe fn call(number: c_long, arguments: Arguments) -> c_long {
    // SAFETY: by the caller's promise.
    let result = unsafe { kernel(number, arguments) };
    if (-4095..0).contains(&result) {
        errno::set(-result as c_int);
        return -1;
    }
    result as c_long
}

hook! {
    unsafe fn syscall(
        number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize
    ) -> c_long => on_syscall {
        let arguments = [a, b, c, d, e, f];
        // SAFETY: the program's arguments.
        unsafe {
            if let Some(result) = dispatch(number, arguments) {
                return result;
            }
            call(number, arguments)
        }
    }
}

/// The hooks' answer, or `None` when the kernel's own will do.
///
/// # Safety
/// The arguments are valid for that system call.
unsafe fn dispatch(number: c_long, arguments: Arguments) -> Option<c_long> {
    // SAFETY: by the caller's promise, in each.
    unsafe {
        match number {
            libc::SYS_futex | libc::SYS_gettid | libc::SYS_membarrier => None,
            libc::SYS_read
            | libc::SYS_write
            | libc::SYS_readv
            | libc::SYS_writev
            | libc::SYS_preadv2
            | libc::SYS_pwritev2
            | libc::SYS_sendto
            | libc::SYS_recvfrom
            | libc::SYS_sendmsg
            | libc::SYS_recvmsg
            | libc::SYS_sendmmsg
            | libc::SYS_recvmmsg
            | libc::SYS_sendfile
            | libc::SYS_splice => data_call(number, arguments),
            libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_select
            | libc::SYS_pselect6
            | libc::SYS_epoll_ctl
            | libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2 => waiting_call(number, arguments),
            libc::SYS_getsockopt | libc::SYS_setsockopt | libc::SYS_ioctl | libc::SYS_shutdown => {
                option_call(number, arguments)
            }
            libc::SYS_fork
            | libc::SYS_clone
            | libc::SYS_clone3
            | libc::SYS_execve
            | libc::SYS_execveat
            | libc::SYS_exit_group
            | libc::SYS_chroot
            | libc::SYS_pivot_root
            | libc::SYS_unshare
            | libc::SYS_setns
            | libc::SYS_prctl
            | libc::SYS_seccomp
            | libc::SYS_io_uring_setup => process_call(number, arguments),
            _ => descriptor_call(number, arguments),
        }
    }
}

/// # Safety
/// As [`dispatch`].
unsafe fn data_call(number: c_long, [a, b, c, d, e, f]: Arguments) -> Option<c_long> {
    let fd = a as c_int;
    // SAFETY: the program's arguments, each with the type the system call gives it.
    unsafe {
        let result = match number {
            libc::SYS_sendmsg => message::on_sendmsg(fd, b as *const _, c as c_int),
            libc::SYS_recvmsg => message::on_recvmsg(fd, b as *mut _, c as c_int),
            libc::SYS_sendfile => vector::on_sendfile(fd, b as c_int, c as *mut _, d),
            libc::SYS_splice => vector::on_splice(fd, b as *mut _, c as c_int, d as *mut _, e, f as u32),
            libc::SYS_sendmmsg => message::on_sendmmsg(fd, b as *mut _, c as u32, d as c_int) as isize,
            libc::SYS_recvmmsg => {
                message::on_recvmmsg(fd, b as *mut _, c as u32, d as c_int, e as *mut _) as isize
            }
            _ if !api::tracked(fd) => return None,
            libc::SYS_read => data::on_read(fd, b as *mut _, c),
            libc::SYS_write => data::on_write(fd, b as *const _, c),
            libc::SYS_readv => vector::on_readv(fd, b as *const _, c as c_int),
            libc::SYS_writev => vector::on_writev(fd, b as *const _, c as c_int),
            // The offset comes in two halves, of which the first holds all of it here.
            libc::SYS_preadv2 => vector::on_preadv2(fd, b as *const _, c as c_int, d as i64, f as c_int),
            libc::SYS_pwritev2 => vector::on_pwritev2(fd, b as *const _, c as c_int, d as i64, f as c_int),
            libc::SYS_sendto => data::on_sendto(fd, b as *const _, c, d as c_int, e as *const _, f as u32),
            libc::SYS_recvfrom => data::on_recvfrom(fd, b as *mut _, c, d as c_int, e as *mut _, f as *mut _),
            _ => return None,
        };
        Some(result as c_long)
    }
}

/// The signal mask argument of pselect6: a pointer and a size.
#[repr(C)]
struct MaskArgument {
    mask: *const sigset_t,
    size: usize,
}

/// # Safety
/// As [`dispatch`].
unsafe fn waiting_call(number: c_long, [a, b, c, d, e, f]: Arguments) -> Option<c_long> {
    // SAFETY: as in `data_call`.
    let answer: Handled = unsafe {
        match number {
            libc::SYS_poll if wait::any_tracked(a as *const _, b as u64) => {
                return Some(wait::on_poll(a as *mut _, b as u64, c as c_int).into());
            }
            libc::SYS_ppoll => with_time_left(c as *mut timespec, |timeout| {
                wait::wait(a as *mut pollfd, b as u64, timeout, d as *const sigset_t)
            }),
            libc::SYS_select => {
                select::wait_timeval(a as c_int, [b, c, d].map(|set| set as *mut fd_set), e as *mut _)
            }
            libc::SYS_pselect6 => {
                let mask =
                    (f as *const MaskArgument).as_ref().map_or(core::ptr::null(), |argument| argument.mask);
                with_time_left(e as *mut timespec, |timeout| {
                    select::wait_timespec(a as c_int, [b, c, d].map(|set| set as *mut fd_set), timeout, mask)
                })
            }
            _ if !api::tracked(a as c_int) => None,
            libc::SYS_epoll_ctl => api::epoll_ctl(a as c_int, b as c_int, c as c_int, d as *mut _),
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => {
                let time = pointer::milliseconds(d as c_int);
                let mask =
                    if number == libc::SYS_epoll_pwait { e as *const sigset_t } else { core::ptr::null() };
                epoll::wait(a as c_int, b as *mut _, c as c_int, pointer::or_null(time.as_ref()), mask)
            }
            libc::SYS_epoll_pwait2 => {
                epoll::wait(a as c_int, b as *mut _, c as c_int, d as *const _, e as *const sigset_t)
            }
            _ => None,
        }
    };
    answer.map(|result| errno::int(result).into())
}

/// Waits, and then sets the timeout to the time left, as ppoll and pselect6 do (and their libc forms do not).
///
/// # Safety
/// `timeout` is null or valid.
unsafe fn with_time_left(timeout: *mut timespec, wait: impl FnOnce(*const timespec) -> Handled) -> Handled {
    // SAFETY: null or valid, by the caller's promise.
    let end = unsafe { timeout.as_ref() }.map(select::deadline);
    let answer = wait(timeout)?;
    // SAFETY: as above.
    if let (Some(end), Some(timeout)) = (end, unsafe { timeout.as_mut() })
        && answer != Err(libc::EINVAL)
    {
        *timeout = select::time_until(&end);
    }
    Some(answer)
}

/// # Safety
/// As [`dispatch`].
unsafe fn option_call(number: c_long, [a, b, c, d, e, _]: Arguments) -> Option<c_long> {
    let fd = a as c_int;
    if !api::tracked(fd) {
        return None;
    }
    // SAFETY: as in `data_call`.
    let result = unsafe {
        match number {
            libc::SYS_getsockopt => {
                options::on_getsockopt(fd, b as c_int, c as c_int, d as *mut _, e as *mut _)
            }
            libc::SYS_setsockopt => {
                options::on_setsockopt(fd, b as c_int, c as c_int, d as *const c_void, e as u32)
            }
            libc::SYS_ioctl => options::on_ioctl(fd, b as u64, c),
            _ => connect::on_shutdown(fd, b as c_int),
        }
    };
    Some(result.into())
}

/// # Safety
/// As [`dispatch`].
unsafe fn process_call(number: c_long, arguments: Arguments) -> Option<c_long> {
    // SAFETY: as in `data_call`.
    unsafe {
        match number {
            libc::SYS_io_uring_setup if !api::io_uring_allowed() => Some(errno::fail(libc::ENOSYS).into()),
            libc::SYS_fork => Some(process::fork_with(|| call(number, arguments) as c_int).into()),
            libc::SYS_clone if copies_memory(arguments[0] as u64, arguments[1] as u64) => {
                identity::before_namespaces(arguments[0] as c_int);
                Some(process::fork_with(|| call(number, arguments) as c_int).into())
            }
            libc::SYS_clone3 if arguments[1] >= 64 => {
                // struct clone_args: flags come first, the stack is the sixth of its 64-bit fields.
                let fields = (arguments[0] as *const [u64; 8]).as_ref()?;
                copies_memory(fields[0], fields[5]).then(|| {
                    identity::before_namespaces(fields[0] as c_int);
                    process::fork_with(|| call(number, arguments) as c_int).into()
                })
            }
            libc::SYS_execve | libc::SYS_execveat => {
                Some(process::exec_with(|| call(number, arguments) as c_int).into())
            }
            libc::SYS_chroot => Some(identity::on_chroot(arguments[0] as *const _).into()),
            libc::SYS_prctl if arguments[0] as c_int == libc::PR_SET_SECCOMP => {
                identity::before_prctl_seccomp(arguments[1], arguments[2]);
                None
            }
            libc::SYS_seccomp => {
                identity::before_seccomp(arguments[0], arguments[1], arguments[2]);
                None
            }
            libc::SYS_exit_group => {
                process::on_exit_now(arguments[0] as c_int);
                None
            }
            libc::SYS_pivot_root => Some(identity::change_root(|| call(number, arguments) as c_int).into()),
            libc::SYS_unshare => Some(identity::on_unshare(arguments[0] as c_int).into()),
            libc::SYS_setns => Some(identity::on_setns(arguments[0] as c_int, arguments[1] as c_int).into()),
            _ => None,
        }
    }
}

/// True for a clone that continues like fork: own memory, no new stack.
fn copies_memory(flags: u64, stack: u64) -> bool {
    flags & libc::CLONE_VM as u64 == 0 && stack == 0
}

/// # Safety
/// As [`dispatch`].
unsafe fn descriptor_call(number: c_long, [a, b, c, d, _, _]: Arguments) -> Option<c_long> {
    // SAFETY: as in `data_call`.
    let result = unsafe {
        match number {
            libc::SYS_close => descriptor::on_close(a as c_int),
            libc::SYS_close_range => descriptor::on_close_range(a as u32, b as u32, c as c_int),
            libc::SYS_dup => descriptor::on_dup(a as c_int),
            libc::SYS_dup2 => descriptor::on_dup2(a as c_int, b as c_int),
            libc::SYS_dup3 => descriptor::on_dup3(a as c_int, b as c_int, c as c_int),
            libc::SYS_fcntl => descriptor::on_fcntl(a as c_int, b as c_int, c),
            libc::SYS_socket => connect::on_socket(a as c_int, b as c_int, c as c_int),
            libc::SYS_connect => connect::on_connect(a as c_int, b as *const _, c as u32),
            libc::SYS_accept => connect::on_accept(a as c_int, b as *mut _, c as *mut _),
            libc::SYS_accept4 => connect::on_accept4(a as c_int, b as *mut _, c as *mut _, d as c_int),
            libc::SYS_socketpair => create::on_socketpair(a as c_int, b as c_int, c as c_int, d as *mut _),
            libc::SYS_pipe => create::on_pipe(a as *mut _),
            libc::SYS_pipe2 => create::on_pipe2(a as *mut _, b as c_int),
            libc::SYS_eventfd2 => create::on_eventfd(a as u32, b as c_int),
            libc::SYS_memfd_create => create::on_memfd_create(a as *const _, b as u32),
            libc::SYS_timerfd_create => create::on_timerfd_create(a as c_int, b as c_int),
            libc::SYS_inotify_init1 => create::on_inotify_init1(a as c_int),
            libc::SYS_epoll_create => epoll::on_epoll_create(a as c_int),
            libc::SYS_epoll_create1 => epoll::on_epoll_create1(a as c_int),
            libc::SYS_open => create::on_open(a as *const _, b as c_int, c as u32),
            libc::SYS_openat => create::on_openat(a as c_int, b as *const _, c as c_int, d as u32),
            libc::SYS_creat => create::on_creat(a as *const _, b as u32),
            _ => return None,
        }
    };
    Some(result.into())
}
