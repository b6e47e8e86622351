//! Sealing and opening records: encrypted by a connection's keys, or in the clear.
//! Not here: how the keys came about ([`super::handshake`]) and what records mean.

use super::refusal::{Fault, Refusal};
use super::wire::{self, Decoder, Kind, MAX_BODY, MAX_MESSAGE, MAX_RECORD, PREFIX, TAG};
use snow::StatelessTransportState;
use std::sync::Arc;

/// Makes the records of the sending direction. One per connection: the order of calls is the order in
/// which the records must be sent.
pub struct Sealer {
    keys: Option<Arc<StatelessTransportState>>,
    nonce: u64,
    plain: Vec<u8>,
}

impl Sealer {
    pub(super) fn new(keys: Option<Arc<StatelessTransportState>>) -> Sealer {
        Sealer { keys, nonce: 0, plain: Vec::new() }
    }

    /// Appends a record of `kind` to `out`.
    ///
    /// # Errors
    /// The body is longer than [`MAX_BODY`], or the cipher fails.
    pub fn seal(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if body.len() > MAX_BODY {
            return Err(Fault::new(Refusal::Oversized, format!("a record body of {} bytes", body.len())));
        }
        self.plain.clear();
        self.plain.push(kind as u8);
        self.plain.extend_from_slice(body);
        let Some(keys) = &self.keys else {
            wire::frame(&self.plain, out);
            return Ok(());
        };
        let length = self.plain.len() + TAG;
        let at = out.len();
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.resize(at + PREFIX + length, 0);
        keys.write_message(self.nonce, &self.plain, &mut out[at + PREFIX..])
            .map_err(|error| Fault::new(Refusal::System, format!("encrypting failed: {error}")))?;
        self.nonce += 1;
        Ok(())
    }

    /// Appends the records of a whole message to `out`.
    ///
    /// # Errors
    /// The message is longer than [`MAX_MESSAGE`], or the cipher fails.
    pub fn seal_message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if message.len() > MAX_MESSAGE {
            return Err(too_long());
        }
        let mut rest = message;
        while rest.len() > MAX_BODY {
            let (part, more) = rest.split_at(MAX_BODY);
            self.seal(Kind::Part, part, out)?;
            rest = more;
        }
        self.seal(Kind::Last, rest, out)
    }
}

/// Opens the records of the receiving direction.
pub struct Opener {
    keys: Option<Arc<StatelessTransportState>>,
    nonce: u64,
    decoder: Decoder,
    plain: Vec<u8>,
}

impl Opener {
    /// `decoder` may already hold bytes of sealed records.
    pub(super) fn new(keys: Option<Arc<StatelessTransportState>>, decoder: Decoder) -> Opener {
        Opener { keys, nonce: 0, decoder, plain: Vec::new() }
    }

    /// Takes in bytes as they arrived.
    pub fn push(&mut self, arrived: &[u8]) {
        self.decoder.push(arrived);
    }

    /// Kind and body of the next whole record, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// The record is too long, was not sealed by the other end, or has no known kind. The connection is
    /// of no use then.
    pub fn record(&mut self) -> Result<Option<(Kind, &[u8])>, Fault> {
        let Some(record) = self.decoder.record(MAX_RECORD)? else { return Ok(None) };
        let plain = match &self.keys {
            None => record,
            Some(keys) => {
                self.plain.resize(record.len(), 0);
                let length = keys.read_message(self.nonce, record, &mut self.plain).map_err(|_| {
                    Fault::new(
                        Refusal::Malformed,
                        "a record that the peer did not seal, or not in this place",
                    )
                })?;
                self.nonce += 1;
                &self.plain[..length]
            }
        };
        let Some((kind, body)) = plain.split_first() else {
            return Err(Fault::new(Refusal::Malformed, "an empty record"));
        };
        Ok(Some((Kind::from_byte(*kind)?, body)))
    }

    /// Whether no part of a record is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.decoder.is_empty()
    }
}

/// Puts the parts of messages together.
#[derive(Debug, Default)]
pub struct Assembler(Vec<u8>);

impl Assembler {
    /// Takes the next part; the whole message when `last`.
    ///
    /// # Errors
    /// The message grows beyond [`MAX_MESSAGE`].
    pub fn add(&mut self, part: &[u8], last: bool) -> Result<Option<Vec<u8>>, Fault> {
        if self.0.len() + part.len() > MAX_MESSAGE {
            return Err(too_long());
        }
        self.0.extend_from_slice(part);
        Ok(last.then(|| std::mem::take(&mut self.0)))
    }
}

fn too_long() -> Fault {
    Fault::new(Refusal::Oversized, format!("a message longer than {MAX_MESSAGE} bytes"))
}
