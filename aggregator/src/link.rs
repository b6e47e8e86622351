//! A link: the ring of batches between two hosts, as each end keeps it. Moving the bytes is the caller's.
//!
//! The sender writes batches into the receiver's ring, one contiguous piece each, at multiples of [`UNIT`]. The receiver
//! learns of each by a word with the place where it begins and the low half of its sequence number, in any order and perhaps
//! twice, also when another batch is in that place already, and takes them by their numbers. What it has taken out of the ring (*consumed*: the place may be written again) and what it has handed over
//! to its programs (*delivered*: the sender may forget the bytes) returns in the heads of batches the other way.

use crate::unsettled::Unsettled;
use alloc::collections::{BTreeMap, VecDeque};
use core::error::Error;
use core::fmt;

/// Batches begin at multiples of this many bytes.
pub const UNIT: u32 = 64;
/// The largest ring, in units: a place fits half a word.
pub const MOST_UNITS: u32 = 1 << HALF;
/// Bits of half a word.
const HALF: u32 = 16;
/// Bytes of the ring that an end has its peer write into.
pub const RING_BYTES: u32 = 2 << 20;
/// The largest batch, in bytes.
pub const BATCH_BYTES: usize = 64 << 10;
/// Bytes of a place for a large payload: as much as a block of a program holds.
pub const PLACE_BYTES: usize = 16 << 10;
/// Places of an end.
pub const PLACES: usize = 128;
/// Memory for batches that are being sent: so many of the largest.
pub const BUFFERS: u32 = 32;

/// The sending end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendLink {
    units: u32,
    /// Where the next batch may begin.
    tail: u32,
    /// Units in use, with those skipped at the end of the ring.
    used: u32,
    next: u32,
    consumed: u32,
    delivered: u32,
    /// Units of each batch that is not consumed.
    outstanding: VecDeque<u32>,
    /// Batches that are not known to be delivered.
    undelivered: Unsettled<()>,
}

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte in the ring.
    pub offset: u64,
    /// What the receiver is told: the offset in units in the lower half, the low half of the number in the upper.
    pub immediate: u32,
    /// The number in its head.
    pub sequence: u32,
}

impl SendLink {
    /// A link to an empty ring of that many bytes, at most [`MOST_UNITS`] times [`UNIT`]: what is beyond is not used.
    #[must_use]
    pub fn new(ring_bytes: u32) -> Self {
        Self {
            units: (ring_bytes / UNIT).min(MOST_UNITS),
            tail: 0,
            used: 0,
            next: 0,
            consumed: 0,
            delivered: 0,
            outstanding: VecDeque::new(),
            undelivered: Unsettled::default(),
        }
    }

    /// Whether a batch of that many bytes would find room now.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.fit(bytes).is_some()
    }

    /// Units to skip and units of the batch.
    fn fit(&self, bytes: usize) -> Option<(u32, u32)> {
        let units = u32::try_from(bytes.div_ceil(UNIT as usize)).ok()?.max(1);
        let to_end = self.units - self.tail;
        let skipped = if units > to_end { to_end } else { 0 };
        (skipped.checked_add(units)? <= self.units - self.used).then_some((skipped, units))
    }

    /// Takes room for a batch; nothing without.
    pub fn place(&mut self, bytes: usize) -> Option<Place> {
        let (skipped, units) = self.fit(bytes)?;
        let start = if skipped > 0 { 0 } else { self.tail };
        self.tail = (start + units) % self.units;
        self.used += skipped + units;
        self.outstanding.push_back(skipped + units);
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        self.undelivered.push(sequence, ());
        let immediate = start | sequence << HALF;
        Some(Place { offset: u64::from(start) * u64::from(UNIT), immediate, sequence })
    }

    /// Batches sent and not consumed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outstanding.len()
    }

    /// The number of the next batch.
    #[must_use]
    pub const fn next_sequence(&self) -> u32 {
        self.next
    }

    /// The receiver has consumed all batches before `sequence`.
    ///
    /// # Errors
    /// [`LinkError`] when they were not even sent.
    pub fn on_consumed(&mut self, sequence: u32) -> Result<(), LinkError> {
        let more = sequence.wrapping_sub(self.consumed);
        if more as usize > self.outstanding.len() {
            // News that were overtaken by newer ones.
            return if is_old(more) { Ok(()) } else { Err(LinkError::Consumed) };
        }
        for units in self.outstanding.drain(..more as usize) {
            self.used -= units;
        }
        self.consumed = sequence;
        Ok(())
    }

    /// The receiver has delivered all batches before `sequence`; calls `done` for each that was not known to be.
    ///
    /// # Errors
    /// [`LinkError`] when they were not even sent.
    pub fn on_delivered(&mut self, sequence: u32, mut done: impl FnMut(u32)) -> Result<(), LinkError> {
        let more = sequence.wrapping_sub(self.delivered);
        if more > self.next.wrapping_sub(self.delivered) {
            return if is_old(more) { Ok(()) } else { Err(LinkError::Delivered) };
        }
        while let Some((number, ())) = self.undelivered.pop_before(sequence) {
            done(number);
        }
        self.delivered = sequence;
        Ok(())
    }

    /// The receiver has delivered one batch out of order. True when that was not known.
    ///
    /// # Errors
    /// [`LinkError`] when it was not even sent.
    pub fn on_early(&mut self, sequence: u32) -> Result<bool, LinkError> {
        let ahead = sequence.wrapping_sub(self.delivered);
        if ahead >= self.next.wrapping_sub(self.delivered) {
            return if is_old(ahead) { Ok(false) } else { Err(LinkError::Delivered) };
        }
        Ok(self.undelivered.remove(sequence).is_some())
    }

    /// Batches that are not known to be delivered.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.undelivered.len()
    }
}

