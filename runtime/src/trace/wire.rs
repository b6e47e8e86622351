//! How events lie in the ring: for the process that writes them and the command that reads them.

use core::ffi::CStr;
use core::sync::atomic::AtomicU64;

/// First word of a ring.
pub const MAGIC: u64 = u64::from_le_bytes(*b"convoyT1");
/// What the ring's memory is called.
pub const NAME: &CStr = c"convoy-trace";
/// Slots of a ring.
pub const SLOTS: usize = 1 << 16;
/// Words of a slot beside its tag.
pub const WORDS: usize = 7;
/// Bytes of one slot, and of the head in front of all.
pub const SLOT_BYTES: usize = 64;
/// See [`SLOT_BYTES`].
pub const HEAD_BYTES: usize = 4096;
/// Most bytes of payload that are kept of a frame.
pub const MOST_PAYLOAD: usize = 4096;
/// In the tag of a slot that belongs to the event before it.
pub const MORE: u8 = 0;

/// In front of the slots.
#[repr(C, align(4096))]
pub struct Head {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`SLOTS`].
    pub slots: AtomicU64,
    /// How many slots were ever handed out: the next one is this number modulo [`SLOTS`].
    pub next: AtomicU64,
}

/// An event, or bytes that belong to the one before it.
#[repr(C, align(64))]
pub struct Slot {
    /// [`tag`] once the words are there; 0 while they are written.
    pub tag: AtomicU64,
    /// Of an event: time in nanoseconds of CLOCK_MONOTONIC; [`Place::to_word`]; position; [`Detail::to_word`]; number of the
    /// switch, or the process at the other end; thread, and in the upper half bytes in the slots behind; payload of the
    /// frame in bytes.
    pub words: [AtomicU64; WORDS],
}

/// Number of a slot, counted from the first ever written, and what is in it.
pub const fn tag(index: u64, event: u8) -> u64 {
    (index + 1) << 8 | event as u64
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// The addresses of a stream's two ends follow, [`NAME_BYTES`]: before its first event in a trace.
    Name = 1,
    /// The connection has been promoted: it is a stream on a channel now.
    Open = 2,
    /// A frame was put into the lane.
    Sent = 3,
    /// A frame was taken out of the lane.
    Received = 4,
    /// This end, as a sender, has announced a switch of path at a position.
    Switch = 5,
    /// This end, as a receiver, has followed a switch of the other.
    Followed = 6,
    /// This end lets the other send up to a position.
    Credit = 7,
    /// The stream goes back to the kernel for good; the reason follows.
    Demote = 8,
    /// This end has closed the stream.
    Close = 9,
    /// The stream is reset, or its channel ended; the reason follows.
    Reset = 10,
    /// Bytes were sent through the kernel.
    KernelSent = 11,
    /// Bytes were read from the kernel.
    KernelReceived = 12,
}

impl Event {
    /// From the low byte of a tag.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Name,
            2 => Self::Open,
            3 => Self::Sent,
            4 => Self::Received,
            5 => Self::Switch,
            6 => Self::Followed,
            7 => Self::Credit,
            8 => Self::Demote,
            9 => Self::Close,
            10 => Self::Reset,
            11 => Self::KernelSent,
            12 => Self::KernelReceived,
            _ => return None,
        })
    }
}

/// Bytes of a stream's name: local address and port, the other end's address and port; IPv4 as v4-mapped, all big-endian.
pub const NAME_BYTES: usize = 36;

/// Which stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Index of the channel in the process.
    pub channel: u32,
    /// The stream's number on the channel; [`Self::NO_SLOT`] for the channel as a whole.
    pub slot: u32,
    pub generation: u8,
}

impl Place {
    /// Not one stream.
    pub const NO_SLOT: u32 = (1 << 24) - 1;

    pub const fn to_word(self) -> u64 {
        (self.channel as u64) << 32 | (self.slot as u64 & 0xff_ffff) << 8 | self.generation as u64
    }

    pub const fn from_word(word: u64) -> Self {
        Self { channel: (word >> 32) as u32, slot: (word >> 8) as u32 & 0xff_ffff, generation: word as u8 }
    }
}

/// The rest of an event, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Length of the frame, or bytes through the kernel.
    pub length: u32,
    /// The program's descriptor, in the events that know it.
    pub descriptor: u16,
    /// Of a frame: its kind. Of a switch: 1 to the channel, 0 to the kernel. Of a close: 1 when unread bytes were dropped.
    pub kind: u8,
}

impl Detail {
    pub const fn to_word(self) -> u64 {
        (self.length as u64) << 32 | (self.descriptor as u64) << 8 | self.kind as u64
    }

    pub const fn from_word(word: u64) -> Self {
        Self { length: (word >> 32) as u32, descriptor: (word >> 8) as u16, kind: word as u8 }
    }
}
