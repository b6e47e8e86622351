//! One buffer in, one buffer out: read, write, send, recv and their aliases. Vectors are in `vector`,
//! messages in `message`.

use core::ffi::{c_int, c_void};

use convoy_runtime::api::{self, Handled};
use libc::{sockaddr, socklen_t};
use redhook::hook;

use crate::{errno, pointer};

resolve! {
    read __read __read_chk write __write
    send __send sendto recv __recv __recv_chk recvfrom __recvfrom_chk
}

/// Offers one readable buffer of the program to the runtime.
///
/// # Safety
/// `buffer` is readable for `length` bytes.
#[inline]
unsafe fn send_buffer(fd: c_int, buffer: *const c_void, length: usize, flags: c_int) -> Handled {
    match pointer::part(buffer, length) {
        // SAFETY: one iovec over the program's buffer.
        Ok(part) => unsafe { api::send(fd, &part, 1, flags) },
        Err(error) => Some(Err(error)),
    }
}

/// Offers one writable buffer of the program to the runtime.
///
/// # Safety
/// `buffer` is writable for `length` bytes.
#[inline]
unsafe fn receive_buffer(fd: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> Handled {
    match pointer::part(buffer, length) {
        // SAFETY: one iovec over the program's buffer.
        Ok(part) => unsafe { api::receive(fd, &part, 1, flags) },
        Err(error) => Some(Err(error)),
    }
}

/// The same for `read`, of which one of no bytes does not reach the socket in the kernel.
///
/// # Safety
/// As [`receive_buffer`].
#[inline]
unsafe fn read_buffer(fd: c_int, buffer: *mut c_void, length: usize) -> Handled {
    // SAFETY: the caller's promise.
    if length == 0 { None } else { unsafe { receive_buffer(fd, buffer, length, 0) } }
}

/// recvfrom on a connected TCP socket gives no address: its length becomes 0.
///
/// # Safety
/// The address pointers are null or valid.
unsafe fn receive_from(
    fd: c_int,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> Handled {
    // SAFETY: the program's own buffer.
    let answer = unsafe { receive_buffer(fd, buffer, length, flags) };
    if let Some(Ok(_)) = answer
        && !address.is_null()
        // SAFETY: null or valid, by the caller's promise.
        && let Some(address_length) = unsafe { address_length.as_mut() }
    {
        *address_length = 0;
    }
    answer
}

macro_rules! read_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, buffer: *mut c_void, length: usize) -> isize => $hook {
                // SAFETY: the program's buffer.
                offered!(fd, unsafe { read_buffer(fd, buffer, length) }, $name(fd, buffer, length))
            }
        }
    };
}
read_hook!(read => on_read);
read_hook!(__read => on_read_alias);

macro_rules! write_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, buffer: *const c_void, length: usize) -> isize => $hook {
                // SAFETY: the program's buffer.
                offered!(fd, unsafe { send_buffer(fd, buffer, length, 0) }, $name(fd, buffer, length))
            }
        }
    };
}
write_hook!(write => on_write);
write_hook!(__write => on_write_alias);

macro_rules! send_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, buffer: *const c_void, length: usize, flags: c_int) -> isize => $hook {
                // SAFETY: the program's buffer.
                offered!(fd, unsafe { send_buffer(fd, buffer, length, flags) }, $name(fd, buffer, length, flags))
            }
        }
    };
}
send_hook!(send => on_send);
send_hook!(__send => on_send_alias);

macro_rules! recv_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize => $hook {
                // SAFETY: the program's buffer.
                offered!(fd, unsafe { receive_buffer(fd, buffer, length, flags) }, $name(fd, buffer, length, flags))
            }
        }
    };
}
recv_hook!(recv => on_recv);
recv_hook!(__recv => on_recv_alias);

hook! {
    // A connected TCP socket ignores the address.
    unsafe fn sendto(
        fd: c_int, buffer: *const c_void, length: usize, flags: c_int, address: *const sockaddr, address_length: socklen_t
    ) -> isize => on_sendto {
        // SAFETY: the program's buffer.
        offered!(fd, unsafe { send_buffer(fd, buffer, length, flags) }, sendto(fd, buffer, length, flags, address, address_length))
    }
}

hook! {
    unsafe fn recvfrom(
        fd: c_int, buffer: *mut c_void, length: usize, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t
    ) -> isize => on_recvfrom {
        // SAFETY: the program's pointers.
        offered!(fd, unsafe { receive_from(fd, buffer, length, flags, address, address_length) }, recvfrom(fd, buffer, length, flags, address, address_length))
    }
}

// The checked forms know the buffer's size; a length beyond it is for the real call, which ends the program.

hook! {
    unsafe fn __read_chk(fd: c_int, buffer: *mut c_void, length: usize, room: usize) -> isize => on_read_chk {
        if api::tracked(fd)
            && length <= room
            // SAFETY: the program's buffer.
            && let Some(result) = unsafe { read_buffer(fd, buffer, length) }
        {
            return errno::size(result);
        }
        original!(__read_chk(fd, buffer, length, room))
    }
}

hook! {
    unsafe fn __recv_chk(
        fd: c_int, buffer: *mut c_void, length: usize, room: usize, flags: c_int
    ) -> isize => on_recv_chk {
        if api::tracked(fd)
            && length <= room
            // SAFETY: the program's buffer.
            && let Some(result) = unsafe { receive_buffer(fd, buffer, length, flags) }
        {
            return errno::size(result);
        }
        original!(__recv_chk(fd, buffer, length, room, flags))
    }
}

hook! {
    unsafe fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, length: usize, room: usize, flags: c_int,
        address: *mut sockaddr, address_length: *mut socklen_t
    ) -> isize => on_recvfrom_chk {
        if api::tracked(fd)
            && length <= room
            // SAFETY: the program's pointers.
            && let Some(result) = unsafe { receive_from(fd, buffer, length, flags, address, address_length) }
        {
            return errno::size(result);
        }
        original!(__recvfrom_chk(fd, buffer, length, room, flags, address, address_length))
    }
}
