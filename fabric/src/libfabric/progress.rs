//! Reading the queues, and what their entries mean.

use std::mem::MaybeUninit;

use super::bindings::*;
use super::profile::{Identify, Profile};
use super::rail::{Listener, Rail, Stage};
use super::slots::Use;
use super::wire::Kind;
use crate::{Event, LinkId};

/// Entries read at a time.
const BATCH: usize = 32;
/// Batches read from a queue in one poll, so that a peer cannot keep this side in it.
const BATCHES: usize = 32;
/// Polls of a busy rail from one look at the event queue to the next.
const POLLS_PER_NOTICE: u32 = 64;

impl Rail {
    /// [`crate::Fabric::poll`].
    pub fn progress(&mut self, events: &mut Vec<Event>) {
        while let Some((link, reason)) = self.failed.pop() {
            self.fail(link, reason, events);
        }
        let dead = self.core.slots.dead();
        let mut drained = true;
        let mut index = 0;
        while index < self.core.queues.len() {
            drained &= self.read_queue(index, events);
            index += 1;
        }
        // The end of a connection is looked at when nothing is left that came before it.
        if drained {
            self.core.slots.reap(dead);
            if self.unnoticed == 0 || self.links.values().any(|link| link.stage != Stage::Up) {
                self.read_notices(events);
            }
            self.unnoticed = (self.unnoticed + 1) % POLLS_PER_NOTICE;
        }
        self.catch_up(events);
        if !self.core.profile.connected {
            self.lose_patience(events);
        }
    }

