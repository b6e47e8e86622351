//! Calls that make descriptors of another kind: files, pipes, eventfds and the like. A new number means that
//! whatever its slot said is stale.

use core::ffi::{c_char, c_int, c_uint};

use libc::sigset_t;
use redhook::hook;

use super::descriptor::{made, made_pair};

resolve! {
    open open64 __open __open64 __open_2 __open64_2 openat openat64 __openat_2 __openat64_2 creat creat64
    pipe __pipe pipe2 socketpair eventfd timerfd_create signalfd memfd_create inotify_init inotify_init1
}

macro_rules! creating {
    ($($name:ident ( $($argument:ident : $type:ty),* ) => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type),*) -> c_int => $hook {
                made(original!($name($($argument),*)))
            }
        })*
    };
}

// `mode` is libc's optional argument: its register is passed on whatever it holds.
creating! {
    open(path: *const c_char, flags: c_int, mode: c_uint) => on_open;
    open64(path: *const c_char, flags: c_int, mode: c_uint) => on_open64;
    __open(path: *const c_char, flags: c_int, mode: c_uint) => on_open_alias;
    __open64(path: *const c_char, flags: c_int, mode: c_uint) => on_open64_alias;
    __open_2(path: *const c_char, flags: c_int) => on_open_2;
    __open64_2(path: *const c_char, flags: c_int) => on_open64_2;
    openat(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) => on_openat;
    openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) => on_openat64;
    __openat_2(folder: c_int, path: *const c_char, flags: c_int) => on_openat_2;
    __openat64_2(folder: c_int, path: *const c_char, flags: c_int) => on_openat64_2;
    creat(path: *const c_char, mode: c_uint) => on_creat;
    creat64(path: *const c_char, mode: c_uint) => on_creat64;
    eventfd(count: c_uint, flags: c_int) => on_eventfd;
    timerfd_create(clock: c_int, flags: c_int) => on_timerfd_create;
    signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) => on_signalfd;
    memfd_create(name: *const c_char, flags: c_uint) => on_memfd_create;
    inotify_init() => on_inotify_init;
    inotify_init1(flags: c_int) => on_inotify_init1;
}

macro_rules! creating_pair {
    ($($name:ident ( $($argument:ident : $type:ty),* ) => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type,)* pair: *mut c_int) -> c_int => $hook {
                let result = original!($name($($argument,)* pair));
                // SAFETY: the kernel fills the pair when it returns 0.
                unsafe { made_pair(pair, result) }
            }
        })*
    };
}

creating_pair! {
    pipe() => on_pipe;
    __pipe() => on_pipe_alias;
    socketpair(domain: c_int, kind: c_int, protocol: c_int) => on_socketpair;
}

hook! {
    unsafe fn pipe2(pair: *mut c_int, flags: c_int) -> c_int => on_pipe2 {
        let result = original!(pipe2(pair, flags));
        // SAFETY: as above.
        unsafe { made_pair(pair, result) }
    }
}
