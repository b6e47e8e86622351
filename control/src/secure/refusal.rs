//! Why a connection is not wanted: a countable reason and a line for humans. Not here: deciding it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was refused or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Refusal {
    /// The first bytes are not those of an agent.
    NotConvoy,
    /// One end uses a key and the other does not.
    Mode,
    /// The ends have different keys.
    Key,
    /// A record or message is longer than the limit.
    Oversized,
    /// A record that breaks the protocol or was tampered with.
    Malformed,
    /// The handshake took too long.
    Slow,
    /// The connection ended in the middle of something.
    Closed,
    /// Too many handshakes at once.
    Crowded,
    /// No protocol version in common.
    Version,
    /// The other end is this agent itself.
    Myself,
    /// Another connection between the same agents is used.
    Duplicate,
    /// The agent is shutting down.
    Stopping,
    /// The operating system refused something.
    System,
}

impl Refusal {
    /// All reasons, in the order of [`Refusal::label`]s in a report.
    pub const ALL: [Refusal; 13] = [
        Refusal::NotConvoy,
        Refusal::Mode,
        Refusal::Key,
        Refusal::Oversized,
        Refusal::Malformed,
        Refusal::Slow,
        Refusal::Closed,
        Refusal::Crowded,
        Refusal::Version,
        Refusal::Myself,
        Refusal::Duplicate,
        Refusal::Stopping,
        Refusal::System,
    ];

    /// A short name that does not change, for metrics and for the wire.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::NotConvoy => "not-convoy",
            Refusal::Mode => "mode",
            Refusal::Key => "key",
            Refusal::Oversized => "oversized",
            Refusal::Malformed => "malformed",
            Refusal::Slow => "slow",
            Refusal::Closed => "closed",
            Refusal::Crowded => "crowded",
            Refusal::Version => "version",
            Refusal::Myself => "myself",
            Refusal::Duplicate => "duplicate",
            Refusal::Stopping => "stopping",
            Refusal::System => "system",
        }
    }

    /// The reason with that label.
    pub fn from_label(label: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.label() == label)
    }
}

/// A [`Refusal`] with one line that says what exactly happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The countable reason.
    pub refusal: Refusal,
    /// One line for humans.
    pub reason: String,
}

impl Fault {
    /// A fault for `refusal`, told as `reason`.
    pub fn new(refusal: Refusal, reason: impl Into<String>) -> Fault {
        Fault { refusal, reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

/// How often each [`Refusal`] happened.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; Refusal::ALL.len()]);

impl Counters {
    pub(crate) fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_one_refusal_each_and_indices_fit() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
            assert_eq!(Refusal::from_label(refusal.label()), Some(refusal));
        }
    }
}
