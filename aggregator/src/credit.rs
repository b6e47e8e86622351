//! Credit: how many bytes one direction of a stream may have outstanding on its channel.
//!
//! Limits are absolute byte counts since the stream's first channel byte, so a lost, repeated or late
//! limit does no harm. Bytes on the kernel path are not counted here: the kernel has its own window.

use core::error::Error;
use core::fmt;

/// The most that a receiver may grant beyond what was sent, in bytes.
pub const MAX_WINDOW: u64 = 1 << 32;

/// The sender's side: bytes sent, and the count it may not pass. Starts without credit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendCredit {
    sent: u64,
    limit: u64,
}

impl SendCredit {
    /// Bytes that may be sent now.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Bytes sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Takes the receiver's newest limit. One below an earlier limit is old news and changes nothing.
    ///
    /// # Errors
    /// [`CreditError::Limit`] when it is more than [`MAX_WINDOW`] beyond what was sent.
    pub const fn grant(&mut self, limit: u64) -> Result<(), CreditError> {
        if limit.saturating_sub(self.sent) > MAX_WINDOW {
            return Err(CreditError::Limit);
        }
        if limit > self.limit {
            self.limit = limit;
        }
        Ok(())
    }

    /// Records `n` bytes as sent.
    ///
    /// # Errors
    /// [`CreditError::Overdrawn`] when `n` is more than is available; nothing is recorded then.
    pub const fn consume(&mut self, n: u64) -> Result<(), CreditError> {
        if n > self.available() {
            return Err(CreditError::Overdrawn);
        }
        self.sent += n;
        Ok(())
    }
}

/// The receiver's side: bytes received, bytes the program has read, and the last limit granted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveCredit {
    received: u64,
    consumed: u64,
    granted: u64,
    window: u64,
}

impl ReceiveCredit {
    /// A receiver that lets `window` bytes (at most [`MAX_WINDOW`]) be outstanding. It has granted
    /// nothing yet: [`grant_now`](Self::grant_now) gives the first limit.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self { received: 0, consumed: 0, granted: 0, window: clamp_window(window) }
    }

    /// Records `n` bytes that arrived.
    ///
    /// # Errors
    /// [`CreditError::Exceeded`] when the sender went past its limit; nothing is recorded then.
    pub const fn on_received(&mut self, n: u64) -> Result<(), CreditError> {
        if n > self.granted.saturating_sub(self.received) {
            return Err(CreditError::Exceeded);
        }
        self.received += n;
        Ok(())
    }

    /// Records `n` bytes that the program has read, at most those unread. Gives a new limit to tell the
    /// sender once half a window has become free since the last one, so that telling stays rare.
    #[must_use = "a limit that is not told stalls the sender"]
    pub const fn on_consumed(&mut self, n: u64) -> Option<u64> {
        let unread = self.unread();
        self.consumed += if n < unread { n } else { unread };
        let free = self.target().saturating_sub(self.granted);
        if free == 0 || free < self.window.div_ceil(2) {
            return None;
        }
        Some(self.grant_now())
    }

    /// Grants the whole window from where the program has read, and gives the absolute limit. Never less
    /// than an earlier limit: what was granted stays granted.
    pub const fn grant_now(&mut self) -> u64 {
        let target = self.target();
        if target > self.granted {
            self.granted = target;
        }
        self.granted
    }

    /// Bytes received that the program has not read.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        self.received.saturating_sub(self.consumed)
    }

    /// Bytes received so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the program has read so far.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The last limit granted.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// Lets `window` bytes (at most [`MAX_WINDOW`]) be outstanding from the next grant on. A sender that
    /// waits learns of a larger window only through [`grant_now`](Self::grant_now). A window of 0 stops the
    /// sender once it has used what it was granted.
    pub const fn set_window(&mut self, window: u64) {
        self.window = clamp_window(window);
    }

    const fn target(&self) -> u64 {
        self.consumed.saturating_add(self.window)
    }
}

const fn clamp_window(window: u64) -> u64 {
    if window < MAX_WINDOW { window } else { MAX_WINDOW }
}

/// A breach of the credit rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreditError {
    /// The receiver granted a limit that no window explains: a lie.
    Limit,
    /// This end wanted to send more than it may.
    Overdrawn,
    /// The sender sent more than it was granted: a lie.
    Exceeded,
}

impl fmt::Display for CreditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "peer granted a limit beyond any window",
            Self::Overdrawn => "not enough credit to send as much",
            Self::Exceeded => "peer sent more than it was granted",
        })
    }
}

impl Error for CreditError {}
