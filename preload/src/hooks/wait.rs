//! poll and ppoll. A set without a tracked descriptor goes to the kernel as it is.

use core::ffi::c_int;
use core::slice;

use convoy_runtime::api::{self, Handled};
use libc::{nfds_t, pollfd, sigset_t, timespec};
use redhook::hook;

use crate::{errno, pointer};

resolve! {
    poll __poll __poll_chk ppoll __ppoll_chk
}

/// True when the set holds a tracked descriptor.
///
/// # Safety
/// `set` is null or points to `count` pollfds.
pub(crate) unsafe fn any_tracked(set: *const pollfd, count: nfds_t) -> bool {
    if count > c_int::MAX as nfds_t || !api::plausible(set as usize, count as usize * size_of::<pollfd>()) {
        return false;
    }
    // SAFETY: `count` pollfds, by the caller's promise.
    let set = unsafe { slice::from_raw_parts(set, count as usize) };
    set.iter().any(|entry| api::tracked(entry.fd))
}

/// poll for a set that may hold tracked descriptors.
///
/// # Safety
/// `set` is null or points to `count` pollfds.
unsafe fn wait_milliseconds(set: *mut pollfd, count: nfds_t, timeout: c_int) -> Handled {
    // SAFETY: the program's set, a local timeout.
    unsafe {
        if !any_tracked(set, count) {
            return None;
        }
        let timeout = pointer::milliseconds(timeout);
        api::poll(set, count as usize, pointer::or_null(timeout.as_ref()), core::ptr::null())
    }
}

/// ppoll for a set that may hold tracked descriptors.
///
/// # Safety
/// `set` is null or points to `count` pollfds, `timeout` and `mask` are null or valid.
pub(crate) unsafe fn wait(
    set: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Handled {
    // SAFETY: the program's pointers.
    unsafe {
        if !any_tracked(set, count) || !pointer::timespec_valid(timeout) {
            return None;
        }
        api::poll(set, count as usize, timeout, mask)
    }
}

/// True when `count` entries fit in `room` bytes, which the checked forms know.
fn fits(count: nfds_t, room: usize) -> bool {
    count as usize <= room / size_of::<pollfd>()
}

macro_rules! poll_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(set: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int => $hook {
                // SAFETY: the program's set.
                if let Some(result) = unsafe { wait_milliseconds(set, count, timeout) } {
                    return errno::int(result);
                }
                original!($name(set, count, timeout))
            }
        }
    };
}
poll_hook!(poll => on_poll);
poll_hook!(__poll => on_poll_alias);

hook! {
    unsafe fn __poll_chk(set: *mut pollfd, count: nfds_t, timeout: c_int, room: usize) -> c_int => on_poll_chk {
        if fits(count, room)
            // SAFETY: the program's set.
            && let Some(result) = unsafe { wait_milliseconds(set, count, timeout) }
        {
            return errno::int(result);
        }
        original!(__poll_chk(set, count, timeout, room))
    }
}

hook! {
    unsafe fn ppoll(
        set: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t
    ) -> c_int => on_ppoll {
        // SAFETY: the program's pointers.
        if let Some(result) = unsafe { wait(set, count, timeout, mask) } {
            return errno::int(result);
        }
        original!(ppoll(set, count, timeout, mask))
    }
}

hook! {
    unsafe fn __ppoll_chk(
        set: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: usize
    ) -> c_int => on_ppoll_chk {
        if fits(count, room)
            // SAFETY: the program's pointers.
            && let Some(result) = unsafe { wait(set, count, timeout, mask) }
        {
            return errno::int(result);
        }
        original!(__ppoll_chk(set, count, timeout, mask, room))
    }
}
