//! The system calls Convoy makes for itself, past libc.
//!
//! libc's wrappers are what the preload library intercepts and they write errno, so nothing in the runtime may
//! use them (nor `std::fs`, `std::net` or an owned descriptor, whose drop calls libc's `close`). Every function
//! returns the kernel's answer; none touches errno. This is one of the modules that may contain `unsafe`.

use core::ffi::{CStr, c_int, c_void};
use syscalls::{Sysno, syscall};

/// An errno value, as in errno(3).
pub type Errno = c_int;
/// What a system call answered.
pub type Answer<T> = Result<T, Errno>;

fn answer(result: Result<usize, syscalls::Errno>) -> Answer<usize> {
    result.map_err(syscalls::Errno::into_raw)
}

macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: each caller passes arguments that are valid for this system call; see the function.
        answer(unsafe { syscall!(Sysno::$number $(, $argument)*) })
    };
}

mod barrier;
mod cancel;
mod clock;
mod epoll;
mod files;
mod hand;
mod mappings;
mod signals;
mod unix;
pub use barrier::*;
pub use cancel::*;
pub use clock::*;
pub use epoll::*;
pub use files::*;
pub use hand::*;
pub use mappings::*;
pub use signals::*;
pub use unix::*;

/// openat(AT_FDCWD, ...), always close-on-exec.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Answer<c_int> {
    call!(openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, mode).map(|fd| fd as c_int)
}

pub fn dup3(old: c_int, new: c_int, flags: c_int) -> Answer<()> {
    call!(dup3, old, new, flags).map(drop)
}

pub fn close(fd: c_int) -> Answer<()> {
    call!(close, fd).map(drop)
}

pub fn mkdir(path: &CStr, mode: u32) -> Answer<()> {
    call!(mkdirat, libc::AT_FDCWD, path.as_ptr(), mode).map(drop)
}

/// mknodat of a FIFO.
pub fn mkfifo(path: &CStr, mode: u32) -> Answer<()> {
    call!(mknodat, libc::AT_FDCWD, path.as_ptr(), libc::S_IFIFO | mode, 0).map(drop)
}

pub fn unlink(path: &CStr) -> Answer<()> {
    call!(unlinkat, libc::AT_FDCWD, path.as_ptr(), 0).map(drop)
}

/// readlinkat; the answer is the number of bytes, without a terminating zero.
pub fn readlink(path: &CStr, into: &mut [u8]) -> Answer<usize> {
    call!(readlinkat, libc::AT_FDCWD, path.as_ptr(), into.as_mut_ptr(), into.len())
}

pub fn fstat(fd: c_int) -> Answer<libc::stat> {
    // SAFETY: stat is plain integers, all zero is a valid value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    call!(fstat, fd, &mut stat as *mut libc::stat)?;
    Ok(stat)
}

pub fn stat(path: &CStr) -> Answer<libc::stat> {
    // SAFETY: stat is plain integers, all zero is a valid value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    call!(stat, path.as_ptr(), &mut stat as *mut libc::stat)?;
    Ok(stat)
}

pub fn memfd_create(name: &CStr, flags: u32) -> Answer<c_int> {
    call!(memfd_create, name.as_ptr(), flags).map(|fd| fd as c_int)
}

pub fn fcntl(fd: c_int, command: c_int, argument: usize) -> Answer<c_int> {
    call!(fcntl, fd, command, argument).map(|value| value as c_int)
}

/// # Safety
/// `into` is writable for `bytes`.
pub unsafe fn read(fd: c_int, into: *mut u8, bytes: usize) -> Answer<usize> {
    call!(read, fd, into, bytes)
}

/// # Safety
/// `from` is readable for `bytes`.
pub unsafe fn write(fd: c_int, from: *const u8, bytes: usize) -> Answer<usize> {
    call!(write, fd, from, bytes)
}

/// # Safety
/// `into` is writable for `bytes`.
pub unsafe fn pread(fd: c_int, into: *mut u8, bytes: usize, offset: i64) -> Answer<usize> {
    call!(pread64, fd, into, bytes, offset)
}

/// sendmsg(2), for a single part the same by sendto(2), which has less to look at.
///
/// # Safety
/// `parts` are `count` valid iovecs with readable memory.
#[inline]
pub unsafe fn sendmsg(fd: c_int, parts: *const libc::iovec, count: usize, flags: c_int) -> Answer<usize> {
    if count == 1 {
        // SAFETY: one iovec, says the caller.
        let part = unsafe { parts.read() };
        return call!(sendto, fd, part.iov_base, part.iov_len, flags, 0, 0);
    }
    let message = message(parts, count);
    call!(sendmsg, fd, &message as *const libc::msghdr, flags)
}

