//! A mutex that survives fork: its whole state is one word, so a child can simply free what threads it does not have
//! were holding. Queues of parked threads, which others keep beside the lock, would name threads of the parent.

use crate::naps::Naps;
use crate::{inside, sys};
use core::sync::atomic::{AtomicBool, Ordering};
use parking_lot::lock_api::{self, GuardNoSend, RawMutex};

/// A mutex; waiting is spinning, then yielding, then short sleeps: it guards short sections only.
pub type Mutex<T> = lock_api::Mutex<Word, T>;
/// What [`Mutex::lock`] gives.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Word, T>;

/// True while held. Taken with Acquire, which pairs with the Release of the previous holder.
pub struct Word(AtomicBool);

const SPINS: u32 = 100;
const YIELDS: u32 = 200;

// SAFETY: the word is set by one thread at a time, and only the holder clears it.
unsafe impl RawMutex for Word {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        let (mut turns, mut naps) = (0u32, Naps::new());
        // A handler may run between two tries: it must not find the lock held by its own thread.
        while !self.try_lock() {
            turns += 1;
            if turns <= SPINS {
                core::hint::spin_loop();
            } else if turns <= YIELDS {
                sys::sched_yield();
            } else {
                naps.nap();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        inside::enter();
        let taken = self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !taken {
            inside::leave();
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
        inside::leave();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// In a forked child: frees a lock that a thread of the parent held; no such thread is here.
pub fn free_in_child<T>(mutex: &Mutex<T>) {
    // SAFETY: nothing but the word is touched; the child has one thread, which does not hold the lock.
    unsafe { mutex.raw() }.0.store(false, Ordering::Release);
}
