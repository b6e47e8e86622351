//! A batch: what one write between two hosts carries. A fixed head, then records, packed without padding.
//!
//! ```text
//!   head      length u32 | sequence u32 | consumed u32 | delivered u32          little-endian
//!   record    varint(stream * 4 + kind) and, by kind:
//!     data      varint(length), bytes
//!     block     varint(length), varint(place)      bytes that were written to a place of their own before
//!     control   control byte, varints              see [`Control`]
//!     link      (the stream is 0) varint(sequence) a batch that was delivered before others in front of it
//! ```
//! Streams are bytes without boundaries, so the messages of one stream in one batch are one record: at 64 bytes a message
//! and four messages a record, heads and lengths are less than two percent. Numbers are LEB128 varints.

use core::error::Error;
use core::fmt;

/// Bytes of the head.
pub const HEAD_BYTES: usize = 16;
/// The most bytes in front of a data record's payload.
pub const MAX_RECORD_HEAD: usize = 10;
/// The highest stream number.
pub const MAX_STREAM: u32 = (1 << 24) - 1;

const DATA: u64 = 0;
const BLOCK: u64 = 1;
const CONTROL: u64 = 2;
const LINK: u64 = 3;

/// The head of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole batch.
    pub length: u32,
    /// Batches of a link are numbered from 0 and wrap.
    pub sequence: u32,
    /// Of the other direction: batches before this one were taken out of the ring.
    pub consumed: u32,
    /// Of the other direction: batches before this one were handed over to the programs.
    pub delivered: u32,
}

impl Head {
    /// Writes the head to the beginning of `batch`.
    pub fn write(&self, batch: &mut [u8]) {
        let words = [self.length, self.sequence, self.consumed, self.delivered];
        for (place, word) in batch.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads a head; nothing from fewer than [`HEAD_BYTES`].
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self { length: word(0)?, sequence: word(4)?, consumed: word(8)?, delivered: word(12)? })
    }
}

/// What one end of a stream tells the other beside its bytes. Numbers only grow, so a repeated one does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The flags of its line.
    Flags(u32),
    /// Its switch `number` lies at `position`.
    Announce {
        /// Counted from 1.
        number: u32,
        /// In bytes of the path that it leaves.
        position: u64,
    },
    /// It has passed so many of the other end's switches.
    Passed(u32),
    /// The other end may send up to this channel byte.
    Limit(u64),
    /// It wants what it receives to come through the kernel.
    WantsKernel,
    /// It wants so no more.
    Reopened,
    /// It is closed: nothing follows.
    Closed,
    /// It cannot go on over this link.
    Lost,
}

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Its next bytes.
        bytes: &'a [u8],
    },
    /// Bytes of a stream that were written beside the batches.
    Block {
        /// The stream.
        stream: u32,
        /// How many bytes.
        length: u32,
        /// In which place of the receiver's.
        place: u32,
    },
    /// News of a stream's other end.
    Control {
        /// The stream.
        stream: u32,
        /// What it says.
        control: Control,
    },
    /// The batch of this number was delivered although one before it was not.
    Delivered(u32),
}

