//! POSIX asynchronous I/O: libc does it in threads of its own, by calls that cannot be intercepted. A stream
//! that meets it goes back to the kernel first.

use core::ffi::{c_int, c_void};

use convoy_runtime::api::{self, Reason};
use libc::aiocb;
use redhook::hook;

resolve! {
    aio_read aio_read64 aio_write aio_write64 lio_listio lio_listio64
}

/// # Safety
/// `block` is null or valid.
unsafe fn leave(block: *const aiocb) {
    // SAFETY: null or valid, by the caller's promise.
    if let Some(block) = unsafe { block.as_ref() }
        && api::tracked(block.aio_fildes)
    {
        api::demote(block.aio_fildes, Reason::Call);
    }
}

macro_rules! aio_hook {
    ($($name:ident => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name(block: *mut aiocb) -> c_int => $hook {
                // SAFETY: the program's control block.
                unsafe { leave(block) };
                original!($name(block))
            }
        })*
    };
}

aio_hook! {
    aio_read => on_aio_read;
    aio_read64 => on_aio_read64;
    aio_write => on_aio_write;
    aio_write64 => on_aio_write64;
}

macro_rules! list_hook {
    ($($name:ident => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name(mode: c_int, list: *const *mut aiocb, count: c_int, event: *mut c_void) -> c_int => $hook {
                if !list.is_null() {
                    for index in 0..usize::try_from(count).unwrap_or(0) {
                        // SAFETY: inside the program's list of control blocks.
                        unsafe { leave(*list.add(index)) };
                    }
                }
                original!($name(mode, list, count, event))
            }
        })*
    };
}

list_hook! {
    lio_listio => on_lio_listio;
    lio_listio64 => on_lio_listio64;
}
