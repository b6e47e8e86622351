//! What an end says when its stream returns to the kernel because the way to the other host is gone, and how the other
//! end puts the bytes in order. How the records travel is the caller's.

use alloc::vec::Vec;

use crate::path::Path;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"convoyF1");

/// How far one end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Switches it has announced as a sender.
    pub announced: u32,
    /// Where the last two lie: number `i` at `i & 1`.
    pub positions: [u64; 2],
    /// Bytes it has sent through the channel.
    pub sent: u64,
    /// Bytes it has received through the channel, whether its program has read them or not.
    pub received: u64,
}

impl Record {
    /// The record as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let words = [
            MAGIC,
            u64::from(self.announced),
            self.positions[0],
            self.positions[1],
            self.sent,
            self.received,
        ];
        let mut bytes = [0; RECORD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that the bytes hold, if they hold one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        if bytes.len() != RECORD_BYTES || word(0)? != MAGIC {
            return None;
        }
        Some(Self {
            announced: u32::try_from(word(1)?).ok()?,
            positions: [word(2)?, word(3)?],
            sent: word(4)?,
            received: word(5)?,
        })
    }
}

/// How far a receiver is: it has passed so many of the sender's switches, its program has read so many bytes of the
/// channel and of the kernel connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Switches passed.
    pub passed: u32,
    /// Bytes read of the channel.
    pub consumed: u64,
    /// Bytes read of the kernel connection.
    pub kernel_read: u64,
}

/// The bytes a receiver has in the order in which they were sent, up to the first that is missing, and whether these are
/// all of them. `channel` and `kernel` are the bytes that follow on each path.
#[must_use]
pub fn in_order(theirs: &Record, at: Place, channel: &[u8], kernel: &[u8]) -> (Vec<u8>, bool) {
    let ahead = theirs.announced.wrapping_sub(at.passed);
    if ahead > 2 {
        return (Vec::new(), false);
    }
    let (mut from_channel, mut from_kernel) = (channel, kernel);
    let (mut consumed, mut kernel_read) = (at.consumed, at.kernel_read);
    let mut bytes = Vec::with_capacity(channel.len() + kernel.len());
    for number in (1..=ahead).map(|step| at.passed.wrapping_add(step)) {
        let position = theirs.positions[number as usize & 1];
        // The path that this switch leaves.
        let (source, read) = match Path::after(number.wrapping_sub(1)) {
            Path::Kernel => (&mut from_kernel, &mut kernel_read),
            Path::Channel => (&mut from_channel, &mut consumed),
        };
        let part = position.saturating_sub(*read);
        let Some((taken, rest)) = usize::try_from(part).ok().and_then(|part| source.split_at_checked(part))
        else {
            bytes.extend_from_slice(source);
            return (bytes, false);
        };
        bytes.extend_from_slice(taken);
        *source = rest;
        *read += part;
    }
    let (last, other) = match Path::after(theirs.announced) {
        Path::Kernel => (from_kernel, from_channel),
        Path::Channel => (from_channel, from_kernel),
    };
    bytes.extend_from_slice(last);
    (bytes, other.is_empty())
}
