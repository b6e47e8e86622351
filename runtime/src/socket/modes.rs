//! What a connection's file description is set to, remembered so that the kernel need not be asked for each call that finds
//! nothing: whether calls block, and whether blocked reads have a time limit. And TCP_CORK, which says nothing to a channel: the kernel
//! is told when the stream goes back to it.

use super::Socket;
use crate::channel::Channel;
use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering};

const BLOCKING: u32 = 1;
const NONBLOCKING: u32 = 2;
/// SO_RCVTIMEO is not set.
const PATIENT: u32 = 4;
const KNOWN: u32 = BLOCKING | NONBLOCKING | PATIENT;
/// Somebody who is not Convoy may have the description: nothing is remembered any more.
const SHARED: u32 = 8;
/// The kernel's TCP_CORK is off.
const OPEN: u32 = 16;
/// The program has set TCP_CORK, which the kernel does not know; only with [`OPEN`].
const CORKED: u32 = 32;
/// What is above counts changes: an answer of the kernel from before a change is not remembered after it.
const ONE_CHANGE: u32 = 64;

/// Written by threads of this process. Only to be used while no other process holds the description too, because that one's changes are
/// not seen here.
#[derive(Default)]
pub struct Modes(AtomicU32);

impl Modes {
    /// The object is used for another connection.
    pub fn reset(&self) {
        self.change(KNOWN | SHARED | OPEN | CORKED, 0);
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

    /// TCP_CORK is set; false when the kernel has to do it. `ask` says whether it is off there.
    pub fn cork(&self, ask: impl FnOnce() -> bool, alone: impl FnOnce() -> bool) -> bool {
        let word = self.0.load(Ordering::Acquire);
        if word & CORKED != 0 {
            return true;
        }
        if word & SHARED != 0 || word & OPEN == 0 && !ask() || !alone() {
            return false;
        }
        self.0.compare_exchange(word, word | OPEN | CORKED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// TCP_CORK is cleared; false when the kernel has to do it.
    pub fn uncork(&self) -> bool {
        self.0.fetch_and(!CORKED, Ordering::AcqRel) & CORKED != 0
    }

    /// Whether TCP_CORK is set without the kernel's knowledge.
    pub fn is_corked(&self) -> bool {
        self.0.load(Ordering::Acquire) & CORKED != 0
    }

    /// The kernel is told of changes again: whether it has to be told of one now.
    pub fn leave_cork(&self) -> bool {
        self.0.fetch_and(!(OPEN | CORKED), Ordering::AcqRel) & CORKED != 0
    }

    fn remember(&self, before: u32, more: u32, alone: impl FnOnce() -> bool) {
        if before & SHARED != 0 || !alone() {
            return;
        }
        let _ = self.0.compare_exchange(before, before | more, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Socket {
    /// Whether calls on it do not block, as known or as `ask` says.
    #[inline]
    pub fn nonblocking(&self, ask: impl FnOnce() -> bool) -> bool {
        if self.is_sole() { self.modes.nonblocking(ask, || self.is_sole()) } else { ask() }
    }

    /// The time limit of reads, as known or as `ask` says.
    #[inline]
    pub fn time_limit<T>(&self, ask: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.is_sole() { self.modes.time_limit(ask, || self.is_sole()) } else { ask() }
    }

    /// Whether no other process of the family holds the stream.
    #[inline]
    fn is_sole(&self) -> bool {
        let sole = |(channel, slot): (&Channel, u32)| {
            channel.party.stream(slot).holders.load(Ordering::Acquire) == 1
        };
        self.stream().is_some_and(sole)
    }

    /// Another program, or the kernel, gets the description: what it is set to may change unseen.
    pub fn share_modes(&self, fd: i32) {
        self.modes.share();
        self.leave_cork(fd);
    }

    /// The program has changed the description.
    pub fn forget_modes(&self) {
        self.modes.forget();
    }

    /// TCP_CORK is set or cleared on a stream whose bytes take the channel; false when the kernel has to do it.
    pub fn cork(&self, on: bool, ask: impl FnOnce() -> bool) -> bool {
        if on { self.is_sole() && self.modes.cork(ask, || self.is_sole()) } else { self.modes.uncork() }
    }

    /// Whether TCP_CORK is set without the kernel's knowledge.
    pub fn is_corked(&self) -> bool {
        self.modes.is_corked()
    }

    /// The kernel gets to know TCP_CORK.
    pub fn leave_cork(&self, fd: i32) {
        if self.modes.leave_cork() {
            let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CORK, &1i32);
        }
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

    #[test]
    fn corks_that_the_kernel_does_not_know() {
        let modes = Modes::default();
        let alone = || true;
        assert!(!modes.cork(|| false, alone), "it is set in the kernel already");
        assert!(!modes.cork(|| true, || false), "another process may ask");
        assert!(!modes.uncork());
        assert!(modes.cork(|| true, alone) && modes.is_corked());
        assert!(modes.cork(|| false, alone), "it is known");
        assert!(modes.uncork() && !modes.is_corked());
        assert!(modes.cork(|| false, alone), "the kernel's is known to be off");
        assert!(modes.leave_cork());
        assert!(!modes.leave_cork() && !modes.is_corked());
        modes.share();
        assert!(!modes.cork(|| true, alone));
    }
}