/// recvmsg(2), for a single part the same by recvfrom(2).
///
/// # Safety
/// `parts` are `count` valid iovecs with writable memory.
#[inline]
pub unsafe fn recvmsg(fd: c_int, parts: *const libc::iovec, count: usize, flags: c_int) -> Answer<usize> {
    if count == 1 {
        // SAFETY: one iovec, says the caller.
        let part = unsafe { parts.read() };
        return call!(recvfrom, fd, part.iov_base, part.iov_len, flags, 0, 0);
    }
    let mut message = message(parts, count);
    call!(recvmsg, fd, &mut message as *mut libc::msghdr, flags)
}

/// recvmsg(2) with all that a message may have.
///
/// # Safety
/// As recvmsg(2) wants it.
pub unsafe fn receive_message(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> Answer<usize> {
    call!(recvmsg, fd, message, flags)
}

fn message(parts: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: msghdr is integers and pointers, all zero is a valid value.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = parts.cast_mut();
    message.msg_iovlen = count;
    message
}

pub fn shutdown(fd: c_int, how: c_int) -> Answer<()> {
    call!(shutdown, fd, how).map(drop)
}

/// getsockopt into a plain value; the answer is the length the kernel wrote.
///
/// # Safety
/// `T` is valid for any bytes the option may write.
pub unsafe fn getsockopt<T>(fd: c_int, level: c_int, name: c_int, value: &mut T) -> Answer<usize> {
    let mut length = size_of::<T>() as libc::socklen_t;
    call!(getsockopt, fd, level, name, value as *mut T, &mut length as *mut libc::socklen_t)?;
    Ok(length as usize)
}

/// The value of an option that is an integer.
pub fn option(fd: c_int, level: c_int, name: c_int) -> Answer<c_int> {
    let mut value: c_int = 0;
    // SAFETY: a plain integer.
    unsafe { getsockopt(fd, level, name, &mut value) }.map(|_| value)
}

/// setsockopt from a plain value.
pub fn setsockopt<T>(fd: c_int, level: c_int, name: c_int, value: &T) -> Answer<()> {
    call!(setsockopt, fd, level, name, value as *const T, size_of::<T>()).map(drop)
}

/// # Safety
/// `address` is writable for `*length` bytes.
pub unsafe fn getsockname(
    fd: c_int,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
) -> Answer<()> {
    call!(getsockname, fd, address, length).map(drop)
}

/// # Safety
/// `address` is writable for `*length` bytes.
pub unsafe fn getpeername(
    fd: c_int,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
) -> Answer<()> {
    call!(getpeername, fd, address, length).map(drop)
}

/// ioctl that answers with one int (FIONREAD, SIOCOUTQ).
pub fn ioctl_int(fd: c_int, request: u64) -> Answer<c_int> {
    let mut value: c_int = 0;
    call!(ioctl, fd, request, &mut value as *mut c_int)?;
    Ok(value)
}

/// ppoll(2). `timeout` null waits for ever; the kernel may write the time left into it.
///
/// # Safety
/// `set` is valid for `count`; `timeout` and `mask` are null or valid.
pub unsafe fn ppoll(
    set: *mut libc::pollfd,
    count: usize,
    timeout: *mut libc::timespec,
    mask: *const libc::sigset_t,
) -> Answer<usize> {
    call!(ppoll, set, count, timeout, mask, KERNEL_SIGSET_BYTES)
}

/// Puts one byte into a pipe without ever waiting, whatever the flags of its descriptor say and whoever may change them:
/// vmsplice(2) with SPLICE_F_NONBLOCK.
pub fn put_byte(pipe: c_int) -> Answer<()> {
    static BYTE: u8 = 1;
    let part = libc::iovec { iov_base: (&raw const BYTE).cast_mut().cast(), iov_len: 1 };
    call!(vmsplice, pipe, &part as *const libc::iovec, 1, libc::SPLICE_F_NONBLOCK).map(drop)
}

/// Whether a descriptor is an end of a pipe, without asking a file system.
pub fn is_pipe(fd: c_int) -> bool {
    fcntl(fd, libc::F_GETPIPE_SZ, 0).is_ok()
}

/// Whether there is a file under a number.
pub fn is_open(fd: c_int) -> bool {
    fcntl(fd, libc::F_GETFD, 0).is_ok()
}

/// Whether a file is in memory of ordinary pages: those of a hugetlbfs can run out at a later access.
pub fn is_tmpfs(fd: c_int) -> bool {
    // SAFETY: statfs is plain integers, all zero is a valid value.
    let mut found: libc::statfs = unsafe { core::mem::zeroed() };
    call!(fstatfs, fd, &mut found as *mut libc::statfs).is_ok() && found.f_type == libc::TMPFS_MAGIC
}

/// # Safety
/// As for splice(2).
pub unsafe fn splice(
    input: c_int,
    input_offset: *mut i64,
    output: c_int,
    output_offset: *mut i64,
    length: usize,
    flags: u32,
) -> Answer<usize> {
    call!(splice, input, input_offset, output, output_offset, length, flags)
}

/// # Safety
/// `offset` is null or valid.
pub unsafe fn sendfile(output: c_int, input: c_int, offset: *mut i64, count: usize) -> Answer<usize> {
    call!(sendfile, output, input, offset, count)
}

pub fn getpid() -> i32 {
    call!(getpid).map_or(0, |pid| pid as i32)
}

pub fn gettid() -> i32 {
    call!(gettid).map_or(0, |tid| tid as i32)
}

pub fn geteuid() -> u32 {
    call!(geteuid).map_or(0, |uid| uid as u32)
}

/// True when a process (or thread) with this id exists; also when it belongs to somebody else.
pub fn process_exists(pid: i32) -> bool {
    call!(kill, pid, 0) != Err(libc::ESRCH)
}

pub fn sched_yield() {
    let _ = call!(sched_yield);
}

/// The processor this thread runs on at this moment.
pub fn current_cpu() -> u32 {
    let mut cpu: u32 = 0;
    let _ = call!(getcpu, &mut cpu as *mut u32, 0, 0);
    cpu
}

/// Words of a set of processors: 1024, as in cpu_set_t(3).
pub const CPU_WORDS: usize = 16;

/// The processors this thread may use, a bit each; none when there are too many for the set.
pub fn usable_cpus() -> [u64; CPU_WORDS] {
    let mut mask = [0u64; CPU_WORDS];
    let _ = call!(sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr());
    mask
}

/// futex(FUTEX_WAIT), process-shared; returns when woken, when `*word != expected`, or after `timeout`.
pub fn futex_wait(word: &core::sync::atomic::AtomicU32, expected: u32, timeout: &libc::timespec) {
    let _ = call!(futex, word.as_ptr(), libc::FUTEX_WAIT, expected, timeout as *const libc::timespec, 0, 0);
}

/// futex(FUTEX_WAKE), process-shared.
pub fn futex_wake(word: &core::sync::atomic::AtomicU32, count: u32) {
    let _ = call!(futex, word.as_ptr(), libc::FUTEX_WAKE, count, 0, 0, 0);
}

/// The path with which execve(2) was called (AT_EXECFN of getauxval(3)); a link is not followed.
pub fn started_as() -> &'static [u8] {
    // SAFETY: the kernel's auxiliary vector; the string stays as long as the process.
    unsafe {
        match libc::getauxval(libc::AT_EXECFN) {
            0 => &[],
            path => CStr::from_ptr(core::ptr::with_exposed_provenance(path as usize)).to_bytes(),
        }
    }
}

