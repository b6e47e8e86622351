//! Which bells to ring for a stream or lane: up to four numbers in one shared word.

use crate::sync::{AtomicU64, Ordering};

/// Four 16-bit bell numbers, 0 = empty place. Written by those who wait (compare-and-swap), read by whoever
/// may have to wake them. The Relaxed accesses are ordered by the fences of the sleep protocol (see `bell`).
#[repr(transparent)]
#[derive(Default)]
pub struct Waiters(AtomicU64);

impl Waiters {
    #[inline]
    pub fn snapshot(&self) -> Bells {
        Bells(self.0.load(Ordering::Relaxed))
    }

    /// Adds a bell; false when all four places are taken by others (the waiter must then look by itself).
    pub fn add(&self, bell: u16) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let free = (0..4).find(|place| word >> (place * 16) & 0xffff == 0)?;
                Some(word | u64::from(bell) << (free * 16))
            })
            .is_ok()
    }

    /// Adds a bell unless it is there already: for one that a thread has borrowed, which a sleep cut short may have left.
    pub fn add_once(&self, bell: u16) -> bool {
        self.snapshot().any(|known| known == bell) || self.add(bell)
    }

    /// Removes one occurrence of a bell, if it is there.
    pub fn remove(&self, bell: u16) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let place = (0..4).find(|place| word >> (place * 16) & 0xffff == u64::from(bell))?;
            Some(word & !(0xffff << (place * 16)))
        });
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What a [`Waiters`] word held at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bells(u64);

impl Bells {
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Iterator for Bells {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while self.0 != 0 {
            let bell = self.0 as u16;
            self.0 >>= 16;
            if bell != 0 {
                return Some(bell);
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn holds_four_and_forgets_them() {
        let waiters = Waiters::default();
        for bell in [7, 8, 9, 10] {
            assert!(waiters.add(bell));
        }
        assert!(!waiters.add(11));
        waiters.remove(8);
        waiters.remove(8);
        assert!(waiters.add(12));
        assert_eq!(waiters.snapshot().collect::<Vec<_>>(), [7, 12, 9, 10]);
    }
}
