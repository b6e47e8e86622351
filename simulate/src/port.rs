//! A program as its agent knows it: its slots, and bytes for which its ring has no room.

use convoy_aggregator::queue::StreamNumber;
use convoy_aggregator::relay::Relay;
use std::collections::VecDeque;

/// A link end: which link, which side of it, which life of it.
pub type LinkEnd = (u32, usize, u32);

/// A stream of a program, at its agent.
pub struct Slot {
    pub generation: u8,
    pub link: Option<LinkEnd>,
    pub number: StreamNumber,
    pub relay: Relay,
    pub there_flags: u32,
    pub here_closed: bool,
    pub there_closed: bool,
    pub lost: bool,
    /// The program was told of it.
    pub told: bool,
}

impl Slot {
    /// A stream that is being opened.
    pub fn new(generation: u8, link: LinkEnd, number: StreamNumber) -> Self {
        Self {
            generation,
            link: Some(link),
            number,
            relay: Relay::default(),
            there_flags: 0,
            here_closed: false,
            there_closed: false,
            lost: false,
            told: false,
        }
    }
}

/// Bytes that wait for room in the program's ring.
pub struct Held {
    pub slot: u32,
    pub generation: u8,
    pub bytes: Vec<u8>,
    pub done: usize,
    /// The batch they came with.
    pub origin: (LinkEnd, u32),
}

/// See the module.
#[derive(Default)]
pub struct Port {
    pub slots: Vec<Option<Slot>>,
    pub overflow: VecDeque<Held>,
    /// The program has ended: what it has sent is still passed on.
    pub gone: bool,
}

impl Port {
    /// A stream that is in use.
    pub fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Enters a stream.
    pub fn enter(&mut self, slot: u32, known: Slot) {
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(known);
    }

    /// Whether bytes of a stream wait for room.
    pub fn holds(&self, slot: u32) -> bool {
        self.overflow.iter().any(|held| held.slot == slot)
    }

    /// Bytes that wait for room.
    pub fn held_bytes(&self) -> usize {
        self.overflow.iter().map(|held| held.bytes.len() - held.done).sum()
    }

    /// Slots in use.
    pub fn in_use(&self) -> Vec<u32> {
        (0..).zip(&self.slots).filter_map(|(slot, known)| known.as_ref().map(|_| slot)).collect()
    }
}
