//! The clock of timeouts, asked of the kernel's vDSO itself: what other libraries make of `clock_gettime` (libfaketime gives
//! a program another time, which may stand still) is no measure for how long a thread has waited.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use syscalls::{Sysno, syscall};

type Clock = unsafe extern "C" fn(c_int, *mut libc::timespec) -> c_int;

/// A [`Clock`]; null until it has been looked for.
static CLOCK: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline]
pub fn now_ns() -> u64 {
    let time = now();
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC.
#[inline]
pub fn now() -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut clock = CLOCK.load(Ordering::Relaxed);
    if clock.is_null() {
        clock = find_clock();
    }
    // SAFETY: CLOCK holds nothing but functions of this type; `time` is writable.
    unsafe { core::mem::transmute::<*mut c_void, Clock>(clock)(libc::CLOCK_MONOTONIC, &mut time) };
    time
}

/// Looks for the clock: at load, because the search is not for signal handlers.
#[cold]
pub fn find_clock() -> *mut c_void {
    let flags = libc::RTLD_LAZY | libc::RTLD_LOCAL | libc::RTLD_NOLOAD;
    // SAFETY: terminated names. Where it is there, the vDSO stays (vdso(7)).
    let found = unsafe {
        let vdso = libc::dlopen(c"linux-vdso.so.1".as_ptr(), flags);
        if vdso.is_null() { vdso } else { libc::dlsym(vdso, c"__vdso_clock_gettime".as_ptr()) }
    };
    let clock = if found.is_null() { by_call as Clock as *mut c_void } else { found };
    CLOCK.store(clock, Ordering::Relaxed);
    clock
}

/// The clock where there is no vDSO.
unsafe extern "C" fn by_call(clock: c_int, time: *mut libc::timespec) -> c_int {
    // SAFETY: the caller's place for the time.
    let _ = unsafe { syscall!(Sysno::clock_gettime, clock, time) };
    0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{by_call, now_ns};

    #[test]
    fn both_ways_tell_the_same_time() {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let before = now_ns();
        // SAFETY: a place for the time.
        unsafe { by_call(libc::CLOCK_MONOTONIC, &mut time) };
        let between = u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap();
        assert!(before > 0 && before <= between && between <= now_ns());
    }
}
