//! A thread of Convoy's own inside a program: started when needed, with all signals blocked; fork waits until it holds nothing
//! and the child has none. What it does is its user's: the flusher, and the one that hears the agent.

use crate::lock::{Mutex, MutexGuard};
use core::sync::atomic::{AtomicU32, Ordering};

const STACK_BYTES: usize = 128 << 10;

/// The one thread of a kind.
pub struct Background {
    name: &'static str,
    /// 1 while the thread exists. Changed by whoever starts it and by the thread at its end.
    running: AtomicU32,
    /// Held while the thread is at work; taken by fork.
    work: Mutex<()>,
}

impl Background {
    pub const fn new(name: &'static str) -> Self {
        Self { name, running: AtomicU32::new(0), work: Mutex::new(()) }
    }

    /// Whether the thread is there; for a hint.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) != 0
    }

    /// Starts the thread unless it is there; false when that is not possible.
    pub fn start(&self, run: fn()) -> bool {
        if self.running.swap(1, Ordering::SeqCst) == 1 {
            return true;
        }
        let builder = std::thread::Builder::new().name(self.name.into()).stack_size(STACK_BYTES);
        let started = with_signals_blocked(|| builder.spawn(run).is_ok());
        if !started {
            self.end();
        }
        started
    }

    /// The thread is about to end.
    pub fn end(&self) {
        self.running.store(0, Ordering::SeqCst);
    }

    /// The thread has found something to do after all; false when another was started meanwhile.
    pub fn end_is_off(&self) -> bool {
        self.running.swap(1, Ordering::SeqCst) == 0
    }

    /// The thread is at work until the guard is dropped.
    pub fn work(&self) -> MutexGuard<'_, ()> {
        self.work.lock()
    }

    /// [`Self::work`], unless fork is at it.
    pub fn try_work(&self) -> Option<MutexGuard<'_, ()>> {
        self.work.try_lock()
    }

    /// Before fork: waits until the thread holds nothing, and keeps it there.
    pub fn pause(&self) {
        core::mem::forget(self.work.lock());
    }

    /// After fork, in both processes.
    pub fn go_on(&self) {
        // SAFETY: taken in `pause` by this thread and forgotten.
        unsafe { self.work.force_unlock() };
    }

    /// After fork, in the child, which has no such thread.
    pub fn after_fork_in_child(&self) {
        crate::lock::free_in_child(&self.work);
        self.running.store(0, Ordering::Release);
    }
}

/// A new thread starts with its maker's mask: the program's signals are not for it.
fn with_signals_blocked<T>(action: impl FnOnce() -> T) -> T {
    // SAFETY: all zeros is a valid set; both sets are writable and live long enough.
    unsafe {
        let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = action();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, core::ptr::null_mut());
        result
    }
}
