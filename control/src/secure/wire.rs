//! Records: their limits and kinds, and taking them out of arriving bytes. Pure.
//! Not here: keys ([`super::channel`]) and reading from anything.

use super::refusal::{Fault, Refusal};

/// Bytes of a record's length prefix.
pub const PREFIX: usize = 4;
/// The longest record: what a Noise message can be, one less than 64 KiB.
pub const MAX_RECORD: usize = 65_535;
/// Bytes that sealing adds to a record.
pub const TAG: usize = 16;
/// The longest body of a sealed record, after the byte that names its kind.
pub const MAX_BODY: usize = MAX_RECORD - TAG - 1;
/// The longest message, which may take several records.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What a record is, said by its first byte once it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// What an agent says about itself, JSON.
    Hello = 1,
    /// The connection is not wanted, JSON with reason.
    Refuse = 2,
    /// The agent with the larger instance asks for the connection to be used, JSON.
    Propose = 3,
    /// The agent with the smaller instance agrees, JSON.
    Accept = 4,
    /// Nothing, to show that the agent lives.
    Heartbeat = 5,
    /// A part of a message that is not its last.
    Part = 6,
    /// The last part of a message.
    Last = 7,
    /// The sender closes the connection; the reason as text.
    Goodbye = 8,
}

impl Kind {
    /// The kind with that number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_byte(byte: u8) -> Result<Kind, Fault> {
        const KINDS: [Kind; 8] = [
            Kind::Hello,
            Kind::Refuse,
            Kind::Propose,
            Kind::Accept,
            Kind::Heartbeat,
            Kind::Part,
            Kind::Last,
            Kind::Goodbye,
        ];
        let found = KINDS.into_iter().find(|kind| *kind as u8 == byte);
        found.ok_or_else(|| Fault::new(Refusal::Malformed, format!("a record of unknown kind {byte}")))
    }
}

/// Appends `record` with its length to `out`. A record longer than [`MAX_RECORD`] is a caller's mistake
/// and refused by the receiver.
pub fn frame(record: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(record);
}

/// Arriving bytes, out of which whole records are taken. It never holds more than one record beside what
/// one call of [`Decoder::push`] brought.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the first record not taken yet begins.
    start: usize,
}

impl Decoder {
    /// Takes in bytes as they arrived.
    pub fn push(&mut self, arrived: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(arrived);
    }

    /// The next whole record, or `None` until more bytes arrive. The length is judged as soon as it is
    /// there.
    ///
    /// # Errors
    /// The record is longer than `limit`. The stream cannot be followed any further then.
    pub fn record(&mut self, limit: usize) -> Result<Option<&[u8]>, Fault> {
        let rest = &self.bytes[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > limit {
            let reason = format!("a record of {length} bytes where at most {limit} may come");
            return Err(Fault::new(Refusal::Oversized, reason));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start + PREFIX;
        self.start = from + length;
        Ok(Some(&self.bytes[from..self.start]))
    }

    /// Whether no part of a record is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}