/// Builds a batch in place.
#[derive(Debug)]
pub struct Writer<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    /// An empty batch in `room`, which holds at least the head.
    #[must_use]
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: HEAD_BYTES }
    }

    /// Bytes so far, with the head.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == HEAD_BYTES
    }

    /// Bytes of payload that a data record could still hold.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room.len().saturating_sub(self.used + MAX_RECORD_HEAD)
    }

    /// Begins a data record of `length` bytes, at most [`room`](Self::room): the place for them.
    pub fn data(&mut self, stream: u32, length: usize) -> Option<&mut [u8]> {
        // Not by `room`: what has none may still be asked for a record of no bytes.
        if self.used + MAX_RECORD_HEAD + length > self.room.len() {
            return None;
        }
        self.varint(u64::from(stream) << 2 | DATA);
        self.varint(length as u64);
        let start = self.used;
        self.used += length;
        self.room.get_mut(start..self.used)
    }

    /// Adds a block record; false without room.
    pub fn block(&mut self, stream: u32, length: u32, place: u32) -> bool {
        self.numbers(&[u64::from(stream) << 2 | BLOCK, u64::from(length), u64::from(place)])
    }

    /// Adds a delivered record; false without room.
    pub fn delivered(&mut self, sequence: u32) -> bool {
        self.numbers(&[LINK, u64::from(sequence)])
    }

    /// Adds a control record; false without room.
    pub fn control(&mut self, stream: u32, control: Control) -> bool {
        let head = u64::from(stream) << 2 | CONTROL;
        match control {
            Control::Flags(flags) => self.numbers(&[head, 1, u64::from(flags)]),
            Control::Announce { number, position } => self.numbers(&[head, 2, u64::from(number), position]),
            Control::Passed(passed) => self.numbers(&[head, 3, u64::from(passed)]),
            Control::Limit(limit) => self.numbers(&[head, 4, limit]),
            Control::WantsKernel => self.numbers(&[head, 5]),
            Control::Reopened => self.numbers(&[head, 6]),
            Control::Closed => self.numbers(&[head, 7]),
            Control::Lost => self.numbers(&[head, 8]),
        }
    }

    fn numbers(&mut self, numbers: &[u64]) -> bool {
        let bytes: usize = numbers.iter().map(|number| varint_bytes(*number)).sum();
        if self.used + bytes > self.room.len() {
            return false;
        }
        numbers.iter().for_each(|number| self.varint(*number));
        true
    }

    fn varint(&mut self, mut number: u64) {
        loop {
            let more = number > 0x7f;
            if let Some(place) = self.room.get_mut(self.used) {
                *place = number as u8 & 0x7f | u8::from(more) << 7;
            }
            self.used += 1;
            if !more {
                return;
            }
            number >>= 7;
        }
    }
}

const fn varint_bytes(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The records of a batch, checked one after the other; ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// The records behind the head of `batch`.
    #[must_use]
    pub fn new(batch: &'a [u8]) -> Self {
        Self { rest: batch.get(HEAD_BYTES..).unwrap_or_default() }
    }

    fn take(&mut self) -> Result<Record<'a>, BatchError> {
        let head = self.varint()?;
        let stream = u32::try_from(head >> 2).ok().filter(|stream| *stream <= MAX_STREAM);
        let stream = stream.ok_or(BatchError::Number)?;
        match head & 3 {
            DATA => {
                let length = usize::try_from(self.varint()?).map_err(|_| BatchError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(BatchError::Truncated)?;
                self.rest = rest;
                Ok(Record::Data { stream, bytes })
            }
            BLOCK => Ok(Record::Block { stream, length: self.small()?, place: self.small()? }),
            CONTROL => Ok(Record::Control { stream, control: self.control()? }),
            _ if stream == 0 => Ok(Record::Delivered(self.small()?)),
            _ => Err(BatchError::Kind),
        }
    }

    fn control(&mut self) -> Result<Control, BatchError> {
        Ok(match self.varint()? {
            1 => Control::Flags(self.small()?),
            2 => Control::Announce { number: self.small()?, position: self.varint()? },
            3 => Control::Passed(self.small()?),
            4 => Control::Limit(self.varint()?),
            5 => Control::WantsKernel,
            6 => Control::Reopened,
            7 => Control::Closed,
            8 => Control::Lost,
            _ => return Err(BatchError::Kind),
        })
    }

    fn small(&mut self) -> Result<u32, BatchError> {
        u32::try_from(self.varint()?).map_err(|_| BatchError::Number)
    }

    fn varint(&mut self) -> Result<u64, BatchError> {
        let mut number = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if index == 9 && part > 1 {
                return Err(BatchError::Number);
            }
            number |= part << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 { BatchError::Truncated } else { BatchError::Number })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.take();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

impl core::iter::FusedIterator for Records<'_> {}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchError {
    /// A record of no known kind.
    Kind,
    /// A record that is longer than the batch.
    Truncated,
    /// A number beyond its limits.
    Number,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "no record has this kind",
            Self::Truncated => "record is longer than its batch",
            Self::Number => "number is beyond its limits",
        })
    }
}

impl Error for BatchError {}
