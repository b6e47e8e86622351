//! Signals that come again and again while a thread is in a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends SIGUSR1 to a thread until told to stop.
pub fn pester<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: no memory is involved.
    let target = unsafe { libc::pthread_self() };
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let thread = std::thread::spawn(move || {
        while !flag.load(Ordering::SeqCst) {
            // SAFETY: the target thread waits for this one.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let result = body();
    done.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    result
}
