//! Virtual time: what happens next, and when. Things at the same microsecond happen in the order in which they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What can happen. Numbers are places in the tables of the world; `epoch`, `token` and `life` tell whether it is still the
/// same stream, link or agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A program reads and writes on its end of a stream.
    Act {
        stream: u32,
        end: u8,
        epoch: u32,
    },
    /// A program sorts what its peer or its agent has put into its ring.
    Sort {
        channel: u32,
        side: u8,
        life: u32,
    },
    /// An agent takes its turn.
    Turn {
        host: u32,
        life: u32,
    },
    /// An agent's round of batches is over.
    Publish {
        host: u32,
        life: u32,
    },
    /// An agent hears that a program has taken it for gone.
    GivenUp {
        channel: u32,
        life: u32,
    },
    /// An agent looks at what is due by the clock.
    Tick {
        host: u32,
        life: u32,
    },
    /// A write lands in the memory of its target.
    Land {
        flight: u32,
    },
    /// A batch is reported to its receiver.
    Complete {
        link: u32,
        side: u8,
        token: u32,
        immediate: u32,
    },
    /// A write beside the batches is out of its program's memory.
    Written {
        link: u32,
        side: u8,
        token: u32,
    },
    /// One end of a link hears that the other has ended.
    Down {
        link: u32,
        side: u8,
        token: u32,
    },
    /// Bytes arrive through the kernel; none: the end.
    Kernel {
        stream: u32,
        from: u8,
        epoch: u32,
        bytes: u32,
    },
    /// An end that returns to the kernel goes on.
    Return {
        stream: u32,
        end: u8,
        epoch: u32,
    },
    /// The agent of the other end hears of a stream that was opened; and the one that opened it, whether it was agreed to.
    Open {
        stream: u32,
        epoch: u32,
        link: u32,
        token: u32,
        number: u32,
    },
    Opened {
        stream: u32,
        epoch: u32,
        link: u32,
        token: u32,
        number: u32,
        agreed: bool,
    },
    /// A program learns that its end of a stream is on a channel.
    Attach {
        stream: u32,
        end: u8,
        epoch: u32,
        channel: u32,
        life: u32,
        slot: u32,
        generation: u8,
    },
    /// A rail of a host comes back.
    RailUp {
        host: u32,
        rail: u8,
    },
    /// An agent is started again.
    Restart {
        host: u32,
    },
    /// New streams are opened.
    Arrivals,
    /// Something goes wrong.
    Fault,
    /// Faults end: everything has to drain from here on.
    Calm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    at: u64,
    order: u64,
    event: Event,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Virtual time in microseconds and what is planned.
#[derive(Default)]
pub struct Clock {
    /// Microseconds since the start.
    pub now: u64,
    planned: BinaryHeap<Planned>,
    order: u64,
}

impl Clock {
    /// Plans an event for so many microseconds from now.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.planned.push(Planned { at: self.now + delay, order: self.order, event });
    }

    /// Goes on to the next event.
    pub fn next(&mut self) -> Option<Event> {
        let Planned { at, event, .. } = self.planned.pop()?;
        self.now = at;
        Some(event)
    }
}
