//! liburing's entry points. A ring would carry socket calls past every hook, so unless the settings allow it
//! a program is told that the kernel has no io_uring and uses epoll. The system call itself is in `syscall`.

use core::ffi::{c_int, c_uint, c_void};

use convoy_runtime::api;
use redhook::hook;

use crate::calls;

resolve! {
    io_uring_queue_init io_uring_queue_init_params io_uring_queue_init_mem
}

hook! {
    unsafe fn io_uring_queue_init(entries: c_uint, ring: *mut c_void, flags: c_uint) -> c_int => on_queue_init {
        if !api::io_uring_allowed() || !calls::exists(c"io_uring_queue_init") {
            return -libc::ENOSYS;
        }
        original!(io_uring_queue_init(entries, ring, flags))
    }
}

hook! {
    unsafe fn io_uring_queue_init_params(
        entries: c_uint, ring: *mut c_void, parameters: *mut c_void
    ) -> c_int => on_queue_init_params {
        if !api::io_uring_allowed() || !calls::exists(c"io_uring_queue_init_params") {
            return -libc::ENOSYS;
        }
        original!(io_uring_queue_init_params(entries, ring, parameters))
    }
}

hook! {
    unsafe fn io_uring_queue_init_mem(
        entries: c_uint, ring: *mut c_void, parameters: *mut c_void, memory: *mut c_void, bytes: usize
    ) -> c_int => on_queue_init_mem {
        if !api::io_uring_allowed() || !calls::exists(c"io_uring_queue_init_mem") {
            return -libc::ENOSYS;
        }
        original!(io_uring_queue_init_mem(entries, ring, parameters, memory, bytes))
    }
}
