//! When a batch leaves. What is in it, and how it leaves, is the caller's.
//!
//! The first message on an idle link leaves at once; while something is in flight, messages gather until a
//! threshold is reached or the flight ends. Only a delay that the user set holds a message on an idle link.
//! Times are microseconds of any steady clock; one that steps back shortens a hold and never
//! extends it.

/// What lets a batch leave before the link is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Bytes gathered. 0 never gathers.
    pub bytes: u32,
    /// Frames gathered. 0 and 1 never gather.
    pub frames: u32,
    /// Longest hold, in microseconds. 0 holds only while something is in flight, and then without a
    /// deadline; more holds every message for so long, on an idle link too.
    pub delay_us: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { bytes: 16384, frames: 256, delay_us: 0 }
    }
}

/// What to do with the batch after a message has joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Let it leave.
    Now,
    /// Keep it until then.
    Hold {
        /// When it leaves at the latest, in microseconds.
        until_us: u64,
    },
    /// Keep it until nothing is in flight.
    HoldWhileInFlight,
}

/// The state of one link's open batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gather {
    thresholds: Thresholds,
    oldest_us: u64,
    bytes: u32,
    frames: u32,
    in_flight: bool,
}

impl Gather {
    /// An empty batch on an idle link.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// Adds one message of that many bytes to the batch and says what becomes of the batch.
    #[must_use = "a batch that should leave stays otherwise"]
    pub fn push(&mut self, now_us: u64, bytes: u32) -> Flush {
        if self.frames == 0 || now_us < self.oldest_us {
            self.oldest_us = now_us;
        }
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        match self.leaves_at() {
            None => Flush::HoldWhileInFlight,
            Some(until_us) if until_us > now_us => Flush::Hold { until_us },
            Some(_) => Flush::Now,
        }
    }

    /// Tells whether something of this link is in flight. Gives true when the batch should leave because
    /// of it.
    pub fn in_flight(&mut self, in_flight: bool) -> bool {
        self.in_flight = in_flight;
        self.leaves_at().is_some_and(|at| at <= self.oldest_us)
    }

    /// When the batch leaves if nothing more happens: a time that has passed means at once, `None` means
    /// that it is empty or waits for what is in flight.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.leaves_at()
    }

    /// The batch has left.
    pub fn on_flush(&mut self) {
        self.bytes = 0;
        self.frames = 0;
    }

    /// Frames in the batch.
    #[must_use]
    pub const fn pending_frames(&self) -> u32 {
        self.frames
    }

    /// Bytes in the batch.
    #[must_use]
    pub const fn pending_bytes(&self) -> u32 {
        self.bytes
    }

    fn leaves_at(&self) -> Option<u64> {
        let Thresholds { bytes, frames, delay_us } = self.thresholds;
        if self.frames == 0 {
            return None;
        }
        let full = self.bytes >= bytes || self.frames >= frames;
        match (full, delay_us, self.in_flight) {
            (true, _, _) | (false, 0, false) => Some(self.oldest_us),
            (false, 0, true) => None,
            (false, delay, _) => Some(self.oldest_us.saturating_add(u64::from(delay))),
        }
    }
}
