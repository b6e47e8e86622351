//! One direction of a stream, both paths together: the protocol of [`crate::path`] and [`crate::credit`]
//! with its byte counts. No bytes are kept here; the owner has the queues.

use core::error::Error;
use core::fmt;

use crate::credit::{CreditError, ReceiveCredit, SendCredit};
use crate::path::{Path, PathError, ReceivePath, SendPath};

/// What a sender publishes about its path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Where the last two switches lie: number `i` in slot `i & 1`, in bytes of the path it leaves.
    pub positions: [u64; 2],
    /// Switches announced.
    pub announced: u32,
}

impl Announcement {
    /// Where switch `number` lies.
    #[must_use]
    pub const fn position(&self, number: u32) -> u64 {
        self.positions[(number & 1) as usize]
    }
}

/// Bytes that went over each path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Over the kernel.
    pub kernel: u64,
    /// Over the channel.
    pub channel: u64,
}

impl Counts {
    /// Bytes that went over `path`.
    #[must_use]
    pub const fn on(&self, path: Path) -> u64 {
        match path {
            Path::Kernel => self.kernel,
            Path::Channel => self.channel,
        }
    }

    const fn add(&mut self, path: Path, n: u64) {
        let count = match path {
            Path::Kernel => &mut self.kernel,
            Path::Channel => &mut self.channel,
        };
        *count = count.saturating_add(n);
    }
}

/// Both directions of a stream as one end holds them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Towards the peer.
    pub send: SendHalf,
    /// From the peer.
    pub receive: ReceiveHalf,
}

/// The sending end of a direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendHalf {
    credit: SendCredit,
    counts: Counts,
    positions: [u64; 2],
    path: SendPath,
}

impl SendHalf {
    /// The path that the next byte takes.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path.path()
    }

    /// Bytes sent over each path.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that may be sent now on the present path; the kernel path sets no bound here.
    #[must_use]
    pub const fn allowance(&self) -> u64 {
        match self.path() {
            Path::Kernel => u64::MAX,
            Path::Channel => self.credit.available(),
        }
    }

    /// Records `n` bytes as sent on the present path.
    ///
    /// # Errors
    /// [`CreditError::Overdrawn`] beyond the [`allowance`](Self::allowance).
    pub fn on_sent(&mut self, n: u64) -> Result<(), StreamError> {
        let path = self.path();
        if path == Path::Channel {
            self.credit.consume(n)?;
        }
        self.counts.add(path, n);
        Ok(())
    }

    /// Takes the receiver's newest limit for the channel.
    ///
    /// # Errors
    /// As [`SendCredit::grant`].
    pub fn grant(&mut self, limit: u64) -> Result<(), StreamError> {
        Ok(self.credit.grant(limit)?)
    }

    /// Leaves the present path for `to` at the present position, given how many switches the receiver has
    /// passed. The new [`announcement`](Self::announcement) is to be published before the next byte.
    ///
    /// # Errors
    /// As [`SendPath::to_channel`] and [`SendPath::to_kernel`].
    pub fn switch(&mut self, to: Path, passed: u32) -> Result<Announcement, StreamError> {
        let position = self.counts.on(self.path());
        let number = match to {
            Path::Channel => self.path.to_channel(passed)?,
            Path::Kernel => self.path.to_kernel(passed)?,
        };
        self.positions[(number & 1) as usize] = position;
        Ok(self.announcement())
    }

    /// What the receiver needs to know about this end's path.
    #[must_use]
    pub const fn announcement(&self) -> Announcement {
        Announcement { positions: self.positions, announced: self.path.announced() }
    }
}

/// From where a receiver reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path to read.
    pub path: Path,
    /// Bytes to read there at most; `u64::MAX` when no switch is announced.
    pub limit: u64,
}

/// The receiving end of a direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveHalf {
    credit: ReceiveCredit,
    counts: Counts,
    path: ReceivePath,
}

impl ReceiveHalf {
    /// A receiver that lets `window` bytes be outstanding on the channel.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self { credit: ReceiveCredit::new(window), ..Self::default() }
    }

    /// Switches passed, for the sender to see.
    #[must_use]
    pub const fn passed(&self) -> u32 {
        self.path.passed()
    }

    /// Bytes that the program has read from each path.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Lets so many bytes be outstanding from the next grant on; see [`ReceiveCredit::set_window`].
    pub const fn set_window(&mut self, window: u64) {
        self.credit.set_window(window);
    }

    /// Grants a whole window and gives the limit to tell the sender.
    pub const fn grant_now(&mut self) -> u64 {
        self.credit.grant_now()
    }

    /// Records `n` bytes that arrived on the channel, to be read when their turn comes.
    ///
    /// # Errors
    /// [`CreditError::Exceeded`] when the sender went past its limit.
    pub fn on_arrived(&mut self, n: u64) -> Result<(), StreamError> {
        Ok(self.credit.on_received(n)?)
    }

    /// Passes every switch that has been reached and says where to read next. For the kernel path, learn
    /// how many bytes are queued first and look at the announcement second, and read no more than those
    /// (see [`crate::path`]).
    ///
    /// # Errors
    /// [`PathError::Lie`] when the announcement cannot be; switches passed before the lie stay passed.
    pub fn source(&mut self, announcement: &Announcement) -> Result<Source, StreamError> {
        loop {
            let limit = self.limit(announcement)?;
            if limit > 0 {
                let path = self.path.path();
                return Ok(Source { path, limit });
            }
            self.path.pass(announcement.announced)?;
        }
    }

    /// Records `n` bytes that the program has read from the present path. Gives a limit when the sender
    /// should be told a new one.
    ///
    /// # Errors
    /// [`StreamError::Beyond`] when that is more than the [`source`](Self::source) allowed, or more than
    /// has arrived on the channel.
    pub fn on_read(&mut self, n: u64, announcement: &Announcement) -> Result<Option<u64>, StreamError> {
        let path = self.path.path();
        let most = match path {
            Path::Kernel => u64::MAX,
            Path::Channel => self.credit.unread(),
        };
        if n > most.min(self.limit(announcement)?) {
            return Err(StreamError::Beyond);
        }
        self.counts.add(path, n);
        Ok(match path {
            Path::Kernel => None,
            Path::Channel => self.credit.on_consumed(n),
        })
    }

    fn limit(&self, announcement: &Announcement) -> Result<u64, PathError> {
        let consumed = self.counts.on(self.path.path());
        match self.path.pending(announcement.announced)? {
            None => Ok(u64::MAX),
            Some(number) => self.path.remaining(announcement.position(number), consumed),
        }
    }
}

/// A breach of a stream's rules, by the peer or by this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamError {
    /// About a path.
    Path(PathError),
    /// About credit.
    Credit(CreditError),
    /// This end read more than there was to read.
    Beyond,
}

impl From<PathError> for StreamError {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl From<CreditError> for StreamError {
    fn from(error: CreditError) -> Self {
        Self::Credit(error)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => error.fmt(f),
            Self::Credit(error) => error.fmt(f),
            Self::Beyond => f.write_str("more bytes read than were there"),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Path(error) => Some(error),
            Self::Credit(error) => Some(error),
            Self::Beyond => None,
        }
    }
}
