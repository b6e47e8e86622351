//! The cursors of a lane: one producer (whoever holds the sending lock) and one consumer (whoever holds the
//! receiving lock), in two processes.
//!
//! ```text
//!   head            tail                 cursors only grow; position = cursor mod capacity
//!    |---- frames ----|-- free --|       invariant 1: head <= tail <= head + capacity
//!                                        invariant 2: both are multiples of 8
//!                                        invariant 3: a frame never wraps (a Pad frame fills the end)
//! ```
//!
//! Each end keeps its own authoritative cursor in memory the other cannot write and reads the other's from the
//! shared line only when its cached copy says full (producer) or empty (consumer). A cursor that breaks an
//! invariant is a lie: the caller ends the channel.

use crate::sync::{AtomicU64, Ordering};

/// Written by the producer, read by the consumer.
#[repr(C, align(64))]
#[derive(Default)]
pub struct ProducerLine {
    /// Bytes ever published. Stored with Release after the frames are written; the consumer's Acquire load in
    /// [`Consumer::refresh`] pairs with it (SYNC POINT A: frame content).
    tail: AtomicU64,
    /// Bytes written, where they are held before they are published: what a dead producer leaves behind. Stored with
    /// Release as `tail` is; pairs with the Acquire load in [`Consumer::reveal`].
    written: AtomicU64,
}

/// Written by the consumer, read by the producer.
#[repr(C, align(64))]
#[derive(Default)]
pub struct ConsumerLine {
    /// Bytes ever taken. Stored with Release after the frames were copied out; the producer's Acquire load in
    /// [`Producer::room`] pairs with it (SYNC POINT B: memory may be written again).
    head: AtomicU64,
}

/// Something that the other side wrote cannot be true: what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie(pub &'static str);

/// A cursor.
const CURSOR: Lie = Lie("impossible cursor");

/// The producer's own cursors; guarded by the sending lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Producer {
    tail: u64,
    cached_head: u64,
}

impl Producer {
    /// Bytes written so far.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Where the next frame goes: offset in the ring.
    #[inline]
    pub fn offset(&self, capacity: u64) -> usize {
        (self.tail & (capacity - 1)) as usize
    }

    /// Whether `bytes` are free, looking at the consumer's cursor only when the cached one says no.
    #[inline]
    pub fn room(&mut self, line: &ConsumerLine, capacity: u64, bytes: u64) -> Result<bool, Lie> {
        if self.tail + bytes - self.cached_head <= capacity {
            return Ok(true);
        }
        let head = line.head.load(Ordering::Acquire);
        if head > self.tail || head < self.cached_head || head & 7 != 0 {
            return Err(CURSOR);
        }
        self.cached_head = head;
        Ok(self.tail + bytes - head <= capacity)
    }

    /// What the consumer has not given back: from where to where.
    pub fn unreleased(&self, line: &ConsumerLine, capacity: u64) -> Result<(u64, u64), Lie> {
        let head = line.head.load(Ordering::Acquire);
        if head > self.tail || self.tail - head > capacity || head & 7 != 0 {
            return Err(CURSOR);
        }
        Ok((head, self.tail))
    }

    /// Counts `bytes` as written (not yet visible).
    #[inline]
    pub fn advance(&mut self, bytes: u64) {
        self.tail += bytes;
    }

    /// Makes everything written visible.
    #[inline]
    pub fn publish(&mut self, line: &ProducerLine) {
        line.tail.store(self.tail, Ordering::Release);
    }

    /// Says how much is written, without publishing it.
    pub fn note(&self, line: &ProducerLine) {
        line.written.store(self.tail, Ordering::Release);
    }
}

/// The consumer's own cursors; guarded by the receiving lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Consumer {
    head: u64,
    released: u64,
    tail: u64,
    /// As far as the producer had written when it was last asked for more than it published.
    revealed: u64,
}

impl Consumer {
    /// Looks how far the producer has published; true when there is something to take.
    #[inline]
    pub fn refresh(&mut self, line: &ProducerLine, capacity: u64) -> Result<bool, Lie> {
        let tail = line.tail.load(Ordering::Acquire).max(self.revealed);
        if tail < self.tail || tail - self.released > capacity || tail & 7 != 0 {
            return Err(CURSOR);
        }
        self.tail = tail;
        Ok(tail != self.head)
    }

    /// Makes what is written and not published visible to [`Consumer::refresh`]; true when there is such.
    pub fn reveal(&mut self, line: &ProducerLine, capacity: u64) -> Result<bool, Lie> {
        let written = line.written.load(Ordering::Acquire);
        if written <= self.tail {
            return Ok(false);
        }
        if written - self.head > capacity || written & 7 != 0 {
            return Err(CURSOR);
        }
        self.revealed = written;
        Ok(true)
    }

    /// Offset of the next frame and the bytes published from there on.
    #[inline]
    pub fn next(&self, capacity: u64) -> (usize, u64) {
        ((self.head & (capacity - 1)) as usize, self.tail - self.head)
    }

    /// Counts `bytes` as taken (not yet given back).
    #[inline]
    pub fn advance(&mut self, bytes: u64) {
        self.head += bytes;
    }

    /// Gives everything taken back to the producer; true when there was something to give.
    #[inline]
    pub fn release(&mut self, line: &ConsumerLine) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        line.head.store(self.head, Ordering::Release);
        true
    }

    /// Gives what was taken before the cursor `end` back to the producer.
    pub fn release_to(&mut self, line: &ConsumerLine, end: u64) {
        if end > self.released && end <= self.head {
            self.released = end;
            line.head.store(end, Ordering::Release);
        }
    }

    /// Bytes taken and not yet given back.
    #[inline]
    pub fn unreleased(&self) -> u64 {
        self.head - self.released
    }

    /// Up to where the producer has published; needs no lock, may be stale and is not checked. What was revealed is taken before it is
    /// published.
    #[inline]
    pub fn published(line: &ProducerLine) -> u64 {
        line.tail.load(Ordering::Acquire)
    }

    /// Whether that is beyond what was taken.
    #[inline]
    pub fn published_beyond(line: &ProducerLine, head: u64) -> bool {
        Self::published(line) > head
    }

    pub fn head(&self) -> u64 {
        self.head
    }
}
