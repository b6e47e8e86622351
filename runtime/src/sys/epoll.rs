//! epoll(7).

use super::{Answer, KERNEL_SIGSET_BYTES, Sysno, answer, syscall};
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};

pub fn epoll_create() -> Answer<c_int> {
    call!(epoll_create1, libc::EPOLL_CLOEXEC).map(|fd| fd as c_int)
}

/// # Safety
/// `event` is null or valid.
pub unsafe fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> Answer<()> {
    call!(epoll_ctl, epoll, operation, fd, event).map(drop)
}

/// Whether this kernel or sandbox has refused epoll_pwait2. Any thread writes it once, any reads it; it guards no data.
static ONLY_MILLISECONDS: AtomicBool = AtomicBool::new(false);

/// epoll_pwait2(2), Linux 5.11, or epoll_pwait(2) with whole milliseconds, rounded up, where that is refused (older kernels,
/// sandboxes, valgrind); `timeout` null waits for ever.
///
/// # Safety
/// `events` has room for `count`; `timeout` and `mask` are null or valid.
pub unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Answer<usize> {
    if !ONLY_MILLISECONDS.load(Ordering::Relaxed) {
        let waited = call!(epoll_pwait2, epoll, events, count, timeout, mask, KERNEL_SIGSET_BYTES);
        // EPERM is what some sandboxes say for calls that they do not know; epoll_pwait2 itself never does.
        if !matches!(waited, Err(libc::ENOSYS | libc::EPERM)) {
            return waited;
        }
        ONLY_MILLISECONDS.store(true, Ordering::Relaxed);
    }
    // SAFETY: null or valid, as the caller guarantees.
    let milliseconds = unsafe { timeout.as_ref() }.map_or(-1, rounded_up);
    call!(epoll_pwait, epoll, events, count, milliseconds, mask, KERNEL_SIGSET_BYTES)
}

fn rounded_up(time: &libc::timespec) -> c_int {
    let milliseconds = time.tv_sec.saturating_mul(1000).saturating_add((time.tv_nsec + 999_999) / 1_000_000);
    milliseconds.clamp(0, c_int::MAX.into()) as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_and_stay_finite() {
        let time = |tv_sec, tv_nsec| rounded_up(&libc::timespec { tv_sec, tv_nsec });
        assert_eq!((time(0, 0), time(0, 1), time(1, 1_000_000), time(2, 1_000_001)), (0, 1, 1001, 2002));
        assert_eq!(time(i64::MAX, 0), c_int::MAX);
    }
}
