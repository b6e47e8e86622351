//! Looking into a process under Convoy from outside: its memory while it runs ([`memory`]), or a core file of it ([`core`]).
//! What is read was written by somebody else and may be garbage: every number is checked before it is used, and what does not
//! fit is said.
//!
//! Here: finding the process's anchor (`convoy_runtime::anchor`). Not here: what lies behind it ([`state`], [`streams`],
//! [`lane`], [`registry`]).

pub(crate) mod core;
pub(crate) mod lane;
pub(crate) mod memory;
pub(crate) mod registry;
pub(crate) mod state;
pub(crate) mod streams;

use convoy_runtime::anchor::{BYTES, Found, HEAD_WORDS, MAGIC, VERSION};
use memory::{Memory, word};

/// Why there is nothing to see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blind {
    /// No library of Convoy's is there, or nothing of its data.
    NoAnchor,
    /// It is there in another version.
    Version { theirs: u64 },
}

impl std::fmt::Display for Blind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnchor => f.write_str("it does not run under Convoy, or its memory cannot be seen"),
            Self::Version { theirs } => write!(
                f,
                "its libconvoy.so is of another version (state {theirs:#x}, this command reads {VERSION:#x}): use the \
                 convoy command that came with that library"
            ),
        }
    }
}

/// Pieces in which memory is searched; they overlap by an anchor's size.
const PIECE: u64 = 1 << 20;
/// Pieces that are searched: a damaged core file may claim all addresses there are.
const MOST_PIECES: usize = 4096;

/// Finds the anchor in the memory of a process.
pub(crate) fn find(memory: &Memory) -> Result<Found, Blind> {
    let mut other = None;
    let mut left = MOST_PIECES;
    for range in memory.places_for_anchor() {
        let mut at = range.start;
        while at < range.end && left > 0 {
            left -= 1;
            let length = (PIECE + BYTES as u64).min(range.end - at);
            let bytes = memory.read(at, length as usize).unwrap_or_default();
            match search(at, &bytes) {
                Some(Ok(found)) => return Ok(found),
                Some(Err(blind)) => other = Some(blind),
                None => {}
            }
            at = at.saturating_add(PIECE);
        }
    }
    Err(other.unwrap_or(Blind::NoAnchor))
}

/// Looks for an anchor that says of itself that it lies where it does.
fn search(start: u64, bytes: &[u8]) -> Option<Result<Found, Blind>> {
    let first = MAGIC[0].to_ne_bytes();
    for (index, piece) in bytes.chunks_exact(8).enumerate() {
        let offset = index * 8;
        let head = |number: usize| word(bytes, offset + 8 * number);
        if piece != first || head(1) != Some(MAGIC[1]) || head(3) != Some(start + offset as u64) {
            continue;
        }
        let theirs = head(2).unwrap_or_default();
        if theirs != VERSION {
            return Some(Err(Blind::Version { theirs }));
        }
        let mut words = (HEAD_WORDS..BYTES / 8).map_while(head);
        if let Some(found) = Found::decode(&mut words) {
            return Some(Ok(found));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of an anchor at an address.
    fn anchor(version: u64, own: u64) -> Vec<u8> {
        let mut words = vec![7u64; BYTES / 8];
        words[..4].copy_from_slice(&[MAGIC[0], MAGIC[1], version, own]);
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn an_anchor_is_known_by_its_own_address() {
        let mut bytes = vec![0u8; 64];
        bytes.extend(anchor(VERSION, 0x1000 + 64));
        assert!(matches!(search(0x1000, &bytes), Some(Ok(_))));
        assert!(search(0x2000, &bytes).is_none(), "a copy elsewhere is none");
        assert!(search(0x1000, &bytes[..200]).is_none(), "half of one is none");
        let other = anchor(VERSION + 1, 0x1000);
        assert!(
            matches!(search(0x1000, &other), Some(Err(Blind::Version { theirs })) if theirs == VERSION + 1)
        );
    }
}
