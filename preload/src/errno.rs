//! The only place that reads or writes errno: turns the runtime's results into what a libc call returns.

use core::ffi::c_int;

/// The calling thread's errno.
pub(crate) fn get() -> c_int {
    // SAFETY: the location is valid for the life of the thread.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub(crate) fn set(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}

/// Return value of a call that counts bytes: the count, or -1 with errno set. Success leaves errno alone.
#[inline]
pub(crate) fn size(result: Result<usize, c_int>) -> isize {
    match result {
        Ok(count) => count as isize,
        Err(error) => {
            set(error);
            -1
        }
    }
}

/// Return value of a call that gives an int: the value, or -1 with errno set.
#[inline]
pub(crate) fn int(result: Result<usize, c_int>) -> c_int {
    size(result) as c_int
}

/// -1 with errno `error`.
#[cold]
pub(crate) fn fail(error: c_int) -> c_int {
    set(error);
    -1
}

/// Runs `work`, which may spoil errno, and puts the old value back.
pub(crate) fn preserved<T>(work: impl FnOnce() -> T) -> T {
    let saved = get();
    let value = work();
    set(saved);
    value
}
