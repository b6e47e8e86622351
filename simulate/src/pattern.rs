//! What programs send: bytes that follow from the stream, the direction and the position, so that a byte that is lost, comes
//! twice, at the wrong place or on the wrong stream is seen by its value.

use crate::rng::mix;

/// The bytes of one direction of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(u64);

impl Pattern {
    /// Of direction `from` of the stream that was opened as number `serial`.
    pub const fn new(serial: u64, from: usize) -> Self {
        Self(mix(serial * 2 + from as u64 + 1))
    }

    fn word(self, index: u64) -> [u8; 8] {
        mix(self.0.wrapping_add(index)).to_le_bytes()
    }

    /// The bytes from `position` on.
    pub fn fill(self, mut position: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let word = self.word(position / 8);
            let from = &word[(position % 8) as usize..];
            let part = from.len().min(into.len());
            let (now, rest) = into.split_at_mut(part);
            now.copy_from_slice(&from[..part]);
            into = rest;
            position += part as u64;
        }
    }

    /// Where `bytes`, which should be those from `position` on, first differ.
    pub fn differs_at(self, mut position: u64, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            let word = self.word(position / 8);
            let from = &word[(position % 8) as usize..];
            let part = from.len().min(bytes.len());
            if from[..part] != bytes[..part] {
                let same = from.iter().zip(bytes).take_while(|(one, two)| one == two).count();
                return Some(position + same as u64);
            }
            bytes = &bytes[part..];
            position += part as u64;
        }
        None
    }
}