    /// Reads a completion queue; whether it is empty now.
    fn read_queue(&mut self, index: usize, events: &mut Vec<Event>) -> bool {
        let mut entries = [const { MaybeUninit::<fi_cq_data_entry>::uninit() }; BATCH];
        for _ in 0..BATCHES {
            let Some(Some(queue)) = self.core.queues.get(index) else { return true };
            let owner = queue.owner;
            match queue.cq.read(&mut entries) {
                Ok(0) | Err(libc::EAGAIN) => return true,
                Ok(count) => {
                    for entry in entries.iter().take(count) {
                        // SAFETY: the library has filled in as many.
                        let entry = unsafe { entry.assume_init() };
                        self.completed(&entry, owner, events);
                    }
                }
                Err(FI_EAVAIL) => {
                    if !self.read_error(index, events) {
                        return true;
                    }
                }
                Err(errno) => {
                    // The queue is of no use any more, and so are the endpoints bound to it.
                    let of = |(id, link): (&LinkId, &super::rail::Link)| {
                        link.port.as_ref().filter(|port| port.queue == index).map(|_| *id)
                    };
                    let links: Vec<_> = self.links.iter().filter_map(of).collect();
                    for link in links {
                        self.fail_with(link, "fi_cq_read", errno, events);
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Reads an entry that says what went wrong; false when there is none after all.
    fn read_error(&mut self, index: usize, events: &mut Vec<Event>) -> bool {
        let Some(Some(queue)) = self.core.queues.get(index) else { return false };
        let owner = queue.owner;
        let Ok(entry) = queue.cq.read_error() else { return false };
        let found = self.core.slots.find(entry.op_context);
        let mut link = owner;
        if let Some((slot, what)) = found {
            link = match what {
                Use::Free | Use::Dead => return true,
                Use::Write { link, .. } => Some(link),
                Use::Send { port, .. } | Use::Receive { port, .. } => port.or(owner),
            };
            self.core.slots.give_back(slot);
            // The rail's own endpoint goes on after a message that did not get through.
            if let (Listener::Port(port), Use::Send { port: None, buffer, .. }) = (&mut self.listener, what) {
                port.sent(buffer);
            }
            if let (Listener::Port(port), Use::Receive { port: None, buffer }) = (&mut self.listener, what) {
                let _: Result<(), i32> = port.recycle(&mut self.core, buffer);
            }
        }
        if let Some(link) = link {
            self.fail_with(link, "an operation has failed", entry.err, events);
        }
        true
    }

    /// An operation is done, or a peer's write has arrived.
    fn completed(&mut self, entry: &fi_cq_data_entry, owner: Option<LinkId>, events: &mut Vec<Event>) {
        if entry.flags & FI_REMOTE_WRITE != 0 {
            self.written_here(entry, owner, events);
            return;
        }
        let Some((slot, what)) = self.core.slots.find(entry.op_context) else { return };
        match what {
            Use::Free | Use::Dead => {}
            Use::Write { link, context } => {
                self.core.slots.give_back(slot);
                self.write_done(link, context, events);
            }
            Use::Send { port, buffer, sent } => {
                self.core.slots.give_back(slot);
                let of = match (port, &mut self.listener) {
                    (Some(link), _) => self.links.get_mut(&link).and_then(|link| link.port.as_mut()),
                    (None, Listener::Port(port)) => Some(port),
                    (None, Listener::Passive(_)) => None,
                };
                if let Some(of) = of {
                    of.sent(buffer);
                }
                if let (Some(link), true) = (port, sent.write) {
                    self.write_done(link, sent.context, events);
                }
            }
            Use::Receive { port, buffer } => {
                self.core.slots.give_back(slot);
                match port {
                    Some(link) => self.message_for_link(link, buffer, entry.len, events),
                    None => self.message_for_rail(buffer, entry.len, events),
                }
            }
        }
    }

    fn write_done(&mut self, id: LinkId, context: Option<u64>, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.outstanding = link.outstanding.saturating_sub(1);
        if let Some(context) = context {
            events.push(Event::Written { link: id, context });
        }
    }

    /// A one-sided write with immediate data has arrived.
    fn written_here(&mut self, entry: &fi_cq_data_entry, owner: Option<LinkId>, events: &mut Vec<Event>) {
        let link = match self.core.profile.identify {
            Identify::Tag => self.tags.get(&((entry.data >> 32) as u32)).copied(),
            Identify::Queue => owner,
            Identify::Receive => match self.core.slots.find(entry.op_context) {
                Some((slot, Use::Receive { port: Some(link), buffer })) => {
                    self.core.slots.give_back(slot);
                    self.recycle(link, buffer, events);
                    Some(link)
                }
                _ => None,
            },
        };
        if let Some(link) = link.filter(|_| entry.flags & FI_REMOTE_CQ_DATA != 0) {
            self.arrived(link, entry.data as u32, events);
        }
    }

    /// Tells of immediate data. They also prove that the peer knows of the connection.
    fn arrived(&mut self, id: LinkId, immediate: u32, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.stage {
            Stage::Up => {}
            Stage::Answered => {
                (link.stage, link.stuck) = (Stage::Up, None);
                events.push(Event::Connected(id));
            }
            Stage::Waiting | Stage::Asking | Stage::Failed => return,
        }
        events.push(Event::Arrived { link: id, immediate });
    }

    /// A receive buffer of a link is done with.
    fn recycle(&mut self, id: LinkId, buffer: u16, events: &mut Vec<Event>) {
        let port = self.links.get_mut(&id).and_then(|link| link.port.as_mut());
        if let Some(Err(errno)) = port.map(|port| port.recycle(&mut self.core, buffer)) {
            self.fail_with(id, "fi_recv", errno, events);
        }
    }

    /// A message for a link: a write, or of the handshake.
    fn message_for_link(&mut self, id: LinkId, buffer: u16, length: usize, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(port) = &link.port else { return };
        let Some(header) = port.received(buffer, length) else {
            self.fail(id, "the peer has sent a message that cannot be read", events);
            return;
        };
        match (header.kind, port.body(buffer)) {
            (Kind::Write, Some((region, start))) => {
                let length = header.length as usize;
                // A provider that makes its own connections may have lost one, with messages, and made another.
                let Profile { messages, limits, .. } = &self.core.profile;
                if !link.seen.add(header.sequence, limits.ordered) {
                    self.fail(id, "a write of the peer is missing", events);
                    return;
                }
                let placed = *messages
                    && header.tag == link.tag
                    && self.memories.place(header.key, header.offset, region, start, length);
                if !placed {
                    self.fail(id, "the peer has written where it may not", events);
                    return;
                }
                if let Some(immediate) = header.immediate {
                    self.arrived(id, immediate, events);
                }
            }
            (_, Some((region, start))) => {
                let mut body = vec![0; header.length as usize];
                region.read(start, &mut body);
                self.handshake(id, &header, &body, events);
            }
            (_, None) => {}
        }
        self.recycle(id, buffer, events);
    }

    /// Posts what could not be posted before.
    fn catch_up(&mut self, events: &mut Vec<Event>) {
        let mut failed = Vec::new();
        for (id, link) in &mut self.links {
            if let Some(port) = link.port.as_mut().filter(|port| port.is_behind())
                && let Err(errno) = port.catch_up(&mut self.core)
            {
                failed.push((*id, errno));
            }
        }
        for (link, errno) in failed {
            self.fail_with(link, "catching up", errno, events);
        }
        if let Listener::Port(port) = &mut self.listener
            && port.is_behind()
        {
            // The rail's own endpoint has no one to tell; it is tried again at the next poll.
            let _: Result<(), i32> = port.catch_up(&mut self.core);
        }
    }
}
