//! stdio on descriptors. libc's own calls inside stdio cannot be intercepted, so a stream that meets stdio
//! goes back to the kernel first. The variadic dprintf forms are in `trampoline`.

use core::ffi::{c_char, c_int, c_void};

use convoy_runtime::api::{self, Reason};
use libc::FILE;
use redhook::hook;

use super::descriptor;
use crate::errno;

resolve! {
    fopen fopen64 fdopen freopen freopen64 fclose vdprintf __vdprintf_chk
}

/// `fd` meets stdio.
pub(crate) fn leave(fd: c_int) {
    if api::tracked(fd) {
        api::demote(fd, Reason::Stdio);
    }
}

/// The descriptor of a stdio stream, or -1. errno stays as it was.
fn descriptor_of(file: *mut FILE) -> c_int {
    if file.is_null() {
        return -1;
    }
    // SAFETY: a stdio stream of the program.
    errno::preserved(|| unsafe { libc::fileno(file) })
}

/// libc is about to close `file`: what it still holds must leave before the stream ends.
fn finish(file: *mut FILE) {
    let fd = descriptor_of(file);
    if api::tracked(fd) {
        // SAFETY: a stdio stream of the program; fclose will report an error of writing itself.
        errno::preserved(|| unsafe { libc::fflush(file) });
        descriptor::ending(fd);
    }
}

/// libc has opened `file` (null: it failed). Gives `file` back.
fn opened(file: *mut FILE) -> *mut FILE {
    descriptor::made(descriptor_of(file));
    file
}

macro_rules! fopen_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE => $hook {
                opened(original!($name(path, mode)))
            }
        }
    };
}
fopen_hook!(fopen => on_fopen);
fopen_hook!(fopen64 => on_fopen64);

macro_rules! freopen_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            // With a null path the descriptor stays and only its mode changes.
            unsafe fn $name(path: *const c_char, mode: *const c_char, file: *mut FILE) -> *mut FILE => $hook {
                if path.is_null() {
                    return original!($name(path, mode, file));
                }
                finish(file);
                opened(original!($name(path, mode, file)))
            }
        }
    };
}
freopen_hook!(freopen => on_freopen);
freopen_hook!(freopen64 => on_freopen64);

hook! {
    unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE => on_fdopen {
        leave(fd);
        original!(fdopen(fd, mode))
    }
}

hook! {
    unsafe fn fclose(file: *mut FILE) -> c_int => on_fclose {
        finish(file);
        original!(fclose(file))
    }
}

// `arguments` is a va_list, which is passed as a pointer.

hook! {
    unsafe fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int => on_vdprintf {
        leave(fd);
        original!(vdprintf(fd, format, arguments))
    }
}

hook! {
    unsafe fn __vdprintf_chk(
        fd: c_int, flag: c_int, format: *const c_char, arguments: *mut c_void
    ) -> c_int => on_vdprintf_chk {
        leave(fd);
        original!(__vdprintf_chk(fd, flag, format, arguments))
    }
}
