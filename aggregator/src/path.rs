//! Path switching: on which path, kernel or channel, one direction of a stream is, and when it may change.
//!
//! The sender changes path at a byte position and announces it; the receiver reads the old path up to
//! that position before it reads the new one. Switches are counted from 1, and a direction begins on the
//! kernel, so after an odd number of switches it is on the channel. Switch number `i` has its position in
//! slot `i & 1`: the bytes sent on the path that it leaves, counted from that path's first byte.
//!
//! At most two switches are announced and not passed, so the slot of the receiver's next switch is never
//! rewritten before the receiver has passed it. Two, and not one, because a sender must be able to go back
//! to the kernel while its receiver has not yet read up to the promotion.
//!
//! **Publishing.** The sender stores the position, then (release) the number announced, then sends bytes on
//! the new path. The receiver loads (acquire) the number announced *after* it has learnt how many bytes are
//! queued in the kernel, and reads no more than those. In the other order, a promotion followed by a
//! demotion could fall between the look and the read, and the read would run on into bytes that come after
//! the channel's.

use core::error::Error;
use core::fmt;

/// The way that a direction's bytes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// The kernel's TCP connection.
    Kernel,
    /// The shared-memory channel.
    Channel,
}

impl Path {
    /// The path after `switches` switches.
    #[must_use]
    pub const fn after(switches: u32) -> Self {
        if switches & 1 == 0 { Self::Kernel } else { Self::Channel }
    }
}

/// Most switches that may be announced and not yet passed.
const MAX_AHEAD: u32 = 2;

/// Counts wrap at 2^32; the parity and the distance survive that.
const fn ahead(announced: u32, passed: u32) -> Result<u32, PathError> {
    let ahead = announced.wrapping_sub(passed);
    if ahead > MAX_AHEAD {
        return Err(PathError::Lie);
    }
    Ok(ahead)
}

/// The sender's side: how many switches it has announced.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendPath {
    announced: u32,
}

impl SendPath {
    /// A sender that has announced that many switches.
    #[must_use]
    pub const fn at(announced: u32) -> Self {
        Self { announced }
    }

    /// The path that the next byte takes.
    #[must_use]
    pub const fn path(&self) -> Path {
        Path::after(self.announced)
    }

    /// Switches announced so far.
    #[must_use]
    pub const fn announced(&self) -> u32 {
        self.announced
    }

    /// Switches to the channel, given how many switches the receiver has passed, and gives this switch's
    /// number. Every earlier switch must have been passed: bytes of two stays on the channel never meet.
    ///
    /// # Errors
    /// [`PathError::Lie`] when `passed` cannot be; [`PathError::Already`] on the channel;
    /// [`PathError::TooEarly`] while an earlier switch is not passed.
    pub const fn to_channel(&mut self, passed: u32) -> Result<u32, PathError> {
        self.switch(Path::Kernel, 0, passed)
    }

    /// Switches to the kernel, given how many switches the receiver has passed, and gives this switch's
    /// number. The receiver may still have the switch to the channel before it.
    ///
    /// # Errors
    /// [`PathError::Lie`] when `passed` cannot be; [`PathError::Already`] on the kernel;
    /// [`PathError::TooEarly`] is not reached by a sender whose switches all came through this type.
    pub const fn to_kernel(&mut self, passed: u32) -> Result<u32, PathError> {
        self.switch(Path::Channel, 1, passed)
    }

    const fn switch(&mut self, from: Path, most_ahead: u32, passed: u32) -> Result<u32, PathError> {
        let ahead = match ahead(self.announced, passed) {
            Ok(ahead) => ahead,
            Err(error) => return Err(error),
        };
        if self.path() as u8 != from as u8 {
            return Err(PathError::Already);
        }
        if ahead > most_ahead {
            return Err(PathError::TooEarly);
        }
        self.announced = self.announced.wrapping_add(1);
        Ok(self.announced)
    }
}

/// The receiver's side: how many switches it has passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivePath {
    passed: u32,
}

impl ReceivePath {
    /// A receiver that has passed that many switches.
    #[must_use]
    pub const fn at(passed: u32) -> Self {
        Self { passed }
    }

    /// The path that the next byte comes from.
    #[must_use]
    pub const fn path(&self) -> Path {
        Path::after(self.passed)
    }

    /// Switches passed so far.
    #[must_use]
    pub const fn passed(&self) -> u32 {
        self.passed
    }

    /// The number of the next switch, if the sender has announced one.
    ///
    /// # Errors
    /// [`PathError::Lie`] when `announced` is behind what was passed, or more than two ahead.
    pub const fn pending(&self, announced: u32) -> Result<Option<u32>, PathError> {
        match ahead(announced, self.passed) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(self.passed.wrapping_add(1))),
            Err(error) => Err(error),
        }
    }

    /// Bytes still to read on the present path before the switch at `position`, where `consumed` bytes of
    /// that path have been read.
    ///
    /// # Errors
    /// [`PathError::Lie`] when more was read than the position says.
    pub const fn remaining(&self, position: u64, consumed: u64) -> Result<u64, PathError> {
        match position.checked_sub(consumed) {
            Some(remaining) => Ok(remaining),
            None => Err(PathError::Lie),
        }
    }

    /// Passes the pending switch and gives its number. The caller has read the old path up to its
    /// position: [`remaining`](Self::remaining) is 0.
    ///
    /// # Errors
    /// [`PathError::Lie`] as for [`pending`](Self::pending); [`PathError::TooEarly`] when none is pending.
    pub const fn pass(&mut self, announced: u32) -> Result<u32, PathError> {
        match self.pending(announced) {
            Ok(Some(number)) => {
                self.passed = number;
                Ok(number)
            }
            Ok(None) => Err(PathError::TooEarly),
            Err(error) => Err(error),
        }
    }
}

/// Why a path does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathError {
    /// The other end published a count or a position that cannot be.
    Lie,
    /// The direction is on that path already.
    Already,
    /// An earlier switch has to be passed, or announced, first.
    TooEarly,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lie => "peer published an impossible switch",
            Self::Already => "direction is on that path already",
            Self::TooEarly => "an earlier switch has to come first",
        })
    }
}

impl Error for PathError {}
