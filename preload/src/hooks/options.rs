//! Socket options, names and ioctl. The kernel socket keeps them all; the runtime adds what went past it.

use core::ffi::{c_int, c_ulong, c_void};

use convoy_runtime::api;
use libc::{sockaddr, socklen_t};
use redhook::hook;

use crate::{errno, pointer};

resolve! {
    getsockopt setsockopt getsockname getpeername ioctl
}

hook! {
    unsafe fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t
    ) -> c_int => on_getsockopt {
        let result = original!(getsockopt(fd, level, name, value, length));
        if result == 0 && api::tracked(fd) {
            // SAFETY: the kernel has just written `length` and that many bytes.
            unsafe { api::after_getsockopt(fd, level, name, value, *length) };
        }
        result
    }
}

hook! {
    unsafe fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t
    ) -> c_int => on_setsockopt {
        if api::tracked(fd) {
            // SAFETY: the program's value.
            unsafe { api::before_setsockopt(fd, level, name, value, length) };
        }
        original!(setsockopt(fd, level, name, value, length))
    }
}

// The addresses are those of the kernel's connection, which lies under every accelerated stream.

hook! {
    unsafe fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => on_getsockname {
        original!(getsockname(fd, address, length))
    }
}

hook! {
    unsafe fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => on_getpeername {
        original!(getpeername(fd, address, length))
    }
}

hook! {
    unsafe fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int => on_ioctl {
        if request == libc::FIONREAD && api::tracked(fd) {
            // SAFETY: FIONREAD's argument is a pointer to int.
            let answer = unsafe { pointer::store_int(api::readable_bytes(fd), argument as *mut c_int) };
            if let Some(result) = answer {
                return errno::int(result);
            }
        }
        original!(ioctl(fd, request, argument))
    }
}
