//! Descriptors of Convoy's own that are in hand: made and not marked as such yet, or not closed yet and no longer marked. Who lists
//! the process's descriptors just then cannot tell them from the program's, and waits.

use core::sync::atomic::{AtomicU32, Ordering};

/// How many are in hand, or more. Counted up before the kernel makes one (or the mark is taken away) and down after the mark (or the
/// close), with Release; read with Acquire after the kernel has shown one.
static IN_HAND: AtomicU32 = AtomicU32::new(0);

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

/// Whether every descriptor of Convoy's own has its mark at this moment.
pub fn is_hand_empty() -> bool {
    IN_HAND.load(Ordering::Acquire) == 0
}

/// The threads that held the others are the parent's.
pub fn empty_hand_in_child() {
    IN_HAND.store(0, Ordering::Release);
}
