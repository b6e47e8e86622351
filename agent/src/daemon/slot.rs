//! A stream of a program as the agent sees it: what was told to whom, and what can be true.

use super::joint::Joint;
use super::link::StreamNumber;
use super::sessions::Ends;
use convoy_aggregator::batch::Control;
use convoy_aggregator::credit::MAX_WINDOW;
use convoy_runtime::port::{Line, READY, STAYS, Sent, SlotState};

/// Most switches that are announced and not passed (see `convoy_aggregator::path`).
const MOST_AHEAD: u32 = 2;

/// A stream of a program.
pub(crate) struct Slot {
    pub(crate) generation: u8,
    /// The program's offer that it came from.
    pub(super) offer: u64,
    /// The connection's addresses, where they are known.
    pub(super) ends: Option<Ends>,
    pub(crate) link: usize,
    pub(crate) stream: StreamNumber,
    /// Its other end, when that is on this host.
    pub(super) joint: Option<Joint>,
    /// What the other host was told of the program's line.
    told: Told,
    /// Bytes taken from the program, and how many it may send.
    pub(super) taken: u64,
    pub(crate) allowed: u64,
    /// Bytes given to the program, and how many it has granted.
    pub(super) given: u64,
    pub(crate) granted: u64,
    pub(crate) here_closed: bool,
    pub(crate) there_closed: bool,
    /// The link is gone.
    pub(crate) lost: bool,
    /// What the other end has told as its flags.
    pub(super) there_flags: u32,
    /// Whether the fabric is worth it for what the program sends.
    pub(crate) worth: bool,
    /// What it had sent at the last look.
    pub(crate) sent: Sent,
    /// Switches that the other end has announced, and passed.
    there_announced: u32,
    there_passed: u32,
}

#[derive(Default)]
struct Told {
    announced: u32,
    passed: u32,
    flags: u32,
    limit: u64,
    wants_kernel: bool,
}

impl Slot {
    pub(super) fn new(generation: u8, offer: u64, link: usize, stream: StreamNumber, worth: bool) -> Self {
        Self {
            generation,
            offer,
            ends: None,
            link,
            stream,
            joint: None,
            told: Told::default(),
            taken: 0,
            allowed: 0,
            given: 0,
            granted: 0,
            here_closed: false,
            there_closed: false,
            lost: false,
            there_flags: 0,
            worth,
            sent: Sent::default(),
            there_announced: 0,
            there_passed: 0,
        }
    }

    /// Takes over what the other end says, if it can be true.
    pub(crate) fn check(&mut self, control: Control) -> Result<(), &'static str> {
        match control {
            Control::Limit(limit) if limit.saturating_sub(self.taken) > MAX_WINDOW => {
                Err("impossible credit")
            }
            Control::Flags(flags) => {
                self.there_flags = flags & (READY | STAYS);
                Ok(())
            }
            Control::Limit(limit) => {
                self.allowed = self.allowed.max(limit);
                Ok(())
            }
            Control::Announce { number, .. } => {
                let next = number.wrapping_sub(self.there_announced) == 1;
                self.there_announced = number;
                let ahead = number.wrapping_sub(self.told.passed);
                if next && ahead <= MOST_AHEAD { Ok(()) } else { Err("impossible path switch") }
            }
            Control::Passed(passed) => {
                let forward = passed.wrapping_sub(self.there_passed) <= MOST_AHEAD;
                self.there_passed = passed;
                let behind = self.told.announced.wrapping_sub(passed) <= MOST_AHEAD;
                if forward && behind { Ok(()) } else { Err("impossible path switch") }
            }
            _ => Ok(()),
        }
    }

    /// Whether the program's line can be true: the other host would end the link for what it was told.
    pub(super) fn is_possible(&self, line: &Line) -> bool {
        line.announced.wrapping_sub(self.there_passed) <= MOST_AHEAD
            && line.announced.wrapping_sub(self.told.announced) <= MOST_AHEAD
            && self.there_announced.wrapping_sub(line.passed) <= MOST_AHEAD
            && line.passed.wrapping_sub(self.told.passed) <= MOST_AHEAD
            && line.limit.saturating_sub(self.given) <= MAX_WINDOW
    }

    pub(super) fn tell_switches(&mut self, line: &Line, tell: &mut impl FnMut(Control)) {
        // At most two are ahead of what the other end has passed, so both positions are there.
        let new = line.announced.wrapping_sub(self.told.announced).min(2);
        for number in (0..new).rev().map(|back| line.announced.wrapping_sub(back)) {
            tell(Control::Announce { number, position: line.positions[number as usize & 1] });
        }
        self.told.announced = line.announced;
    }

    pub(super) fn tell_numbers(&mut self, line: &Line, tell: &mut impl FnMut(Control)) {
        let flags = line.flags & (READY | STAYS);
        if flags != self.told.flags {
            self.told.flags = flags;
            tell(Control::Flags(flags));
        }
        if line.passed != self.told.passed {
            self.told.passed = line.passed;
            tell(Control::Passed(line.passed));
        }
        if line.limit > self.told.limit {
            self.told.limit = line.limit;
            self.granted = line.limit;
            tell(Control::Limit(line.limit));
        }
        let wants_kernel = line.state == SlotState::WantsKernel;
        if wants_kernel != self.told.wants_kernel && line.state != SlotState::Closed {
            self.told.wants_kernel = wants_kernel;
            tell(if wants_kernel { Control::WantsKernel } else { Control::Reopened });
        }
    }
}
