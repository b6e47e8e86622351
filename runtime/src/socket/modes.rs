//! What a connection's file description is set to, remembered so that the kernel need not be asked for each call that finds
//! nothing: whether calls block, and whether blocked reads have a time limit.

use core::sync::atomic::{AtomicU32, Ordering};

const BLOCKING: u32 = 1;
const NONBLOCKING: u32 = 2;
/// SO_RCVTIMEO is not set.
const PATIENT: u32 = 4;
const KNOWN: u32 = BLOCKING | NONBLOCKING | PATIENT;
/// Somebody who is not Convoy may have the description: nothing is remembered any more.
const SHARED: u32 = 8;
/// What is above counts changes: an answer of the kernel from before a change is not remembered after it.
const ONE_CHANGE: u32 = 16;

/// Written by threads of this process. Only to be used while no other process holds the description too, because that one's changes are
/// not seen here.
#[derive(Default)]
pub struct Modes(AtomicU32);

impl Modes {
    /// The object is used for another connection.
    pub fn reset(&self) {
        self.change(KNOWN | SHARED, 0);
    }

    /// The program has changed something.
    pub fn forget(&self) {
        self.change(KNOWN, 0);
    }

    /// Another program gets the description too.
    pub fn share(&self) {
        self.change(KNOWN, SHARED);
    }

    fn change(&self, less: u32, more: u32) {
        let change = |word: u32| Some((word & !less | more).wrapping_add(ONE_CHANGE));
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change);
    }

    /// O_NONBLOCK, as known or as `ask` says; `alone` says after that whether this process still is the only one.
    #[inline]
    pub fn nonblocking(&self, ask: impl FnOnce() -> bool, alone: impl FnOnce() -> bool) -> bool {
        let word = self.0.load(Ordering::Acquire);
        match word & (BLOCKING | NONBLOCKING) {
            0 => {
                let nonblocking = ask();
                self.remember(word, if nonblocking { NONBLOCKING } else { BLOCKING }, alone);
                nonblocking
            }
            mode => mode == NONBLOCKING,
        }
    }

    /// The time limit of reads, if there is one; `ask` is spared when it is known that there is none.
    #[inline]
    pub fn time_limit<T>(&self, ask: impl FnOnce() -> Option<T>, alone: impl FnOnce() -> bool) -> Option<T> {
        let word = self.0.load(Ordering::Acquire);
        if word & PATIENT != 0 {
            return None;
        }
        let limit = ask();
        if limit.is_none() {
            self.remember(word, PATIENT, alone);
        }
        limit
    }

    fn remember(&self, before: u32, more: u32, alone: impl FnOnce() -> bool) {
        if before & SHARED != 0 || !alone() {
            return;
        }
        let _ = self.0.compare_exchange(before, before | more, Ordering::AcqRel, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(modes: &Modes, answer: bool) -> bool {
        modes.nonblocking(|| answer, || true)
    }

    #[test]
    fn asks_once_and_again_after_a_change() {
        let modes = Modes::default();
        assert!(ask(&modes, true));
        assert!(ask(&modes, false), "it is known");
        modes.forget();
        assert!(!ask(&modes, false));
        assert_eq!(modes.time_limit(|| Some(5), || true), Some(5));
        assert_eq!(modes.time_limit(|| None::<i32>, || true), None);
        assert_eq!(modes.time_limit(|| Some(5), || true), None, "it is known");
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let modes = Modes::default();
        let changed = || {
            modes.forget();
            false
        };
        assert!(!modes.nonblocking(changed, || true));
        assert!(ask(&modes, true));
    }

    #[test]
    fn nothing_is_kept_that_others_may_change() {
        let modes = Modes::default();
        assert!(!modes.nonblocking(|| false, || false));
        assert!(ask(&modes, true));
        modes.share();
        assert!(!ask(&modes, false));
        assert!(ask(&modes, true));
        modes.reset();
        assert!(!ask(&modes, false));
        assert!(!ask(&modes, true), "it is known");
    }
}
