//! The life of descriptor numbers: close, dup and their relatives, fcntl. Calls that make a new descriptor of
//! another kind are in `create`.
//!
//! A slot is cleared before the real close, because another thread may get the same number right after it. A
//! vfork child shares the parent's tables but not its descriptors: it changes no table.

use core::ffi::{c_int, c_uint};

use convoy_runtime::{
    api::{self, Reason},
    sys,
};
use redhook::hook;

use crate::errno;

resolve! {
    close __close close_range closefrom dup dup2 __dup2 dup3 fcntl fcntl64 __fcntl __libc_fcntl64
}

/// A call has just made descriptor `fd` (or failed, with a negative value) for something that is no
/// accelerated stream. Gives `fd` back.
#[inline(always)]
pub(crate) fn made(fd: c_int) -> c_int {
    if api::tracked(fd) {
        clear(fd);
    }
    fd
}

/// [`made`] for a call that fills two descriptors and returns 0.
///
/// # Safety
/// `pair` points to two descriptors if `result` is 0.
#[inline]
pub(crate) unsafe fn made_pair(pair: *const c_int, result: c_int) -> c_int {
    if result == 0 {
        // SAFETY: the kernel has just written both.
        let (first, second) = unsafe { (*pair, *pair.add(1)) };
        made(first);
        made(second);
    }
    result
}

#[cold]
fn clear(fd: c_int) {
    if !api::in_vfork_child() {
        api::forget(fd);
    }
}

/// `fd` is about to stop meaning what it means, by a call that will succeed.
#[inline(always)]
pub(crate) fn ending(fd: c_int) {
    if api::tracked(fd) {
        end(fd);
    }
}

#[cold]
fn end(fd: c_int) {
    if !api::in_vfork_child() {
        api::before_close(fd);
    }
}

/// `new` (negative: the call failed) is now a copy of `old`. Gives `new` back.
fn copied(old: c_int, new: c_int) -> c_int {
    made(new);
    if new < 0 || new == old {
        return new;
    }
    if api::in_vfork_child() {
        // It copies what the program it is about to execute shall use. The memory is its parent's, who waits.
        if api::tracked(old) {
            api::demote(old, Reason::Exec);
        }
    } else {
        api::after_dup(old, new);
        if new <= libc::STDERR_FILENO {
            // stdin, stdout and stderr belong to stdio, whose inner calls cannot be intercepted.
            if api::tracked(new) {
                api::demote(new, Reason::Stdio);
            }
        }
    }
    new
}

/// Makes room at `new` for a copy of `old`, if the copy will come about.
fn make_room(old: c_int, new: c_int) {
    if old == new || !(api::tracked(new) || api::private(new)) || api::in_vfork_child() {
        return;
    }
    if sys::fcntl(old, libc::F_GETFD, 0).is_ok() {
        if api::private(new) {
            api::vacate(new);
        } else {
            api::before_close(new);
        }
    }
}

/// close_range without CLOSE_RANGE_CLOEXEC, around Convoy's own descriptors. 0 or the errno of the real call.
fn close_all(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // Touches no descriptor: tells whether the kernel knows the call and the flags before any stream is
    // ended.
    if original!(close_range(c_uint::MAX, c_uint::MAX, flags)) != 0 {
        return -1;
    }
    if !api::in_vfork_child() {
        api::before_close_range(first, last);
    }
    let mut next = first;
    loop {
        let mut private = [0; 64];
        let count = api::private_in_range(next, last, &mut private).min(private.len());
        for &fd in &private[..count] {
            let fd = fd as c_uint;
            if fd > next && original!(close_range(next, fd - 1, flags)) != 0 {
                return -1;
            }
            if fd >= last {
                return 0;
            }
            next = fd + 1;
        }
        if count < private.len() {
            return original!(close_range(next, last, flags));
        }
    }
}

macro_rules! close_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int) -> c_int => $hook {
                if api::private(fd) {
                    return errno::fail(libc::EBADF);
                }
                ending(fd);
                original!($name(fd))
            }
        }
    };
}
close_hook!(close => on_close);
close_hook!(__close => on_close_alias);

hook! {
    unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int => on_close_range {
        if first > last || flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0 {
            return original!(close_range(first, last, flags));
        }
        close_all(first, last, flags)
    }
}

hook! {
    unsafe fn closefrom(first: c_int) => on_closefrom {
        let first = first.max(0);
        let saved = errno::get();
        if close_all(first as c_uint, c_uint::MAX, 0) != 0 {
            // A kernel without close_range.
            let limit = descriptor_limit();
            for fd in first..limit {
                // SAFETY: closes what the program wants closed.
                unsafe { on_close(fd) };
            }
        }
        errno::set(saved);
    }
}

/// One more than the highest descriptor number the process may have.
fn descriptor_limit() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a local value.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    c_int::try_from(limit.rlim_max).unwrap_or(c_int::MAX)
}

hook! {
    unsafe fn dup(old: c_int) -> c_int => on_dup {
        copied(old, original!(dup(old)))
    }
}

macro_rules! dup2_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(old: c_int, new: c_int) -> c_int => $hook {
                make_room(old, new);
                let result = original!($name(old, new));
                if old == new { result } else { copied(old, result) }
            }
        }
    };
}
dup2_hook!(dup2 => on_dup2);
dup2_hook!(__dup2 => on_dup2_alias);

hook! {
    unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int => on_dup3 {
        if flags & !libc::O_CLOEXEC == 0 {
            make_room(old, new);
        }
        copied(old, original!(dup3(old, new, flags)))
    }
}

macro_rules! fcntl_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, command: c_int, argument: usize) -> c_int => $hook {
                if command == libc::F_SETFL && argument as c_int & libc::O_ASYNC != 0 && api::tracked(fd) {
                    api::before_signals(fd);
                }
                let result = original!($name(fd, command, argument));
                match command {
                    libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => copied(fd, result),
                    libc::F_SETFL if api::tracked(fd) => {
                        api::after_mode_change(fd);
                        result
                    }
                    _ => result,
                }
            }
        }
    };
}
fcntl_hook!(fcntl => on_fcntl);
fcntl_hook!(fcntl64 => on_fcntl64);
fcntl_hook!(__fcntl => on_fcntl_alias);
fcntl_hook!(__libc_fcntl64 => on_libc_fcntl64);
