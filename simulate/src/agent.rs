//! An agent's turns: it takes what programs have sent and changed, passes it on, and gives them what came for them. After
//! `agent/src/daemon/{engine,transmit,program,sessions}.rs`, with the aggregator's own queues and checks.

use crate::channel::{Frame, JOINED, Payload, READY, RECOVERED, STAYS, SlotState};
use crate::clock::Event;
use crate::port::{Held, LinkEnd, Slot};
use crate::sending::INLINE;
use crate::world::{TICK, World};
use convoy_aggregator::batch::Control;
use convoy_aggregator::queue::{Piece, Taken};
use convoy_aggregator::relay::Said;

/// While bytes wait for room in a program's ring, which does not ring for room.
const ROOM_TICK: u64 = 1_000;

/// A program has said what cannot be.
pub struct Lie(&'static str);

impl World {
    /// A channel has something for its agent.
    pub fn plan_turn_for(&mut self, channel: u32) {
        let known = &self.channels[channel as usize];
        let host = known.host;
        if known.port.is_none() {
            return;
        }
        let news = &mut self.hosts[host as usize].news;
        if news.last() != Some(&channel) {
            news.push(channel);
        }
        let delay = 1 + self.rng.below(8);
        self.plan_turn(host, delay);
    }

    /// An agent takes a turn, at the latest in so many microseconds.
    pub fn plan_turn(&mut self, host: u32, delay: u64) {
        let at = self.clock.now + delay;
        let known = &mut self.hosts[host as usize];
        if !known.agent || known.turn_at.is_some_and(|planned| planned <= at) {
            return;
        }
        known.turn_at = Some(at);
        let life = known.life;
        self.clock.after(delay, Event::Turn { host, life });
    }

    /// An agent's turn.
    pub fn turn(&mut self, host: u32, life: u32) {
        let known = &mut self.hosts[host as usize];
        if known.life != life || !known.agent || known.turn_at != Some(self.clock.now) {
            return;
        }
        known.turn_at = None;
        let mut news = std::mem::take(&mut known.news);
        news.sort_unstable();
        news.dedup();
        for channel in news {
            self.collect_from(channel);
            self.retry_overflow(channel);
        }
        self.transmit(host);
    }

    fn collect_from(&mut self, channel: u32) {
        if self.channels[channel as usize].port.is_some()
            && let Err(Lie(what)) = self.try_collect(channel)
        {
            self.channel_lied(channel, what);
            self.drop_program(channel);
        }
    }

    fn try_collect(&mut self, channel: u32) -> Result<(), Lie> {
        let changes = std::mem::take(&mut self.channels[channel as usize].changes);
        let mut closed = false;
        for slot in &changes {
            closed |= self.tell_news(channel, *slot)? == Some(SlotState::Closed);
        }
        self.take_frames(channel)?;
        if closed {
            for slot in changes {
                let state = self.channels[channel as usize].lines[slot as usize][0].state;
                if state == SlotState::Closed && self.port_slot(channel, slot).is_some_and(|slot| slot.told) {
                    self.close_here(channel, slot);
                }
            }
        }
        Ok(())
    }

    /// Tells the other host what a program has changed in a line: the state of its end.
    fn tell_news(&mut self, channel: u32, slot: u32) -> Result<Option<SlotState>, Lie> {
        let known = &mut self.channels[channel as usize];
        let line = known.lines[slot as usize][0];
        let Some(entry) = known.port.as_mut().and_then(|port| port.slot(slot)) else { return Ok(None) };
        let said = Said {
            announced: line.announced,
            positions: line.positions,
            passed: line.passed,
            flags: line.flags & (READY | STAYS),
            limit: line.limit,
            wants_kernel: (line.state != SlotState::Closed).then_some(line.state == SlotState::WantsKernel),
        };
        if !entry.relay.is_possible(&said) {
            return Err(Lie("a line that cannot be"));
        }
        let number = entry.number;
        let link = entry.link;
        let recovered = line.flags & RECOVERED != 0 && entry.lost;
        let queue = link.and_then(|(link, side, token)| self.links[link as usize].queue_of(side, token));
        match queue {
            Some(queue) => entry.relay.tell(&said, |control| queue.controls.push_back((number, control))),
            None => entry.relay.tell(&said, |_| {}),
        }
        self.mark_busy(link);
        if recovered {
            self.finish_of(channel, slot);
        }
        Ok(Some(line.state))
    }

    fn take_frames(&mut self, channel: u32) -> Result<(), Lie> {
        let now = self.clock.now;
        loop {
            let known = &mut self.channels[channel as usize];
            let slots = known.lines.len();
            let Some(number) = known.lanes[0].next() else { return Ok(()) };
            let Some(frame) = known.lanes[0].get(number) else { return Ok(()) };
            let header = frame.header(slots).ok_or(Lie("a frame that cannot be"))?;
            let piece =
                Payload { frame: number, length: frame.bytes.len() as u32, large: frame.reference.is_some() };
            let recovered = known.lines[header.slot as usize][0].flags & RECOVERED != 0;
            let entry = known.port.as_mut().and_then(|port| port.slot(header.slot));
            let Some(entry) = entry.filter(|slot| slot.generation == header.generation && !slot.here_closed)
            else {
                known.lanes[0].finish(number);
                continue;
            };
            if !entry.relay.take(u64::from(piece.length())) {
                return Err(Lie("more bytes than credit"));
            }
            if entry.lost {
                // Stays in the ring: the program sends it again through the kernel, unless it is past that.
                if recovered {
                    known.lanes[0].finish(number);
                }
                continue;
            }
            let (link, stream) = (entry.link, entry.number);
            let queue = link.and_then(|(link, side, token)| self.links[link as usize].queue_of(side, token));
            match queue {
                Some(queue) => queue.push(stream, Taken::new(piece, number), now),
                None => known.lanes[0].finish(number),
            }
            self.mark_busy(link);
        }
    }

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

    /// Gives bytes to a program: true when all found room, otherwise the rest is held. Nothing when they are more than it has
    /// granted.
    pub fn give(&mut self, channel: u32, slot: u32, bytes: &[u8], origin: (LinkEnd, u32)) -> Option<bool> {
        let known = &mut self.channels[channel as usize];
        let port = known.port.as_mut()?;
        let gone = port.gone;
        let Some(entry) = port.slot(slot) else { return Some(true) };
        if !entry.relay.give(bytes.len() as u64) {
            return None;
        }
        if gone || entry.here_closed {
            return Some(true);
        }
        let generation = entry.generation;
        let waits = !port.overflow.is_empty();
        let done = if waits { 0 } else { known.put(slot, generation, bytes) };
        if done > 0 {
            self.plan_sort(channel, 0);
        }
        if done == bytes.len() {
            return Some(true);
        }
        let held = Held { slot, generation, bytes: bytes[done..].to_vec(), done: 0, origin };
        let known = &mut self.channels[channel as usize];
        known.port.as_mut()?.overflow.push_back(held);
        let host = known.host;
        self.hosts[host as usize].news.push(channel);
        self.plan_turn(host, ROOM_TICK);
        Some(false)
    }

    /// Gives a program what its ring had no room for.
    fn retry_overflow(&mut self, channel: u32) {
        loop {
            let known = &mut self.channels[channel as usize];
            let Some(held) = known.port.as_mut().and_then(|port| port.overflow.pop_front()) else { return };
            let done = held.done + known.put(held.slot, held.generation, &held.bytes[held.done..]);
            if done > held.done {
                self.plan_sort(channel, 0);
            }
            let known = &mut self.channels[channel as usize];
            let Some(port) = known.port.as_mut() else { return };
            if done < held.bytes.len() {
                port.overflow.push_front(Held { done, ..held });
                let host = known.host;
                self.hosts[host as usize].news.push(channel);
                return self.plan_turn(host, ROOM_TICK);
            }
            let over = !port.holds(held.slot) && port.slot(held.slot).is_some_and(|slot| slot.there_closed);
            self.hand_over(held.origin);
            if over {
                self.say_closed(channel, held.slot);
            }
        }
    }

    /// Bytes that were held are with their program, or nobody wants them any more.
    fn hand_over(&mut self, ((link, side, token), sequence): (LinkEnd, u32)) {
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
        self.channels[channel as usize].lines[slot as usize][1].state = SlotState::Closed;
        self.touch(channel, slot);
        self.end_if_over(channel, slot);
    }

    /// The way to the other host is gone: programs are told.
    pub fn lose_streams(&mut self, lost: Vec<(u32, u32)>) {
        for (channel, slot) in lost {
            let Some(entry) = self.port_slot(channel, slot) else { continue };
            entry.link = None;
            if entry.there_closed {
                // Everything has come, and nobody reads any more: the end is told as it was.
                self.finish_of(channel, slot);
                self.end_if_over(channel, slot);
                continue;
            }
            entry.lost = true;
            let over = entry.here_closed || !entry.told;
            entry.here_closed = over;
            self.channels[channel as usize].lines[slot as usize][1].state = SlotState::Lost;
            self.touch(channel, slot);
            // It may have returned to the kernel before this agent knew why.
            if let Err(Lie(what)) = self.tell_news(channel, slot) {
                self.channel_lied(channel, what);
            }
            if over {
                self.finish_of(channel, slot);
                self.end_if_over(channel, slot);
            }
        }
    }

    /// Ends a program's channel: its streams cannot go on here.
    pub fn drop_program(&mut self, channel: u32) {
        let Some(port) = self.take_port(channel) else { return };
        let now = self.clock.now;
        port.overflow.iter().for_each(|held| self.hand_over(held.origin));
        for entry in port.slots.iter().flatten() {
            if let Some((link, side, token)) = entry.link
                && let Some(queue) = self.links[link as usize].queue_of(side, token)
            {
                queue.abandon(entry.number, now);
            }
            self.mark_busy(entry.link);
        }
        for link in &mut self.links {
            (0..2).for_each(|side| {
                link.queue(side).into_iter().for_each(|queue| queue.forget_program(channel as usize));
            });
        }
        self.free_channel_if_over(channel);
    }

    /// The agent's side of a channel ends: the program finds it lost.
    pub fn take_port(&mut self, channel: u32) -> Option<crate::port::Port> {
        let known = &mut self.channels[channel as usize];
        known.lost = true;
        let port = known.port.take();
        let owners: Vec<(u32, usize)> = known.owners.iter().filter_map(|owners| owners[0]).collect();
        for (stream, end) in owners {
            let delay = 1 + self.rng.below(2_000);
            self.wake(stream, end, delay);
        }
        port
    }

    /// A program has ended: what it has sent is passed on, and then the end of its streams.
    pub fn program_ended(&mut self, channel: u32) {
        let Some(port) = self.channels[channel as usize].port.as_mut() else { return };
        port.gone = true;
        self.collect_from(channel);
        let Some(port) = self.channels[channel as usize].port.as_mut() else { return };
        let (held, slots) = (std::mem::take(&mut port.overflow), port.in_use());
        held.iter().for_each(|held| self.hand_over(held.origin));
        slots.into_iter().for_each(|slot| self.close_here(channel, slot));
    }

    /// What is due by the clock.
    pub fn tick(&mut self, host: u32, life: u32) {
        if self.hosts[host as usize].life != life {
            return;
        }
        self.clock.after(TICK, Event::Tick { host, life });
        for channel in self.hosts[host as usize].channels.clone() {
            let known = &self.channels[channel as usize];
            let over = known.port.as_ref().is_some_and(|port| port.gone && port.in_use().is_empty());
            if over && known.lanes[0].frames.is_empty() {
                self.drop_program(channel);
            }
        }
        self.look_for_silence(host);
        self.plan_turn(host, 1);
    }

    /// A stream at the agent of a channel.
    pub fn port_slot(&mut self, channel: u32, slot: u32) -> Option<&mut Slot> {
        self.channels[channel as usize].port.as_mut()?.slot(slot)
    }
}

impl crate::channel::Channel {
    /// Writes bytes of a stream for the program, as far as there is room: how many.
    fn put(&mut self, slot: u32, generation: u8, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let part = (bytes.len() - done).min(self.lanes[1].capacity / 4);
            if !self.lanes[1].put(Frame::new(slot, generation, bytes[done..done + part].to_vec(), INLINE)) {
                break;
            }
            done += part;
        }
        done
    }
}
