//! epoll. Tracked epoll descriptors are the runtime's; an epoll made where no hook saw it stays the kernel's.

use core::ffi::c_int;

use convoy_runtime::api::{self, Handled};
use libc::{epoll_event, sigset_t, timespec};
use redhook::hook;

use super::{descriptor, syscall};
use crate::{calls, errno, pointer};

resolve! {
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
}

/// An epoll descriptor has been made, unless `fd` is negative. Gives `fd` back.
pub(crate) fn made_epoll(fd: c_int) -> c_int {
    descriptor::made(fd);
    if fd >= 0 && !api::in_vfork_child() {
        api::after_epoll_create(fd);
    }
    fd
}

/// Waits on an epoll descriptor that may be tracked; `None` also where the kernel has an error for the
/// arguments.
///
/// # Safety
/// `events` has room for `count` events, `timeout` and `mask` are null or valid.
#[inline]
pub(crate) unsafe fn wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Handled {
    // SAFETY: the program's pointers.
    unsafe {
        if !api::tracked(epoll) || count <= 0 || events.is_null() || !pointer::timespec_valid(timeout) {
            return None;
        }
        api::epoll_wait(epoll, events, count, timeout, mask)
    }
}

hook! {
    unsafe fn epoll_create(size: c_int) -> c_int => on_epoll_create {
        made_epoll(original!(epoll_create(size)))
    }
}

hook! {
    unsafe fn epoll_create1(flags: c_int) -> c_int => on_epoll_create1 {
        made_epoll(original!(epoll_create1(flags)))
    }
}

hook! {
    unsafe fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int => on_epoll_ctl {
        // SAFETY: the program's event.
        offered!(epoll, unsafe { api::epoll_ctl(epoll, operation, fd, event) }, epoll_ctl(epoll, operation, fd, event))
    }
}

hook! {
    unsafe fn epoll_wait(epoll: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int => on_epoll_wait {
        let time = pointer::milliseconds(timeout);
        // SAFETY: the program's events, a local timeout.
        if let Some(result) = unsafe { wait(epoll, events, count, pointer::or_null(time.as_ref()), core::ptr::null()) } {
            return errno::int(result);
        }
        original!(epoll_wait(epoll, events, count, timeout))
    }
}

hook! {
    unsafe fn epoll_pwait(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t
    ) -> c_int => on_epoll_pwait {
        let time = pointer::milliseconds(timeout);
        // SAFETY: the program's pointers, a local timeout.
        if let Some(result) = unsafe { wait(epoll, events, count, pointer::or_null(time.as_ref()), mask) } {
            return errno::int(result);
        }
        original!(epoll_pwait(epoll, events, count, timeout, mask))
    }
}

hook! {
    unsafe fn epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec, mask: *const sigset_t
    ) -> c_int => on_epoll_pwait2 {
        // SAFETY: the program's pointers.
        if let Some(result) = unsafe { wait(epoll, events, count, timeout, mask) } {
            return errno::int(result);
        }
        if !calls::exists(c"epoll_pwait2") {
            // Before glibc 2.35.
            let arguments = [epoll as usize, events as usize, count as usize, timeout as usize, mask as usize, 8];
            // SAFETY: the program's arguments and the size of the kernel's signal set.
            return unsafe { syscall::call(libc::SYS_epoll_pwait2, arguments) } as c_int;
        }
        original!(epoll_pwait2(epoll, events, count, timeout, mask))
    }
}
