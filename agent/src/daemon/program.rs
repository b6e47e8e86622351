//! A program of this host: its channel, what of its frames the other hosts have not got yet, its streams.

use super::joint::Joint;
use super::large::LARGE;
use super::slot::{Slot, said};
use convoy_aggregator::batch::Control;
use convoy_aggregator::link::PLACE_BYTES;
use convoy_aggregator::queue::{self, StreamNumber};
use convoy_runtime::agent::{protocol, server};
use convoy_runtime::port::{JOINED, Lie, Piece, Port, READY, RECOVERED, Sent, SlotState, WORTH};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// One program that has connected.
pub(crate) struct Program {
    pub(crate) session: server::Program,
    /// What its socket had no room for.
    pub(super) outbox: VecDeque<protocol::Message>,
    /// Never given twice.
    pub(crate) serial: u64,
    /// How many descriptors the agent holds for it.
    pub(super) descriptors: u64,
    /// Nothing before its hello.
    pub(crate) port: Option<Port>,
    pub(crate) doorbell: Option<OwnedFd>,
    /// Name and path of its executable, for the policy and for people.
    pub(crate) name: String,
    /// By slot.
    slots: Vec<Option<Slot>>,
    /// Frames taken and not released, the first of which has the number `first`.
    retained: VecDeque<Retained>,
    first: u64,
    /// Bytes for which its ring had no room.
    pub(crate) overflow: VecDeque<Held>,
    /// Bytes that others may send to it and have not: the sum over its streams.
    pub(super) promised: u64,
    /// Its ring is looked at in each round; otherwise it rings the doorbell.
    pub(crate) awake: bool,
    /// Rounds without anything new.
    pub(crate) idle: u32,
    /// Its socket is closed: what it has sent is still passed on.
    pub(crate) gone: bool,
}

/// In place of a link that is gone: its place may be another's.
pub(crate) const NO_LINK: usize = usize::MAX;

struct Retained {
    slot: u32,
    generation: u8,
    end: u64,
    block: Option<u32>,
    done: bool,
}

/// Bytes that wait for room in the program's ring.
pub(crate) struct Held {
    pub(crate) slot: u32,
    pub(crate) generation: u8,
    pub(crate) bytes: Vec<u8>,
    pub(crate) done: usize,
    pub(crate) origin: Origin,
}

/// Where bytes for a program came from, to be told when they have found room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Another host.
    Batch { link: usize, sequence: u32 },
    /// Another program of this host.
    Frame { program: usize, serial: u64, frame: u64 },
}

/// Where a frame of a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Link(usize, StreamNumber),
    Joint(Joint),
}

/// The payload of a frame, in its program's memory.
#[derive(Clone, Copy)]
pub(crate) struct Payload(pub(crate) Piece);

impl queue::Piece for Payload {
    fn length(&self) -> u32 {
        self.0.length
    }

    fn is_large(&self) -> bool {
        self.0.block.is_some() && (LARGE..=PLACE_BYTES as u32).contains(&self.0.length)
    }
}

/// A frame on its way to a link.
pub(crate) type Taken = queue::Taken<Payload>;

impl Program {
    pub(crate) fn new(session: server::Program, serial: u64, name: String) -> Self {
        Self {
            session,
            outbox: VecDeque::new(),
            serial,
            descriptors: 1,
            port: None,
            doorbell: None,
            name,
            slots: Vec::new(),
            retained: VecDeque::new(),
            first: 0,
            overflow: VecDeque::new(),
            promised: 0,
            awake: false,
            idle: 0,
            gone: false,
        }
    }

    /// Says something to the program, later if its socket is full.
    pub(super) fn tell(&mut self, message: protocol::Message) {
        if !self.outbox.is_empty() || !self.session.send(message, None) {
            self.outbox.push_back(message);
        }
    }

    /// Says what there was no room for; false when the program takes nothing and too much is waiting.
    pub(super) fn tell_rest(&mut self) -> bool {
        while let Some(message) = self.outbox.front() {
            if !self.session.send(*message, None) {
                break;
            }
            self.outbox.pop_front();
        }
        self.gone || self.outbox.len() < MOST_UNSAID
    }

    pub(crate) fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Whether the program has closed its end of a stream.
    pub(crate) fn has_closed(&self, slot: u32) -> bool {
        let known = self.slots.get(slot as usize).and_then(Option::as_ref);
        let line = known.zip(self.port.as_ref()).and_then(|(known, port)| port.line(slot, known.generation));
        line.is_some_and(|line| line.state == SlotState::Closed)
    }

