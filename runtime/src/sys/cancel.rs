//! Cancellation points (pthreads(7)): a raw system call in which a thread sleeps has to be one, as libc's calls are.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

const ASYNCHRONOUS: c_int = 1;
/// No key has been made.
const NO_KEY: u32 = u32::MAX;

static KEY: AtomicU32 = AtomicU32::new(NO_KEY);

unsafe extern "C" {
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
}

/// Makes `call`, a system call and nothing else, during which pthread_cancel(3) ends the thread. What the callers have
/// on their stacks is then left as it is: the caller holds no lock.
#[inline]
pub fn cancellable<T>(call: impl FnOnce() -> T) -> T {
    let mut before = 0;
    // SAFETY: `before` is writable.
    unsafe { pthread_setcanceltype(ASYNCHRONOUS, &mut before) };
    let result = call();
    // SAFETY: as above.
    unsafe { pthread_setcanceltype(before, &mut before) };
    result
}

/// Has `leave` called at the end of every thread that has called [`leaves`].
pub fn at_thread_end(leave: extern "C" fn(*mut c_void)) {
    let mut key = 0;
    // SAFETY: the key is writable; the library, and with it the function, is never unloaded.
    if unsafe { libc::pthread_key_create(&mut key, Some(leave)) } == 0 {
        KEY.store(key, Ordering::Relaxed);
    }
}

/// This thread has something to leave behind in order.
pub fn leaves() {
    let key = KEY.load(Ordering::Relaxed);
    if key != NO_KEY {
        // SAFETY: a key of this process; any value but null has the function called.
        unsafe { libc::pthread_setspecific(key, core::ptr::without_provenance(1)) };
    }
}
