//! Streams at the agent of a program: bytes and news for them, and how they end. After `agent/src/daemon/{program,receive,sessions}.rs`.

use crate::channel::{Channel, Frame, JOINED, Lane, READY, STAYS, SlotState};
use crate::port::{Held, LinkEnd, Slot};
use crate::sending::INLINE;
use crate::world::World;
use convoy_aggregator::batch::Control;

/// While bytes wait for room in a program's ring, which does not ring for room.
const ROOM_TICK: u64 = 1_000;

/// Why bytes cannot be given to a program.
pub enum Refused {
    /// They are more than it has granted.
    Credit,
    /// It has taken its agent for gone.
    GaveUp,
}

impl World {
    /// The program has closed its end of a stream.
    pub fn close_here(&mut self, channel: u32, slot: u32) {
        let Some(entry) = self.port_slot(channel, slot) else { return };
        entry.here_closed = true;
        let (link, number, lost) = (entry.link, entry.number, entry.lost);
        if lost {
            self.finish_of(channel, slot);
        } else if let Some((link, side, token)) = link
            && let Some(queue) = self.links[link as usize].queue_of(side, token)
        {
            queue.close(number);
        }
        self.mark_busy(link);
        self.end_if_over(channel, slot);
    }

    /// Frees a stream that both ends have closed.
    pub fn end_if_over(&mut self, channel: u32, slot: u32) {
        let Some(entry) = self.port_slot(channel, slot) else { return };
        if !(entry.here_closed && (entry.there_closed || entry.lost)) {
            return;
        }
        let (link, number, host) = (entry.link, entry.number, self.channels[channel as usize].host);
        if let Some((link, side, token)) = link
            && let Some(queue) = self.links[link as usize].queue_of(side, token)
        {
            if queue.has_unsent(number) {
                // Again when the batch has left.
                self.hosts[host as usize].ending.push((channel, slot));
                return;
            }
            queue.leave(number);
        }
        self.free_slot(channel, slot);
    }

    fn free_slot(&mut self, channel: u32, slot: u32) {
        let known = &mut self.channels[channel as usize];
        if let Some(entry) = known.port.as_mut().and_then(|port| port.slots.get_mut(slot as usize)) {
            *entry = None;
        }
        known.lines[slot as usize][1].state = SlotState::Closed;
        known.free.push_back(slot);
    }

    /// A stream that was being opened is not wanted by the other side.
    pub fn refuse(&mut self, channel: u32, slot: u32) {
        let Some(entry) = self.port_slot(channel, slot) else { return };
        let (link, number) = (entry.link, entry.number);
        if let Some((link, side, token)) = link
            && let Some(queue) = self.links[link as usize].queue_of(side, token)
        {
            queue.leave(number);
        }
        self.free_slot(channel, slot);
    }

    /// Nobody needs the frames of a slot any more.
    pub fn finish_of(&mut self, channel: u32, slot: u32) {
        let known = &mut self.channels[channel as usize];
        let generation = known.generations[slot as usize];
        let lane = &mut known.lanes[0];
        let of_slot = |frame: &Frame| {
            let header = convoy_aggregator::wire::Header::from_word(frame.word);
            header.is_ok_and(|header| header.slot == slot && header.generation == generation)
        };
        let taken = (lane.first..lane.taken).zip(&lane.frames);
        let frames: Vec<u64> = taken.filter_map(|(number, frame)| of_slot(frame).then_some(number)).collect();
        frames.into_iter().for_each(|frame| lane.finish(frame));
    }

    /// The other host says that it has got a frame. Of a stream that is lost nobody knows which program has got what: its frames
    /// stay until it has returned.
    pub fn delivered(&mut self, channel: usize, number: u64) {
        let known = &mut self.channels[channel];
        let frame = known.lanes[0].get(number);
        let header = frame.and_then(|frame| frame.header(known.lines.len()));
        let lost = header.zip(known.port.as_mut()).is_some_and(|(header, port)| {
            port.slot(header.slot).is_some_and(|slot| slot.lost && slot.generation == header.generation)
        });
        if !lost {
            known.lanes[0].finish(number);
        }
    }

    /// Nobody will say any more whether a frame has arrived: if its stream has ended at both ends it is not needed.
    pub fn finish_ended(&mut self, channel: usize, number: u64) {
        let known = &mut self.channels[channel];
        let frame = known.lanes[0].get(number);
        let Some(header) = frame.and_then(|frame| frame.header(known.lines.len())) else { return };
        let slot = known.port.as_mut().and_then(|port| port.slot(header.slot));
        if slot.is_none_or(|slot| slot.generation != header.generation) {
            known.lanes[0].finish(number);
        }
    }

