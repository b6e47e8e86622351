//! The agent's end of a program's channel: frames in and out, lines, bells, in raw form. Streams are not kept here; the
//! agent passes on what it finds and checks what it passes on.
//!
//! Everything in the segment was written by a program that is not trusted: cursors, headers and numbers are checked, a
//! [`Lie`] ends the port. May contain `unsafe`: it reads and writes the shared rings and blocks at offsets that its own
//! cursors or checks give.

mod incoming;
mod lines;
mod outgoing;
#[cfg(test)]
mod tests;

pub use crate::shm::segment::{JOINED, READY, RECOVERED, STAYS, WORTH};
pub use incoming::{Frame, Piece};
pub use lines::{Line, Sent, SlotState};
pub use outgoing::fence_before_ring;

use crate::process::Identity;
use crate::shm::bell_page::BellPage;
use crate::shm::blocks::Blocks as Lent;
pub use crate::shm::ring::Lie;
use crate::shm::ring::{Consumer, Producer};
use crate::shm::segment::{MOST_SLOTS, Segment};
use crate::{channel::AGENT_SERIAL, sys};
use core::sync::atomic::{Ordering, fence};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Side of the agent in a segment; the program has the other.
const AGENT: usize = 1;
const PROGRAM: usize = 0;

/// A program's segment, mapped as long as this lives.
pub struct Blocks(Segment);

impl Blocks {
    /// Where the program's blocks lie: first byte and length.
    pub fn range(&self) -> (*const u8, usize) {
        let geometry = self.0.geometry;
        (self.0.block(PROGRAM, 0), geometry.blocks as usize * geometry.block_bytes as usize)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: the port, which holds one of these, and whoever else does are gone.
        unsafe { self.0.unmap() };
    }
}

/// A program's channel.
pub struct Port {
    segment: Segment,
    /// Keeps the segment mapped.
    mapping: Arc<Blocks>,
    bells: BellPage,
    /// FIFOs of the program's bells, by number.
    fifos: Vec<Option<OwnedFd>>,
    consumer: Consumer,
    producer: Producer,
    lent: Lent,
    /// The program's blocks, a bit each, that frames name which were not given back.
    named: Vec<u64>,
    /// Slots that the agent has opened and both sides have closed, with the generation they had.
    closed: VecDeque<(u32, u8)>,
    fresh: u32,
    /// Written since the last [`Port::publish`].
    unpublished: bool,
    process: u32,
}

impl Port {
    /// Maps the memory that a program has passed.
    ///
    /// # Errors
    /// It is not a segment and a page of bells, or there is no memory.
    pub fn attach(segment: BorrowedFd<'_>, bells: BorrowedFd<'_>, identity: u64) -> sys::Answer<Self> {
        let sides = [Identity(identity), Identity::NOBODY];
        let segment = Segment::attach(segment.as_raw_fd(), AGENT_SERIAL, sides)?;
        let bells = BellPage::attach(bells.as_raw_fd()).inspect_err(|_| {
            // SAFETY: nobody has seen the mapping yet.
            unsafe { segment.unmap() };
        })?;
        segment.side(AGENT).attached.store(1, Ordering::Release);
        Ok(Self {
            segment,
            mapping: Arc::new(Blocks(segment)),
            bells,
            fifos: Vec::new(),
            consumer: Consumer::default(),
            producer: Producer::default(),
            lent: Lent::first(segment.geometry.blocks),
            named: vec![0; (segment.geometry.blocks as usize).div_ceil(64)],
            closed: VecDeque::new(),
            fresh: 0,
            unpublished: false,
            process: sys::getpid() as u32,
        })
    }

    /// How many streams it can carry.
    pub fn slots(&self) -> u32 {
        self.segment.geometry.slots.min(MOST_SLOTS)
    }

    /// Bytes of the segment, used or not.
    pub fn bytes(&self) -> u64 {
        self.segment.bytes() as u64
    }

    /// From now on the program rings the doorbell when it has something. To be followed by a look with
    /// [`Port::has_news`].
    pub fn doze(&self) {
        self.segment.side(AGENT).asleep.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The agent looks at this port by itself again.
    pub fn wake(&self) {
        self.segment.side(AGENT).asleep.store(0, Ordering::Relaxed);
    }

    /// Whether the program takes this agent for gone, and does not read what is published from now on. What was published before is
    /// read when this is false behind a [`fence_before_ring`].
    pub fn has_given_up(&self) -> bool {
        self.segment.side(PROGRAM).gave_up.load(Ordering::Relaxed) != 0
    }

    /// Whether the program has published frames or changed lines that were not looked at.
    pub fn has_news(&self) -> bool {
        Consumer::published_beyond(&self.segment.lane(PROGRAM).producer, self.consumer.head())
            || self.segment.changes(PROGRAM).any()
    }

    fn capacity(&self) -> u64 {
        u64::from(self.segment.geometry.ring_bytes)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: the port is the only user of this mapping, and it ends here.
        unsafe { self.bells.unmap() };
    }
}