    /// All streams: slots with what is known of them.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as u32, slot.as_ref()?)))
    }

    /// The stream that came of an offer.
    pub(crate) fn slot_of_offer(&self, offer: u64) -> Option<u32> {
        self.streams().find(|(_, slot)| slot.offer == offer).map(|(slot, _)| slot)
    }

    /// Opens a slot for a stream; nothing when the program has no port or no slots left.
    pub(crate) fn open(
        &mut self,
        link: usize,
        stream: StreamNumber,
        offer: u64,
        worth: bool,
    ) -> Option<(u32, u8)> {
        let (slot, generation) = self.port.as_mut()?.open_slot()?;
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot::new(generation, offer, link, stream, worth));
        self.look_at_load(slot);
        self.show_flags(slot);
        Some((slot, generation))
    }

    /// What the program has sent on a stream since the last look.
    pub(crate) fn look_at_load(&mut self, slot: u32) -> Sent {
        let (Some(port), Some(known)) =
            (&self.port, self.slots.get_mut(slot as usize).and_then(Option::as_mut))
        else {
            return Sent::default();
        };
        let now = port.sent(slot);
        now.since(core::mem::replace(&mut known.sent, now))
    }

    /// Whether the fabric is worth it for what the program sends on a stream.
    pub(crate) fn set_worth(&mut self, slot: u32, worth: bool) {
        let Some(known) = self.slot(slot) else { return };
        if core::mem::replace(&mut known.worth, worth) != worth {
            self.show_flags(slot);
        }
    }

    /// Tells the program of the other end's flags; it may leave the kernel only where the fabric is worth it.
    pub(crate) fn show_flags(&self, slot: u32) {
        if let (Some(port), Some(known)) =
            (&self.port, self.slots.get(slot as usize).and_then(Option::as_ref))
        {
            let joined = if known.there_flags & READY != 0 { JOINED | WORTH } else { 0 };
            let (shown, withheld) = if known.worth { (WORTH, 0) } else { (0, READY) };
            port.set_flags(slot, known.there_flags & !withheld | joined | shown);
        }
    }

    /// Both ends have closed the stream, or the program has after its link was lost.
    pub(crate) fn free(&mut self, slot: u32) {
        let Some(ended) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.promised = self.promised.saturating_sub(ended.relay.promised());
        if let Some(port) = &mut self.port {
            port.free_slot(slot, ended.generation);
        }
    }

    /// The next frame that the program has sent, with the stream it belongs to. Frames of streams that are closed are
    /// dropped.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Target, Taken)>, Lie> {
        loop {
            let Some(port) = &mut self.port else { return Ok(None) };
            let Some(frame) = port.next_frame()? else { return Ok(None) };
            let number = self.first + self.retained.len() as u64;
            self.retained.push_back(Retained {
                slot: frame.slot,
                generation: frame.generation,
                end: frame.end,
                block: frame.piece.block,
                done: false,
            });
            let slot = self.slots.get_mut(frame.slot as usize).and_then(Option::as_mut);
            let slot = slot.filter(|slot| slot.generation == frame.generation && !slot.here_closed);
            let Some(slot) = slot else {
                self.finish(number);
                continue;
            };
            if !slot.relay.take(u64::from(frame.piece.length)) {
                return Err(Lie("more bytes than credit"));
            }
            if slot.lost {
                // Stays in the ring: the program sends it again through the kernel, unless it is past that.
                if port_says_recovered(self.port.as_ref(), frame.slot, frame.generation) {
                    self.finish(number);
                }
                continue;
            }
            let target = slot.joint.map_or(Target::Link(slot.link, slot.stream), Target::Joint);
            return Ok(Some((target, Taken::new(Payload(frame.piece), number))));
        }
    }

    /// The other host has got a frame.
    pub(crate) fn finish(&mut self, frame: u64) {
        let index = frame.wrapping_sub(self.first) as usize;
        let Some(retained) = self.retained.get_mut(index) else { return };
        retained.done = true;
        if index > 0 {
            return;
        }
        let mut end = 0;
        while self.retained.front().is_some_and(|retained| retained.done) {
            let Some(retained) = self.retained.pop_front() else { break };
            self.first += 1;
            end = retained.end;
            if let (Some(block), Some(port)) = (retained.block, &mut self.port) {
                port.return_block(block);
            }
        }
        if let Some(port) = &mut self.port {
            port.release(end);
        }
    }

    /// The other host says that it has got a frame. Of a stream that is lost nobody knows which program has got what: its frames stay
    /// until it has returned.
    pub(crate) fn delivered(&mut self, frame: u64) {
        let Some(retained) = self.retained.get(frame.wrapping_sub(self.first) as usize) else { return };
        let (slot, generation) = (retained.slot, retained.generation);
        if !self.slot(slot).is_some_and(|known| known.lost && known.generation == generation) {
            self.finish(frame);
        }
    }

    /// Nobody needs the frames of a slot any more.
    pub(crate) fn finish_of(&mut self, slot: u32) {
        let Some(generation) = self.slot(slot).map(|slot| slot.generation) else { return };
        let of_slot = |retained: &Retained| retained.slot == slot && retained.generation == generation;
        let first = self.first;
        let frames: Vec<u64> = (first..)
            .zip(&self.retained)
            .filter_map(|(number, retained)| of_slot(retained).then_some(number))
            .collect();
        frames.into_iter().for_each(|frame| self.finish(frame));
    }

    /// Nobody will say any more whether a frame has arrived. If its stream has ended at both ends that does not matter; otherwise
    /// the program would never get its room back.
    pub(crate) fn finish_ended(&mut self, frame: u64) {
        let Some(retained) = self.retained.get(frame.wrapping_sub(self.first) as usize) else { return };
        let slot = self.slots.get(retained.slot as usize).and_then(Option::as_ref);
        if slot.is_none_or(|slot| slot.generation != retained.generation) {
            self.finish(frame);
        }
    }

    /// Whether frames are not with the other host yet.
    pub(crate) fn retains(&self) -> bool {
        !self.retained.is_empty()
    }

    /// Whether it takes this agent for gone, and reads nothing any more.
    pub(super) fn has_given_up(&self) -> bool {
        self.port.as_ref().is_some_and(Port::has_given_up)
    }

    /// Gives bytes to the program: true when all found room, otherwise the rest is held.
    pub(crate) fn give(&mut self, slot: u32, bytes: &[u8], origin: Origin) -> Result<bool, GiveError> {
        let Some(known) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return Ok(true) };
        if !known.relay.give(bytes.len() as u64) {
            return Err(GiveError::Credit);
        }
        self.promised = self.promised.saturating_sub(bytes.len() as u64);
        if self.gone || known.here_closed {
            return Ok(true);
        }
        let generation = known.generation;
        let Some(port) = &mut self.port else { return Ok(true) };
        if port.has_given_up() {
            return Err(GiveError::GaveUp);
        }
        let mut done = 0;
        if self.overflow.is_empty() {
            done = port.put(slot, generation, bytes).map_err(GiveError::Lie)?;
            if done == bytes.len() {
                return Ok(true);
            }
        }
        let bytes = bytes[done..].to_vec();
        self.overflow.push_back(Held { slot, generation, bytes, done: 0, origin });
        Ok(false)
    }

    /// Whether the other end of a stream is to be told of credit that was kept back.
    pub(super) fn is_short(&mut self, slot: u32, ahead: u64) -> bool {
        self.slot(slot).is_some_and(|known| known.relay.is_short(ahead))
    }

    /// What of the program's line the other host does not know yet, with credit for `ahead` bytes at most. The state is left to the
    /// caller.
    ///
    /// # Errors
    /// What it says cannot be.
    pub(crate) fn news(
        &mut self,
        slot: u32,
        ahead: u64,
        tell: impl FnMut(Control),
    ) -> Result<Option<SlotState>, Lie> {
        let known = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
        let (Some(known), Some(port)) = (known, &self.port) else { return Ok(None) };
        let Some(line) = port.line(slot, known.generation) else { return Ok(None) };
        let said = said(&line);
        if !known.relay.is_possible(&said) {
            tracing::info!(pid = self.session.pid, slot, lost = known.lost, ?said, relay = ?known.relay, "a line that cannot be");
            return Err(Lie("a line that cannot be"));
        }
        let before = known.relay.promised();
        known.relay.tell(&said, ahead, tell);
        self.promised += known.relay.promised() - before;
        let (state, recovered) = (line.state, line.flags & RECOVERED != 0 && known.lost);
        if recovered {
            self.finish_of(slot);
        }
        Ok(Some(state))
    }
}

fn port_says_recovered(port: Option<&Port>, slot: u32, generation: u8) -> bool {
    port.and_then(|port| port.line(slot, generation)).is_some_and(|line| line.flags & RECOVERED != 0)
}

/// Messages that may wait for room in a program's socket.
const MOST_UNSAID: usize = 100_000;

/// Why bytes from the other host cannot be given to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveError {
    /// The other host sent more than it was granted.
    Credit,
    /// The program lies.
    Lie(Lie),
    /// The program does not read any more.
    GaveUp,
}