    /// Gives bytes to a program: true when all found room, otherwise the rest is held.
    pub fn give(
        &mut self,
        channel: u32,
        slot: u32,
        bytes: &[u8],
        origin: (LinkEnd, u32),
    ) -> Result<bool, Refused> {
        let known = &mut self.channels[channel as usize];
        let (host, gave_up) = (known.host, known.gave_up);
        let Some(port) = known.port.as_mut() else { return Ok(true) };
        let gone = port.gone;
        let Some(entry) = port.slot(slot) else { return Ok(true) };
        if !entry.relay.give(bytes.len() as u64) {
            return Err(Refused::Credit);
        }
        let (generation, closed) = (entry.generation, entry.here_closed);
        if entry.relay.is_short(self.plan.ahead) {
            // Credit that was kept back is passed on at the next turn, as if it were new.
            known.changes.insert(slot);
            self.hosts[host as usize].news.push(channel);
            self.plan_turn(host, 1);
        }
        if gone || closed {
            return Ok(true);
        }
        if gave_up {
            return Err(Refused::GaveUp);
        }
        self.note_touched(channel);
        let Channel { port, lanes, .. } = &mut self.channels[channel as usize];
        let Some(port) = port else { return Ok(true) };
        let waits = !port.overflow.is_empty();
        let done = if waits { 0 } else { put(&mut lanes[1], slot, generation, bytes) };
        if done > 0 {
            self.give_up_if_due(channel);
        }
        if done == bytes.len() {
            return Ok(true);
        }
        let held = Held { slot, generation, bytes: bytes[done..].to_vec(), done: 0, origin };
        if let Some(port) = &mut self.channels[channel as usize].port {
            port.overflow.push_back(held);
        }
        self.hosts[host as usize].news.push(channel);
        self.plan_turn(host, ROOM_TICK);
        Ok(false)
    }

    /// Gives a program what its ring had no room for.
    pub fn retry_overflow(&mut self, channel: u32) {
        while let Some(whole) = self.give_held(channel) {
            if !whole {
                let host = self.channels[channel as usize].host;
                self.hosts[host as usize].news.push(channel);
                return self.plan_turn(host, ROOM_TICK);
            }
        }
    }

    /// The first held bytes of a program: true when all of them found room.
    fn give_held(&mut self, channel: u32) -> Option<bool> {
        let Channel { port, lanes, .. } = &mut self.channels[channel as usize];
        let held = port.as_mut()?.overflow.front_mut()?;
        held.done += put(&mut lanes[1], held.slot, held.generation, &held.bytes[held.done..]);
        let (slot, origin, whole) = (held.slot, held.origin, held.done == held.bytes.len());
        // Before the sender's copy goes.
        self.publish_to(channel);
        if !whole || self.drop_if_given_up(channel) {
            return Some(whole);
        }
        let port = self.channels[channel as usize].port.as_mut()?;
        port.overflow.pop_front();
        let over = !port.holds(slot) && port.slot(slot).is_some_and(|slot| slot.there_closed);
        self.hand_over(origin);
        if over {
            self.say_closed(channel, slot);
        }
        Some(true)
    }

    /// Bytes that were held are with their program, or nobody wants them any more.
    pub fn hand_over(&mut self, ((link, side, token), sequence): (LinkEnd, u32)) {
        if let Some(queue) = self.links[link as usize].queue_of(side, token) {
            queue.on_handed_over(sequence);
            self.mark_busy(Some((link, side, token)));
        }
    }

    /// What the other end of a stream says. What cannot be is refused.
    pub fn hear(&mut self, channel: u32, slot: u32, control: Control) -> Result<(), &'static str> {
        let known = &mut self.channels[channel as usize];
        let Some(entry) = known.port.as_mut().and_then(|port| port.slot(slot)) else { return Ok(()) };
        entry.relay.check(control)?;
        let line = &mut known.lines[slot as usize][1];
        match control {
            Control::Flags(flags) => {
                entry.there_flags = flags & (READY | STAYS);
                line.flags = entry.there_flags | if flags & READY != 0 { JOINED } else { 0 };
            }
            Control::Announce { number, position } => {
                line.positions[(number & 1) as usize] = position;
                line.announced = number;
            }
            Control::Passed(passed) => line.passed = passed,
            Control::Limit(limit) => line.limit = limit,
            Control::WantsKernel => line.state = SlotState::WantsKernel,
            Control::Reopened => line.state = SlotState::Open,
            Control::Lost | Control::Closed => {}
        }
        self.touch(channel, slot);
        Ok(())
    }

    /// A program's stream has something to look at.
    pub fn touch(&mut self, channel: u32, slot: u32) {
        self.note_touched(channel);
        if let Some((stream, end)) = self.channels[channel as usize].owners[slot as usize][0] {
            let delay = 1 + self.rng.below(30);
            self.wake(stream, end, delay);
        }
    }

    /// The other end of a stream is closed. Said to the program after all bytes.
    pub fn close_there(&mut self, channel: u32, slot: u32) {
        let Some(port) = self.channels[channel as usize].port.as_mut() else { return };
        let waits = port.holds(slot);
        let Some(entry) = port.slot(slot) else { return };
        entry.there_closed = true;
        if !waits {
            self.say_closed(channel, slot);
        }
    }

    fn say_closed(&mut self, channel: u32, slot: u32) {
        self.publish_to(channel);
        self.channels[channel as usize].lines[slot as usize][1].state = SlotState::Closed;
        self.touch(channel, slot);
        self.end_if_over(channel, slot);
    }

    /// A stream at the agent of a channel.
    pub fn port_slot(&mut self, channel: u32, slot: u32) -> Option<&mut Slot> {
        self.channels[channel as usize].port.as_mut()?.slot(slot)
    }
}

/// Writes bytes of a stream for a program, as far as there is room: how many.
fn put(lane: &mut Lane, slot: u32, generation: u8, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let part = (bytes.len() - done).min(lane.capacity / 4);
        if !lane.write(Frame::new(slot, generation, bytes[done..done + part].to_vec(), INLINE)) {
            break;
        }
        done += part;
    }
    done
}
