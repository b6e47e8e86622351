//! How a TCP connection begins and ends: socket, bind, listen, connect, accept, shutdown. The kernel does all
//! of it; the runtime only learns what came out.

use core::ffi::c_int;

use convoy_runtime::api;
use libc::{sockaddr, socklen_t};
use redhook::hook;

use super::descriptor::made;
use crate::errno;

resolve! {
    socket __socket bind listen connect __connect accept accept4 shutdown
}

macro_rules! socket_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(domain: c_int, kind: c_int, protocol: c_int) -> c_int => $hook {
                made(original!($name(domain, kind, protocol)))
            }
        }
    };
}
socket_hook!(socket => on_socket);
socket_hook!(__socket => on_socket_alias);

// A connected TCP socket can be neither bound nor made a listener: success means that a slot is stale.

hook! {
    unsafe fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int => on_bind {
        let result = original!(bind(fd, address, length));
        if result == 0 {
            made(fd);
        }
        result
    }
}

hook! {
    unsafe fn listen(fd: c_int, backlog: c_int) -> c_int => on_listen {
        let result = original!(listen(fd, backlog));
        if result == 0 {
            made(fd);
        }
        result
    }
}

/// Tells the runtime how a connect went. Asking again about a connection that is under way or made (0,
/// EALREADY, EISCONN on a tracked descriptor) changes nothing; AF_UNSPEC ends it.
///
/// # Safety
/// `address` is null or has `length` bytes.
unsafe fn connected(fd: c_int, outcome: c_int, address: *const sockaddr, length: socklen_t) {
    let asked_again = api::tracked(fd) && matches!(-outcome, 0 | libc::EALREADY | libc::EISCONN);
    // SAFETY: the kernel has read the address, if there is one.
    let ending =
        unsafe { address.as_ref() }.is_some_and(|address| address.sa_family == libc::AF_UNSPEC as u16);
    if (!asked_again || ending) && !api::in_vfork_child() {
        // SAFETY: the program's address.
        unsafe { api::after_connect(fd, outcome, address, length) };
    }
}

macro_rules! connect_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int => $hook {
                let result = original!($name(fd, address, length));
                let outcome = if result == 0 { 0 } else { -errno::get() };
                // SAFETY: the program's address.
                unsafe { connected(fd, outcome, address, length) };
                result
            }
        }
    };
}
connect_hook!(connect => on_connect);
connect_hook!(__connect => on_connect_alias);

/// How many bytes of an address the program has room for.
///
/// # Safety
/// `length` is null or valid.
unsafe fn room(length: *const socklen_t) -> socklen_t {
    // SAFETY: null or valid, by the caller's promise.
    unsafe { length.as_ref() }.copied().unwrap_or(0)
}

/// The runtime learns of a new connection. The kernel's length may exceed the program's room: the address is
/// cut then.
///
/// # Safety
/// `address` has `room` bytes, unless it is null; `length` is null or valid.
unsafe fn accepted(
    listener: c_int,
    fd: c_int,
    address: *const sockaddr,
    length: *const socklen_t,
    space: socklen_t,
) {
    if fd >= 0 && !api::in_vfork_child() {
        made(fd);
        // SAFETY: no more than the program's room.
        unsafe { api::after_accept(listener, fd, address, room(length).min(space)) };
    }
}

hook! {
    unsafe fn accept(listener: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => on_accept {
        // SAFETY: the program's pointer.
        let space = unsafe { room(length) };
        let fd = original!(accept(listener, address, length));
        // SAFETY: as above.
        unsafe { accepted(listener, fd, address, length, space) };
        fd
    }
}

hook! {
    unsafe fn accept4(
        listener: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int
    ) -> c_int => on_accept4 {
        // SAFETY: the program's pointer.
        let space = unsafe { room(length) };
        let fd = original!(accept4(listener, address, length, flags));
        // SAFETY: as above.
        unsafe { accepted(listener, fd, address, length, space) };
        fd
    }
}

hook! {
    unsafe fn shutdown(fd: c_int, how: c_int) -> c_int => on_shutdown {
        if api::tracked(fd)
            && let Some(result) = api::shutdown(fd, how)
        {
            return errno::int(result);
        }
        original!(shutdown(fd, how))
    }
}
