//! Several buffers at once, and bytes that move between two descriptors: readv, writev, preadv2, pwritev2,
//! sendfile, splice.

use core::ffi::{c_int, c_uint};

use convoy_runtime::api::{self, Handled};
use libc::{iovec, off_t};
use redhook::hook;

use crate::{errno, pointer};

resolve! {
    readv writev preadv2 preadv64v2 pwritev2 pwritev64v2 sendfile sendfile64 splice tee vmsplice
}

/// The flags of preadv2 and pwritev2 that a socket accepts; all but RWF_NOWAIT mean nothing to it.
const KNOWN_FLAGS: c_int =
    libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC | libc::RWF_NOWAIT | libc::RWF_APPEND;

/// Offers the buffers to the runtime; `None` also where the kernel will refuse them.
///
/// # Safety
/// `parts` is null or points to `count` iovecs whose memory is readable.
unsafe fn send_parts(fd: c_int, parts: *const iovec, count: c_int, flags: c_int) -> Handled {
    let count = usize::try_from(count).ok()?;
    // SAFETY: the program's iovecs.
    unsafe { if asks_socket(parts, count) { api::send(fd, parts, count, flags) } else { None } }
}

/// Offers the buffers to the runtime; `None` also where the kernel will refuse them.
///
/// # Safety
/// `parts` is null or points to `count` iovecs whose memory is writable.
unsafe fn receive_parts(fd: c_int, parts: *const iovec, count: c_int, flags: c_int) -> Handled {
    let count = usize::try_from(count).ok()?;
    // SAFETY: the program's iovecs.
    unsafe { if asks_socket(parts, count) { api::receive(fd, parts, count, flags) } else { None } }
}

/// Whether the call reaches the socket in the kernel: impossible buffers do not, nor do those without a byte.
///
/// # Safety
/// `parts` is null or points to `count` iovecs.
unsafe fn asks_socket(parts: *const iovec, count: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { pointer::plausible(parts, count) && !api::is_empty(parts, count) }
}

/// Message flags for the flags of preadv2 and pwritev2; `None` where the kernel has an error for them: an
/// offset (a socket has none) or a flag that sockets do not know.
fn message_flags(offset: off_t, flags: c_int) -> Option<c_int> {
    let known = offset == -1 && flags & !KNOWN_FLAGS == 0;
    known.then_some(if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 })
}

hook! {
    unsafe fn readv(fd: c_int, parts: *const iovec, count: c_int) -> isize => on_readv {
        // SAFETY: the program's iovecs.
        offered!(fd, unsafe { receive_parts(fd, parts, count, 0) }, readv(fd, parts, count))
    }
}

hook! {
    unsafe fn writev(fd: c_int, parts: *const iovec, count: c_int) -> isize => on_writev {
        // SAFETY: the program's iovecs.
        offered!(fd, unsafe { send_parts(fd, parts, count, 0) }, writev(fd, parts, count))
    }
}

macro_rules! preadv2_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> isize => $hook {
                if api::tracked(fd)
                    && let Some(mapped) = message_flags(offset, flags)
                    // SAFETY: the program's iovecs.
                    && let Some(result) = unsafe { receive_parts(fd, parts, count, mapped) }
                {
                    return errno::size(result);
                }
                original!($name(fd, parts, count, offset, flags))
            }
        }
    };
}
preadv2_hook!(preadv2 => on_preadv2);
preadv2_hook!(preadv64v2 => on_preadv64v2);

macro_rules! pwritev2_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> isize => $hook {
                if api::tracked(fd)
                    && let Some(mapped) = message_flags(offset, flags)
                    // SAFETY: the program's iovecs.
                    && let Some(result) = unsafe { send_parts(fd, parts, count, mapped) }
                {
                    return errno::size(result);
                }
                original!($name(fd, parts, count, offset, flags))
            }
        }
    };
}
pwritev2_hook!(pwritev2 => on_pwritev2);
pwritev2_hook!(pwritev64v2 => on_pwritev64v2);

macro_rules! sendfile_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(output: c_int, input: c_int, offset: *mut off_t, count: usize) -> isize => $hook {
                if (api::tracked(output) || api::tracked(input))
                    // SAFETY: the program's pointer.
                    && let Some(result) = unsafe { api::sendfile(output, input, offset, count) }
                {
                    return errno::size(result);
                }
                original!($name(output, input, offset, count))
            }
        }
    };
}
sendfile_hook!(sendfile => on_sendfile);
sendfile_hook!(sendfile64 => on_sendfile64);

hook! {
    unsafe fn splice(
        input: c_int, input_offset: *mut i64, output: c_int, output_offset: *mut i64, length: usize, flags: c_uint
    ) -> isize => on_splice {
        if (api::tracked(input) || api::tracked(output))
            // SAFETY: the program's pointers.
            && let Some(result) = unsafe { api::splice(input, input_offset, output, output_offset, length, flags) }
        {
            return errno::size(result);
        }
        original!(splice(input, input_offset, output, output_offset, length, flags))
    }
}

// Both ends of tee and one of vmsplice must be pipes: the kernel refuses every descriptor that could be
// tracked.

hook! {
    unsafe fn tee(input: c_int, output: c_int, length: usize, flags: c_uint) -> isize => on_tee {
        original!(tee(input, output, length, flags))
    }
}

hook! {
    unsafe fn vmsplice(fd: c_int, parts: *const iovec, count: usize, flags: c_uint) -> isize => on_vmsplice {
        original!(vmsplice(fd, parts, count, flags))
    }
}
