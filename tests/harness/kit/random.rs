//! Numbers of a seed, the same in every run, out of the pattern that streams carry.

use super::pattern::Flow;

/// The numbers that are left.
#[derive(Clone, Debug)]
pub struct Random(Flow);

impl Random {
    /// From the first one on.
    pub fn new(seed: u64) -> Self {
        Self(Flow::new(seed))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let bytes = self.0.peek(8).try_into().expect("eight bytes");
        self.0.advance(8);
        u64::from_le_bytes(bytes)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}
