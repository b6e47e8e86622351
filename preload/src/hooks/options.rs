//! Socket options, names and ioctl. The kernel socket keeps them all; the runtime adds what went past it.

use core::ffi::{c_int, c_ulong, c_void};

use convoy_runtime::api;
use libc::{sockaddr, socklen_t};
use redhook::hook;

use crate::{errno, pointer};

/// Whether the next byte to read is the urgent one.
const SIOCATMARK: c_ulong = 0x8905;

resolve! {
    getsockopt setsockopt getsockname getpeername ioctl sockatmark
}

hook! {
    unsafe fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t
    ) -> c_int => on_getsockopt {
        if api::tracked(fd) {
            api::before_getsockopt(fd, level, name);
        }
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
            let served = unsafe { api::before_setsockopt(fd, level, name, value, length) };
            if let Some(result) = served {
                return errno::int(result);
            }
        }
        let result = original!(setsockopt(fd, level, name, value, length));
        if level == libc::SOL_SOCKET && api::tracked(fd) {
            api::after_mode_change(fd);
        }
        result
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
        if api::tracked(fd) {
            let answer = match request {
                libc::FIONREAD => api::readable_bytes(fd),
                SIOCATMARK => api::at_mark(fd),
                _ => None,
            };
            // SAFETY: the argument of both is a pointer to int.
            if let Some(result) = unsafe { pointer::store_int(answer, argument as *mut c_int) } {
                return errno::int(result);
            }
            if request == libc::FIOASYNC {
                api::before_signals(fd);
            }
        }
        let result = original!(ioctl(fd, request, argument));
        if request == libc::FIONBIO && api::tracked(fd) {
            api::after_mode_change(fd);
        }
        result
    }
}

hook! {
    // libc's own calls ioctl where no hook sees it.
    unsafe fn sockatmark(fd: c_int) -> c_int => on_sockatmark {
        if api::tracked(fd)
            && let Some(result) = api::at_mark(fd)
        {
            return errno::int(result);
        }
        original!(sockatmark(fd))
    }
}
