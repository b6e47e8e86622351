//! What a connection's file description is set to, remembered so that the kernel need not be asked for each call that finds
//! nothing: whether calls block, and whether blocked reads have a time limit.

use core::sync::atomic::{AtomicU32, Ordering};

const BLOCKING: u32 = 1;
const NONBLOCKING: u32 = 2;
/// SO_RCVTIMEO is not set.
const PATIENT: u32 = 4;
const KNOWN: u32 = BLOCKING | NONBLOCKING | PATIENT;
/// What is above counts changes: an answer of the kernel from before a change is not remembered after it.
const ONE_CHANGE: u32 = 8;

/// Written by threads of this process. Only to be used while no other process holds the description too, because that one's changes are
/// not seen here.
#[derive(Default)]
pub struct Modes(AtomicU32);

impl Modes {
    /// The program has changed something.
    pub fn forget(&self) {
        let change = |word: u32| Some((word & !KNOWN).wrapping_add(ONE_CHANGE));
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change);
    }

    /// O_NONBLOCK, as known or as `ask` says.
    #[inline]
    pub fn nonblocking(&self, ask: impl FnOnce() -> bool) -> bool {
        let word = self.0.load(Ordering::Acquire);
        match word & (BLOCKING | NONBLOCKING) {
            0 => {
                let nonblocking = ask();
                self.remember(word, if nonblocking { NONBLOCKING } else { BLOCKING });
                nonblocking
            }
            mode => mode == NONBLOCKING,
        }
    }

    /// The time limit of reads, if there is one; `ask` is spared when it is known that there is none.
    #[inline]
    pub fn time_limit<T>(&self, ask: impl FnOnce() -> Option<T>) -> Option<T> {
        let word = self.0.load(Ordering::Acquire);
        if word & PATIENT != 0 {
            return None;
        }
        let limit = ask();
        if limit.is_none() {
            self.remember(word, PATIENT);
        }
        limit
    }

    fn remember(&self, before: u32, more: u32) {
        let _ = self.0.compare_exchange(before, before | more, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_and_again_after_a_change() {
        let modes = Modes::default();
        assert!(modes.nonblocking(|| true));
        assert!(modes.nonblocking(|| panic!("it is known")));
        modes.forget();
        assert!(!modes.nonblocking(|| false));
        assert_eq!(modes.time_limit(|| Some(5)), Some(5));
        assert_eq!(modes.time_limit(|| None::<i32>), None);
        assert_eq!(modes.time_limit(|| -> Option<i32> { panic!("it is known") }), None);
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let modes = Modes::default();
        let old = modes.nonblocking(|| {
            modes.forget();
            false
        });
        assert!(!old);
        assert!(modes.nonblocking(|| true));
    }
}
