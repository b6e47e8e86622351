//! The blocks of one direction, as its sender keeps them: free, or lent to the receiver.

use super::segment::BLOCK_WORDS;
use core::sync::atomic::{AtomicU64, Ordering};

/// A bit per block. All zero: no blocks at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocks {
    free: [u64; BLOCK_WORDS],
    lent: [u64; BLOCK_WORDS],
}

crate::anchor::layout! {
    /// Where the bits lie.
    BlocksLayout of Blocks { lent }
}

impl Blocks {
    /// All of the first `count` blocks are free.
    pub fn first(count: u32) -> Self {
        let mut blocks = Self::default();
        for block in 0..count as usize {
            blocks.free[block / 64] |= 1 << (block % 64);
        }
        blocks
    }

    /// Takes a free block, after asking for those that the receiver has given back when none is known.
    pub fn lend(&mut self, returned: &[AtomicU64; BLOCK_WORDS]) -> Option<u32> {
        if self.free.iter().all(|word| *word == 0) {
            for (index, returned) in returned.iter().enumerate() {
                // Only blocks that are really out come back, whatever the peer wrote.
                let back = returned.swap(0, Ordering::Acquire) & self.lent[index];
                self.lent[index] &= !back;
                self.free[index] |= back;
            }
        }
        let index = self.free.iter().position(|word| *word != 0)?;
        let bit = self.free[index].trailing_zeros();
        self.free[index] &= !(1 << bit);
        self.lent[index] |= 1 << bit;
        Some(index as u32 * 64 + bit)
    }

    /// A block that was taken and not sent after all.
    pub fn keep(&mut self, block: u32) {
        let (index, bit) = (block as usize / 64, block % 64);
        self.free[index] |= 1 << bit;
        self.lent[index] &= !(1 << bit);
    }
}
