//! What a program and its agent have to tell each other beside the frames: which lines of the segment have changed.

use core::sync::atomic::{AtomicU64, Ordering};

/// Slots whose line one side has changed in a way that the other must learn of: a bit each, and a bit for each word
/// that is not 0. Set with Release after the change, taken with an Acquire swap by the other side.
#[repr(C, align(64))]
pub struct Changes {
    summary: [AtomicU64; CHANGE_WORDS / 64],
    words: [AtomicU64; CHANGE_WORDS],
}

/// Words of 64 slots each.
const CHANGE_WORDS: usize = 256;
/// Most slots of a channel whose changes are followed.
pub const MOST_FOLLOWED: u32 = CHANGE_WORDS as u32 * 64;

impl Changes {
    #[cfg(test)]
    fn new() -> Self {
        Self { summary: [const { AtomicU64::new(0) }; 4], words: [const { AtomicU64::new(0) }; CHANGE_WORDS] }
    }

    pub fn mark(&self, slot: u32) {
        let word = slot as usize / 64 % CHANGE_WORDS;
        self.words[word].fetch_or(1 << (slot % 64), Ordering::Release);
        self.summary[word / 64].fetch_or(1 << (word % 64), Ordering::Release);
    }

    /// Whether any is marked; needs no ordering, a later look will find it.
    pub fn any(&self) -> bool {
        self.summary.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Takes all marks.
    pub fn take(&self, mut changed: impl FnMut(u32)) {
        for (index, summary) in self.summary.iter().enumerate() {
            for word in bits(summary.swap(0, Ordering::Acquire)) {
                let word = index * 64 + word as usize;
                bits(self.words[word].swap(0, Ordering::Acquire))
                    .for_each(|bit| changed(word as u32 * 64 + bit));
            }
        }
    }
}

fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_taken_once() {
        let changes = Changes::new();
        for slot in [0, 63, 64, 5000, MOST_FOLLOWED - 1, 64] {
            changes.mark(slot);
        }
        assert!(changes.any());
        let mut taken = Vec::new();
        changes.take(|slot| taken.push(slot));
        assert_eq!(taken, [0, 63, 64, 5000, MOST_FOLLOWED - 1]);
        assert!(!changes.any());
        changes.take(|slot| panic!("{slot} twice"));
    }
}
