//! What the two rails of a pair share.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::{Event, LinkId, MemoryId};

/// What both rails see of one of them.
pub struct Side {
    pub waker: UnixStream,
    pub gone: bool,
    pub memories: HashMap<MemoryId, Vec<u8>>,
    pub links: HashMap<LinkId, Link>,
    pub happenings: VecDeque<Happening>,
    pub polls: u64,
}

/// What a side learns of at a poll.
pub struct Happening {
    /// The poll at which it is due.
    pub due: u64,
    pub link: LinkId,
    /// A write is done.
    pub done: bool,
    pub event: Option<Event>,
}

/// A link of a side.
pub struct Link {
    pub token: u64,
    /// The peer's number for it, once connected.
    pub peer: Option<LinkId>,
    pub outstanding: usize,
    /// It goes down as soon as its last event is polled: writes are lost.
    pub lost: bool,
}

impl Side {
    /// Adds something, `back` places before the end, never due before what precedes it.
    pub fn push(&mut self, link: LinkId, done: bool, event: Option<Event>, late: u32, back: usize) {
        let at = self.happenings.len().saturating_sub(back);
        let before = at.checked_sub(1).and_then(|before| self.happenings.get(before));
        let due = self.polls + u64::from(late);
        let mut due = before.map_or(due, |before| due.max(before.due));
        if let Some(after) = self.happenings.get(at) {
            due = due.min(after.due);
        }
        self.happenings.insert(at, Happening { due, link, done, event });
        // When the stream is full, the rail is awake.
        let _: std::io::Result<usize> = self.waker.write(&[1]);
    }

    /// How many arrivals on the link are last.
    pub fn trailing_arrivals(&self, link: LinkId) -> u32 {
        let is_one = |happening: &&Happening| {
            happening.link == link && matches!(happening.event, Some(Event::Arrived { .. }))
        };
        u32::try_from(self.happenings.iter().rev().take_while(is_one).count()).unwrap_or(u32::MAX)
    }

    pub fn lose(&mut self, link: LinkId, reason: &str) {
        if let Some(state) = self.links.get_mut(&link).filter(|state| !state.lost) {
            state.lost = true;
            let reason = reason.to_owned();
            self.push(link, false, Some(Event::Down { link, reason }), 0, 0);
        }
    }
}
