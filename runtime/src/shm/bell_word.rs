//! The two words of a bell in the registry and the rules by which sleepers and wakers use them, so that no wake-up
//! is lost and a ring is paid for once. The FIFO itself is in `bell`.
//!
//! ```text
//!   sleeper                                  waker
//!     put the bell among the waiters           publish
//!     doze: sleepers + 1, fence                fence
//!     look for work; none: sleep on the FIFO   look at the waiters; must_ring: write to the FIFO
//!     wake: sleepers - 1, take_rings
//! ```
//! Either the waker sees the bell and the sleeper, or the sleeper sees the work: both write, pass a sequentially
//! consistent fence, and read.

use crate::sync::{AtomicU32, Ordering, fence};

/// The words of one bell.
#[derive(Clone, Copy)]
pub struct BellWord<'a> {
    /// Threads that sleep or are about to; written by the owner's threads.
    pub sleepers: &'a AtomicU32,
    /// Process id of the last waker from its ring until the woken thread looks, otherwise 0; written by both sides.
    /// A waker relies on rings of its own process only: another may have been stopped or killed before its write.
    pub rung: &'a AtomicU32,
}

impl BellWord<'_> {
    /// Sleeper: counts itself. What it looks at next is ordered after this.
    pub fn doze(self) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Waker of process `own`, after publishing and a sequentially consistent fence: whether it is the one to write
    /// to the FIFO.
    pub fn must_ring(self, own: u32) -> bool {
        self.sleepers.load(Ordering::Relaxed) != 0 && self.rung.swap(own, Ordering::SeqCst) != own
    }
}

/// Sleeper: no ring is owed any more by those who use any of `words`, which belong to one FIFO. `readable` when the FIFO
/// was seen to hold rings; `empty` reads it empty.
pub fn wake<'a>(words: impl Iterator<Item = BellWord<'a>> + Clone, readable: bool, empty: impl FnOnce()) {
    words.clone().for_each(|word| {
        let less = |count: u32| count.checked_sub(1);
        let _ = word.sleepers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    });
    let rung = readable || words.clone().any(|word| word.rung.load(Ordering::SeqCst) != 0);
    take_rings(words, rung, empty);
}

/// Sleeper: lets the next waker ring again; to be followed by a look for work. The FIFO is emptied first: in the other
/// order a ring in between would be swallowed with `rung` left set. The swap is ordered with the wakers' swaps: one
/// that finds `rung` set has published before this, one that comes later rings.
pub fn take_rings<'a>(words: impl Iterator<Item = BellWord<'a>>, rung: bool, empty: impl FnOnce()) {
    if rung {
        empty();
        words.for_each(|word| {
            word.rung.swap(0, Ordering::SeqCst);
        });
    }
}
