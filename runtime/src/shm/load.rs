//! How much a program sends on a stream to another host, for the agent: it judges by that whether the fabric is worth it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counters of one stream, on whatever path its bytes go. Written by the program's threads, read by the agent, all Relaxed:
/// estimates, which may miss a message where two threads send at once.
#[repr(C, align(16))]
pub struct Load {
    lone: AtomicU32,
    streamed: AtomicU32,
    bytes: AtomicU64,
}

/// What a program has sent on a stream; the numbers wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages sent after something had come back for the one before.
    pub lone: u32,
    /// Messages sent right after another.
    pub streamed: u32,
    pub bytes: u64,
}

impl Load {
    #[inline]
    pub fn add(&self, lone: bool, bytes: usize) {
        let messages = if lone { &self.lone } else { &self.streamed };
        messages.store(messages.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    pub fn sent(&self) -> Sent {
        Sent {
            lone: self.lone.load(Ordering::Relaxed),
            streamed: self.streamed.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Sent {
    /// What was sent since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            lone: self.lone.wrapping_sub(before.lone),
            streamed: self.streamed.wrapping_sub(before.streamed),
            bytes: self.bytes.wrapping_sub(before.bytes),
        }
    }
}