/// A difference of sequence numbers that is negative.
const fn is_old(difference: u32) -> bool {
    difference > u32::MAX / 2
}

/// The receiving end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiveLink {
    expected: u32,
    /// Batches that arrived before one in front of them: their places by number.
    waiting: BTreeMap<u32, u32>,
    /// Batches that are not delivered yet, with how many parts are left.
    undelivered: Unsettled<u32>,
    /// Delivered before others in front of them, to be told.
    early: VecDeque<u32>,
    told: (u32, u32),
}

/// Most batches that may wait for one in front of them.
const MOST_WAITING: u32 = 4096;

impl ReceiveLink {
    /// A batch is complete, of which the sender has said `immediate`. False when it was there before: its number is then behind or
    /// further ahead than any that can be on its way, and what is in its place now is none of its business.
    pub fn arrived(&mut self, immediate: u32) -> bool {
        let ahead = (immediate >> HALF).wrapping_sub(self.expected) & (MOST_UNITS - 1);
        if ahead >= MOST_WAITING {
            return false;
        }
        let place = immediate & (MOST_UNITS - 1);
        self.waiting.insert(self.expected.wrapping_add(ahead), place).is_none()
    }

    /// The next batch in order, taken: its number and place.
    pub fn next_batch(&mut self) -> Option<(u32, u32)> {
        let place = self.waiting.remove(&self.expected)?;
        let sequence = self.expected;
        self.expected = self.expected.wrapping_add(1);
        Some((sequence, place))
    }

    /// A batch that was taken has `parts` that could not be handed over at once.
    pub fn hold(&mut self, sequence: u32, parts: u32) {
        if parts > 0 {
            self.undelivered.push(sequence, parts);
        }
    }

    /// One such part was handed over.
    pub fn hand_over(&mut self, sequence: u32) {
        let Some(parts) = self.undelivered.get_mut(sequence) else { return };
        *parts -= 1;
        if *parts == 0 {
            self.undelivered.remove(sequence);
        }
    }

    /// Batches that were taken and not handed over.
    #[must_use]
    pub fn held(&self) -> usize {
        self.undelivered.len()
    }

    /// For the head of a batch the other way: all before the first were consumed, all before the second delivered.
    #[must_use]
    pub fn cursors(&self) -> (u32, u32) {
        (self.expected, self.undelivered.first().unwrap_or(self.expected))
    }

    /// Notes that the cursors were sent.
    pub fn tell(&mut self) -> (u32, u32) {
        self.told = self.cursors();
        self.told
    }

    /// Batches consumed that the sender does not know of.
    #[must_use]
    pub fn untold(&self) -> u32 {
        self.expected.wrapping_sub(self.told.0)
    }

    /// Whether the sender does not know of deliveries.
    #[must_use]
    pub fn has_untold_deliveries(&self) -> bool {
        self.cursors().1 != self.told.1 || !self.early.is_empty()
    }

    /// A batch with nothing held is delivered; one that has older undelivered ones in front is to be told by itself.
    pub fn delivered(&mut self, sequence: u32) {
        let (_, delivered) = self.cursors();
        if !is_old(sequence.wrapping_sub(delivered))
            && !self.undelivered.contains(sequence)
            && delivered != self.expected
        {
            self.early.push_back(sequence);
        }
    }

    /// The next batch to be told as delivered out of order.
    pub fn next_early(&mut self) -> Option<u32> {
        self.early.pop_front()
    }
}

/// The other end said something about the link that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkError {
    /// Batches consumed that were not sent.
    Consumed,
    /// Batches delivered that were not sent.
    Delivered,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consumed => "batches consumed that were never sent",
            Self::Delivered => "batches delivered that were never sent",
        })
    }
}

impl Error for LinkError {}
