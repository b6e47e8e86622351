//! Sleeping between two looks at something that has no wake-up: longer each time, because many threads that look often keep the one
//! they wait for from its processor.

use crate::sys;

/// The longest nap, in nanoseconds.
const LONGEST_NS: u64 = 10_000_000;

/// The naps of one wait.
pub struct Naps(u64);

impl Naps {
    /// Before the first of them, which takes 50 us.
    pub const fn new() -> Self {
        Self(50_000)
    }

    /// Sleeps a quarter longer than the last time.
    pub fn nap(&mut self) {
        sys::sleep_ns(self.0);
        self.0 = (self.0 + self.0 / 4).min(LONGEST_NS);
    }
}
