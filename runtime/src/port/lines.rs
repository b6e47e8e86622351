//! The lines of the slots: what the program says about its end of a stream, and what the agent says for the other host.

use super::{AGENT, PROGRAM, Port};
pub use crate::shm::load::Sent;
use crate::shm::segment::SideLine;
pub use crate::shm::segment::SlotState;
use core::sync::atomic::Ordering;

/// What one end says about its side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Switches announced, as a sender.
    pub announced: u32,
    /// Where the last two switches lie: number `i` at `i & 1`.
    pub positions: [u64; 2],
    /// Switches of the other end passed, as a receiver.
    pub passed: u32,
    /// READY and STAYS.
    pub flags: u32,
    /// Up to which channel byte the other end may send.
    pub limit: u64,
    /// The state of its end.
    pub state: SlotState,
}

impl Port {
    /// Calls `changed` for every slot whose line the program has changed since the last call. To be called after
    /// [`Port::refresh`], before the frames are taken: a switch is then known before the bytes behind it.
    pub fn take_changes(&self, mut changed: impl FnMut(u32)) {
        let slots = self.slots();
        self.segment.changes(PROGRAM).take(|slot| {
            if slot < slots {
                changed(slot);
            }
        });
    }

    /// What the program says about a slot's stream; nothing before it has opened its end: what is there then may be of the stream
    /// before, of which a thread was late.
    pub fn line(&self, slot: u32, generation: u8) -> Option<Line> {
        let line = self.segment.line(slot, PROGRAM);
        // In this order: what a flag or number promises was written before it.
        let state = line.state(generation);
        if state == SlotState::Free {
            return None;
        }
        let flags = line.flags.load(Ordering::Acquire);
        let announced = line.announced.load(Ordering::Acquire);
        Some(Line {
            announced,
            positions: line.positions(),
            passed: line.passed.load(Ordering::Acquire),
            flags,
            limit: line.limit.load(Ordering::Acquire),
            state,
        })
    }

    /// What the program has sent on a slot's streams so far, on whatever path.
    pub fn sent(&self, slot: u32) -> Sent {
        self.segment.load(slot).sent()
    }

    /// Takes a free slot for a new stream.
    pub fn open_slot(&mut self) -> Option<(u32, u8)> {
        let (slot, generation) = match self.closed.pop_front() {
            Some((slot, generation)) => (slot, generation.wrapping_add(1)),
            None => {
                // The program opens none.
                let slot = self.fresh;
                (slot < self.slots()).then(|| self.fresh += 1)?;
                (slot, 1)
            }
        };
        self.segment.line(slot, PROGRAM).reset();
        self.segment.line(slot, AGENT).reset();
        self.segment.line(slot, AGENT).set_state(generation, SlotState::Open);
        Some((slot, generation))
    }

    /// Both sides have closed a slot: it may be used again.
    pub fn free_slot(&mut self, slot: u32, generation: u8) {
        self.own(slot).set_state(generation, SlotState::Closed);
        self.closed.push_back((slot, generation));
    }

    fn own(&self, slot: u32) -> &'static SideLine {
        self.segment.line(slot, AGENT)
    }

    /// The other end has announced switch `number` at `position`.
    pub fn announce(&self, slot: u32, number: u32, position: u64) {
        let line = self.own(slot);
        line.position[number as usize & 1].store(position, Ordering::Relaxed);
        line.announced.store(number, Ordering::Release);
        self.mark(slot);
    }

    /// The other end has passed so many switches.
    pub fn set_passed(&self, slot: u32, passed: u32) {
        self.own(slot).passed.store(passed, Ordering::Release);
        self.mark(slot);
    }

    /// The other end's flags.
    pub fn set_flags(&self, slot: u32, flags: u32) {
        self.own(slot).flags.store(flags, Ordering::Release);
        self.mark(slot);
    }

    /// The other end's limit.
    pub fn set_limit(&self, slot: u32, limit: u64) {
        self.own(slot).limit.store(limit, Ordering::Release);
        self.mark(slot);
    }

    /// The state of the other end. Frames before it must be published.
    pub fn set_state(&self, slot: u32, generation: u8, state: SlotState) {
        self.own(slot).set_state(generation, state);
        self.mark(slot);
    }

    /// The other end knows of so many of the program's switches.
    pub fn set_heard(&self, slot: u32, number: u32) {
        self.own(slot).kernel_senders.store(number, Ordering::Release);
        self.mark(slot);
    }

    fn mark(&self, slot: u32) {
        self.segment.changes(AGENT).mark(slot);
    }
}
