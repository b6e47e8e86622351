//! When batches that have arrived are answered: with the next batch that goes the same way, if one soon does.

use super::link::Link;

/// Whether batches with more than cursors have arrived and were not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    Nothing,
    /// Since then, in microseconds. Nobody waits for the answer: the next batch may well carry it.
    Sometime(u64),
    Now,
}

impl Owes {
    /// Data have arrived.
    pub(super) fn or_since(self, now_us: u64) -> Self {
        if self == Self::Nothing { Self::Sometime(now_us) } else { self }
    }

    /// When the answer leaves at the latest, in microseconds.
    pub(super) fn due(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Sometime(since) => Some(since + ANSWER_US),
            Self::Now => Some(0),
        }
    }
}

/// How long an answer waits for a batch that goes the same way, in microseconds. The sender's memory waits with it.
const ANSWER_US: u64 = 5_000;

/// Batches that arrive before an answer is sent for its own sake. Fewer than a sender has on their way before it gathers.
const MOST_UNTOLD: u32 = 2;

impl Link {
    /// Whether the peer may soon hold something back until it is answered.
    pub(super) fn must_answer(&self) -> bool {
        self.owes != Owes::Nothing && self.receive.untold() >= MOST_UNTOLD
    }
}
