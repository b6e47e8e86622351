//! A stream of a program as the agent sees it.

use super::joint::Joint;
use super::sessions::Ends;
use convoy_aggregator::batch::Control;
use convoy_aggregator::queue::StreamNumber;
use convoy_aggregator::relay::{Relay, Said};
use convoy_runtime::port::{Line, READY, STAYS, Sent, SlotState};

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
    /// What was told to whom.
    pub(super) relay: Relay,
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
            relay: Relay::default(),
            here_closed: false,
            there_closed: false,
            lost: false,
            there_flags: 0,
            worth,
            sent: Sent::default(),
        }
    }

    /// Takes over what the other end says, if it can be true.
    pub(crate) fn check(&mut self, control: Control) -> Result<(), &'static str> {
        if let Control::Flags(flags) = control {
            self.there_flags = flags & (READY | STAYS);
        }
        self.relay.check(control)
    }
}

/// What a program's line says for the other end.
pub(super) fn said(line: &Line) -> Said {
    Said {
        announced: line.announced,
        positions: line.positions,
        passed: line.passed,
        flags: line.flags & (READY | STAYS),
        limit: line.limit,
        wants_kernel: (line.state != SlotState::Closed).then_some(line.state == SlotState::WantsKernel),
    }
}
