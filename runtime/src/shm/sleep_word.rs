//! Whether anybody on one side of a channel may be asleep, in one word that the other side reads after each message.
//!
//! A waker has to write (its message) before it reads (who sleeps), and a processor reorders just these two. The remedy, a full
//! fence, waits until the other processor has given up the cache line of the message: hundreds of nanoseconds per message
//! between two that are busy with each other. So wakers leave it out while this word is 0, and whoever goes to sleep pays for both:
//!
//! ```text
//!   sleeper                                  waker
//!     enter: word + 1                          publish
//!     unless FENCED was set:                   word = 0: nobody sleeps, done
//!       membarrier(2); confirm: set FENCED     fence
//!     fence                                    look at the waiters, ring
//!     look for work; none: sleep
//!     leave: word - 1
//! ```
//! membarrier(2) passes a full barrier on every processor that runs a registered process. A waker that read 0 did so before that
//! barrier, hence its message is visible after it, to the sleeper's look. A waker that reads anything else fences, and then either it
//! sees the sleeper or the sleeper sees its message. FENCED stays for sleepers to come, who then need no membarrier; a side that has
//! found messages many times without sleeping takes it away ([`SleepWord::relax`]).

use crate::sync::{AtomicU32, Ordering};

/// Wakers on the other side fence, by what they find in this word, since a membarrier that came after it was set.
const FENCED: u32 = 1 << 31;

/// Threads of one side that sleep or are about to, and [`FENCED`]. Written by that side's processes, each change one
/// read-modify-write; read by wakers of both sides, Relaxed (the barriers above order it).
#[repr(transparent)]
#[derive(Default)]
pub struct SleepWord(AtomicU32);

impl SleepWord {
    /// The state of a new channel: wakers fence.
    pub fn begin(&self) {
        self.0.store(FENCED, Ordering::Relaxed);
    }

    /// Sleeper: counts itself. False when wakers may leave out their fence: a membarrier is needed, and then [`Self::confirm`].
    #[inline]
    pub fn enter(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) & FENCED != 0
    }

    /// Sleeper, after a membarrier that followed its [`Self::enter`].
    pub fn confirm(&self) {
        self.0.fetch_or(FENCED, Ordering::SeqCst);
    }

    /// The sleep has ended.
    #[inline]
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// From now on wakers need no fence, unless somebody sleeps.
    pub fn relax(&self) {
        let _ = self.0.compare_exchange(FENCED, 0, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Waker, after it has published: whether nobody sleeps, so that nothing is left to do.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_quiet_only_while_nobody_sleeps() {
        let word = SleepWord::default();
        word.begin();
        assert!(!word.is_quiet());
        assert!(word.enter(), "a new channel's wakers fence");
        word.relax();
        assert!(!word.is_quiet(), "somebody sleeps");
        word.leave();
        word.relax();
        assert!(word.is_quiet());
        assert!(!word.enter(), "a membarrier is needed");
        word.relax();
        assert!(!word.is_quiet());
        word.confirm();
        assert!(word.enter());
        word.leave();
        word.leave();
        assert!(!word.is_quiet(), "wakers go on fencing");
    }
}
