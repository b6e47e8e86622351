//! A stream as an agent passes it on: what one end has said that the other was told, how many bytes went by, and what can be
//! true. What a program says that cannot be ends that program's channel before the other host hears of it; what another
//! host says ends the one stream.

use crate::batch::Control;
use crate::credit::MAX_WINDOW;

/// Most switches that are announced and not passed (see [`crate::path`]).
const MOST_AHEAD: u32 = 2;

/// What a program says about its end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Switches announced.
    pub announced: u32,
    /// Where the last two lie: number `i` at `i & 1`.
    pub positions: [u64; 2],
    /// Switches of the other end passed.
    pub passed: u32,
    /// Flags that the other end is to know.
    pub flags: u32,
    /// The other end may send up to this channel byte.
    pub limit: u64,
    /// Whether it wants what it receives to come through the kernel; nothing once it is closed.
    pub wants_kernel: Option<bool>,
}

/// One stream of a program, at its agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relay {
    /// What the other host was told of the program's end.
    told: Said,
    told_wants_kernel: bool,
    /// Bytes taken from the program, and how many it may send.
    taken: u64,
    allowed: u64,
    /// Bytes given to the program, how many the other end was told that it has granted, and how many it has.
    given: u64,
    granted: u64,
    wanted: u64,
    /// Switches that the other end has announced, and passed.
    there_announced: u32,
    there_passed: u32,
}

impl Relay {
    /// The program has sent so many bytes; false when that is more than it was granted.
    #[must_use]
    pub const fn take(&mut self, bytes: u64) -> bool {
        self.taken += bytes;
        self.taken <= self.allowed
    }

    /// So many bytes are for the program; false when that is more than it has granted.
    #[must_use]
    pub const fn give(&mut self, bytes: u64) -> bool {
        self.given += bytes;
        self.given <= self.granted
    }

    /// Takes over what the other end says, if it can be true. What cannot be changes nothing: it must not make the program,
    /// which has not said it, look like a liar.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check(&mut self, control: Control) -> Result<(), &'static str> {
        match control {
            Control::Limit(limit) if limit.saturating_sub(self.taken) > MAX_WINDOW => {
                Err("impossible credit")
            }
            Control::Limit(limit) => {
                self.allowed = self.allowed.max(limit);
                Ok(())
            }
            Control::Announce { number, .. } => {
                let next = number.wrapping_sub(self.there_announced) == 1;
                let ahead = number.wrapping_sub(self.told.passed);
                if !next || ahead > MOST_AHEAD {
                    return Err("impossible path switch");
                }
                self.there_announced = number;
                Ok(())
            }
            Control::Passed(passed) => {
                let forward = passed.wrapping_sub(self.there_passed) <= MOST_AHEAD;
                let behind = self.told.announced.wrapping_sub(passed) <= MOST_AHEAD;
                if !forward || !behind {
                    return Err("impossible path switch");
                }
                self.there_passed = passed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether what the program says can be true: the other host would end the stream for what it was told.
    #[must_use]
    pub const fn is_possible(&self, said: &Said) -> bool {
        said.announced.wrapping_sub(self.there_passed) <= MOST_AHEAD
            && said.announced.wrapping_sub(self.told.announced) <= MOST_AHEAD
            && self.there_announced.wrapping_sub(said.passed) <= MOST_AHEAD
            && said.passed.wrapping_sub(self.told.passed) <= MOST_AHEAD
            && said.limit.saturating_sub(self.given) <= MAX_WINDOW
    }

    /// Bytes that the other end may send and has not.
    #[must_use]
    pub const fn promised(&self) -> u64 {
        self.granted.saturating_sub(self.given)
    }

    /// Whether the other end is to be told of more credit: some was kept back, and it has used half of what it may be ahead.
    #[must_use]
    pub const fn is_short(&self, ahead: u64) -> bool {
        self.wanted > self.granted && self.promised() <= ahead / 2
    }

    /// Tells the other end what it does not know yet, and of no more credit than for `ahead` bytes beyond those it has sent. The
    /// rest is kept back until [`Relay::is_short`].
    pub fn tell(&mut self, said: &Said, ahead: u64, mut tell: impl FnMut(Control)) {
        // At most two are ahead of what the other end has passed, so both positions are there.
        let new = said.announced.wrapping_sub(self.told.announced).min(2);
        for number in (0..new).rev().map(|back| said.announced.wrapping_sub(back)) {
            tell(Control::Announce { number, position: said.positions[(number & 1) as usize] });
        }
        if said.flags != self.told.flags {
            tell(Control::Flags(said.flags));
        }
        if said.passed != self.told.passed {
            tell(Control::Passed(said.passed));
        }
        self.wanted = said.limit.max(self.wanted);
        let limit = said.limit.min(self.given.saturating_add(ahead)).max(self.told.limit);
        if limit > self.told.limit {
            self.granted = limit;
            tell(Control::Limit(limit));
        }
        if let Some(wants_kernel) = said.wants_kernel
            && wants_kernel != self.told_wants_kernel
        {
            self.told_wants_kernel = wants_kernel;
            tell(if wants_kernel { Control::WantsKernel } else { Control::Reopened });
        }
        self.told = Said { limit, ..*said };
    }
}
