//! Descriptors of Convoy's own that are in hand: made and not marked as such yet, or not closed yet and no longer marked. Who lists
//! the process's descriptors just then cannot tell them from the program's, and waits.

use core::sync::atomic::{AtomicU32, Ordering};

/// How many are in hand, or more. Counted up before the kernel makes one (or the mark is taken away) and down after the mark (or the
/// close), with Release; read with Acquire after the kernel has shown one.
static IN_HAND: AtomicU32 = AtomicU32::new(0);

/// So many were waited for in vain: their threads were cancelled, or left by siglongjmp(3). Written and read by those who wait.
static LEFT_BEHIND: AtomicU32 = AtomicU32::new(0);

/// While it lives, descriptors may be in hand.
pub struct Hand(());

/// To be called before a descriptor is made, and kept until it is marked or closed.
pub fn hand() -> Hand {
    IN_HAND.fetch_add(1, Ordering::AcqRel);
    Hand(())
}

impl Drop for Hand {
    fn drop(&mut self) {
        IN_HAND.fetch_sub(1, Ordering::Release);
    }
}

/// Whether every descriptor of Convoy's own has its mark at this moment, but for those given up.
pub fn is_hand_empty() -> bool {
    let found = IN_HAND.load(Ordering::Acquire);
    if found == 0 {
        LEFT_BEHIND.store(0, Ordering::Relaxed);
    }
    found <= LEFT_BEHIND.load(Ordering::Relaxed)
}

/// Those in hand now are not waited for again.
pub fn give_up_hand() {
    LEFT_BEHIND.store(IN_HAND.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The threads that held the others are the parent's.
pub fn empty_hand_in_child() {
    IN_HAND.store(0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_is_waited_for_once() {
        core::mem::forget(hand());
        assert!(!is_hand_empty());
        give_up_hand();
        assert!(is_hand_empty());
        let another = hand();
        assert!(!is_hand_empty());
        drop(another);
        assert!(is_hand_empty());
    }
}
