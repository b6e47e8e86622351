//! The frame's header word and the block reference: their layout, and nothing about where they are kept.
//!
//! A frame is one header word, a native `u64`, followed by its payload, padded to [`ALIGNMENT`]. Between hosts other
//! rules hold: see [`crate::batch`].
//!
//! ```text
//!   bit 0       8            16          40          64
//!       | kind  | generation |   slot    |  length   |
//! ```

use core::error::Error;
use core::fmt;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Every frame begins at a multiple of this many bytes.
pub const ALIGNMENT: usize = 8;
/// The longest payload of one frame, in bytes.
pub const MAX_PAYLOAD: u32 = (1 << 24) - 1;
/// The highest slot number a header can name.
pub const MAX_SLOT: u32 = (1 << 24) - 1;

const GENERATION_SHIFT: u32 = 8;
const SLOT_SHIFT: u32 = 16;
const LENGTH_SHIFT: u32 = 40;
const FIELD_24: u64 = (1 << 24) - 1;

/// What a frame carries. The value 0 is none of them, so that zeroed memory never reads as a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: `length` bytes to skip, up to the end of the lane.
    Pad = 1,
    /// Bytes of a stream, inline.
    Data = 2,
    /// Bytes of a stream in a pool block, which the payload, one [`BlockRef`], names.
    Block = 3,
}

impl Kind {
    const fn from_byte(byte: u8) -> Result<Self, WireError> {
        match byte {
            1 => Ok(Self::Pad),
            2 => Ok(Self::Data),
            3 => Ok(Self::Block),
            other => Err(WireError::Kind(other)),
        }
    }
}

/// What stands before every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// Tells apart the streams that had the same slot one after the other.
    pub generation: u8,
    /// The stream's number on its channel, at most [`MAX_SLOT`].
    pub slot: u32,
    /// Bytes of payload without padding, at most [`MAX_PAYLOAD`].
    pub length: u32,
}

impl Header {
    /// The header as one word. Only the low 24 bits of `slot` and `length` have room in it; keeping them
    /// below [`MAX_SLOT`] and [`MAX_PAYLOAD`] is the caller's part.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.kind as u64
            | (self.generation as u64) << GENERATION_SHIFT
            | (self.slot as u64 & FIELD_24) << SLOT_SHIFT
            | (self.length as u64 & FIELD_24) << LENGTH_SHIFT
    }

    /// Reads a header back from its word.
    ///
    /// # Errors
    /// [`WireError::Kind`] when the word names no kind of frame. Every other word is a header.
    pub const fn from_word(word: u64) -> Result<Self, WireError> {
        let kind = match Kind::from_byte(word as u8) {
            Ok(kind) => kind,
            Err(error) => return Err(error),
        };
        Ok(Self {
            kind,
            generation: (word >> GENERATION_SHIFT) as u8,
            slot: (word >> SLOT_SHIFT & FIELD_24) as u32,
            length: (word >> LENGTH_SHIFT & FIELD_24) as u32,
        })
    }
}

/// Bytes that a frame with `length` bytes of payload takes: header, payload and padding.
#[must_use]
pub const fn span(length: u32) -> usize {
    let padded = (length as usize).saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1);
    padded.saturating_add(HEADER_BYTES)
}

/// The payload of a [`Kind::Block`] frame: which pool block holds the bytes, and how many.
///
/// Any word is a reference; whether that block exists and holds as much is for the pool to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The block's number in the channel's pool.
    pub block: u32,
    /// Bytes of it in use, from its beginning.
    pub length: u32,
}

impl BlockRef {
    /// Bytes of a reference as payload.
    pub const BYTES: u32 = 8;

    /// The reference as one word.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.block as u64 | (self.length as u64) << 32
    }

    /// Reads a reference back from its word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self { block: word as u32, length: (word >> 32) as u32 }
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireError {
    /// The header names no kind of frame.
    Kind(u8),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "no frame has kind {kind}"),
        }
    }
}

impl Error for WireError {}
