//! Message payloads of the load programs.

/// A message of `size` bytes with a recognisable pattern.
#[must_use]
pub fn message(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}