/// Whether this image has rights that whoever started it does not have: setuid, setgid, file capabilities (AT_SECURE of getauxval(3)).
pub fn runs_with_foreign_rights() -> bool {
    // SAFETY: reads the kernel's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// prctl(PR_GET_DUMPABLE): whether others of the same user may open our /proc entries.
pub fn dumpable() -> bool {
    call!(prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0) == Ok(1)
}

/// The kernel's sigset_t, which is smaller than libc's.
const KERNEL_SIGSET_BYTES: usize = 8;

/// A pointer that may be handed to the kernel in place of nothing.
pub const NULL: *mut c_void = core::ptr::null_mut();

/// The soft limit on descriptor numbers (RLIMIT_NOFILE).
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 0 };
    let _ = call!(prlimit64, 0, libc::RLIMIT_NOFILE, 0, &mut limit as *mut libc::rlimit);
    limit.rlim_cur
}

/// The soft limit on the bytes that are mapped (RLIMIT_AS).
pub fn address_space_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: u64::MAX, rlim_max: 0 };
    let _ = call!(prlimit64, 0, libc::RLIMIT_AS, 0, &mut limit as *mut libc::rlimit);
    limit.rlim_cur
}

/// Sleeps; may return early when a signal arrives.
pub fn sleep_ns(nanoseconds: u64) {
    let time = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    };
    let _ = call!(nanosleep, &time as *const libc::timespec, 0);
}

/// A copy of a descriptor of another process (pidfd_open(2), pidfd_getfd(2)): needs the right to trace it.
pub fn descriptor_of(pid: i32, fd: c_int) -> Answer<c_int> {
    let process = call!(pidfd_open, pid, 0)? as c_int;
    let copy = call!(pidfd_getfd, process, fd, 0);
    let _ = close(process);
    copy.map(|fd| fd as c_int)
}

/// Moves a file's position back (lseek, SEEK_CUR); pipes and sockets ignore it.
pub fn seek_back(fd: c_int, bytes: i64) {
    let _ = call!(lseek, fd, -bytes, libc::SEEK_CUR);
}

/// Anonymous private page that a child sees as zeros after fork but not after vfork (MADV_WIPEONFORK).
pub fn wipe_on_fork_page() -> Answer<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = call!(mmap, 0, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1i32, 0)?;
    call!(madvise, page, 4096, libc::MADV_WIPEONFORK)?;
    Ok(page as *mut u8)
}
