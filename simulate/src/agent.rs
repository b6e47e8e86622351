//! An agent's turns: it takes what programs have sent and changed, passes it on, and gives them what came for them. After
//! `agent/src/daemon/{engine,transmit,program,sessions}.rs`, with the aggregator's own queues and checks.

use crate::channel::{Payload, READY, RECOVERED, STAYS, SlotState};
use crate::clock::Event;
use crate::world::{TICK, World};
use convoy_aggregator::queue::{Piece, Taken};
use convoy_aggregator::relay::Said;

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
        // What has arrived comes first.
        self.publish(host);
        let known = &mut self.hosts[host as usize];
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
            && !self.drop_if_given_up(channel)
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
        let ahead = self.plan.ahead;
        let queue = link.and_then(|(link, side, token)| self.links[link as usize].queue_of(side, token));
        match queue {
            Some(queue) => {
                entry.relay.tell(&said, ahead, |control| queue.controls.push_back((number, control)))
            }
            None => entry.relay.tell(&said, ahead, |_| {}),
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

    /// The way to the other host is gone: programs are told.
    pub fn lose_streams(&mut self, lost: Vec<(u32, u32)>) {
        for (channel, slot) in lost {
            let Some(entry) = self.port_slot(channel, slot) else { continue };
            entry.link = None;
            // Of a stream that was being opened the program knows nothing.
            entry.here_closed |= !entry.told;
            if entry.there_closed {
                // Everything has come, and nobody reads any more: the end is told as it was.
                self.finish_of(channel, slot);
                self.end_if_over(channel, slot);
                continue;
            }
            entry.lost = true;
            let over = entry.here_closed;
            self.publish_to(channel);
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
        let (now, host) = (self.clock.now, self.channels[channel as usize].host);
        self.hosts[host as usize].dropped = true;
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
        // After that, for which they wait.
        for held in &port.overflow {
            if !self.withhold(held.origin.0, held.origin.1) {
                self.hand_over(held.origin);
            }
        }
        self.free_channel_if_over(channel);
    }

    /// The agent's side of a channel ends: the program finds it lost.
    pub fn take_port(&mut self, channel: u32) -> Option<crate::port::Port> {
        self.lose_channel(channel);
        self.channels[channel as usize].port.take()
    }

    /// A program finds its agent gone.
    pub fn lose_channel(&mut self, channel: u32) {
        let known = &mut self.channels[channel as usize];
        known.lost = true;
        let owners: Vec<(u32, usize)> = known.owners.iter().filter_map(|owners| owners[0]).collect();
        for (stream, end) in owners {
            let delay = 1 + self.rng.below(2_000);
            self.wake(stream, end, delay);
        }
    }

    /// A program has ended: what it has sent is passed on, and then the end of its streams.
    pub fn program_ended(&mut self, channel: u32) {
        self.publish(self.channels[channel as usize].host);
        if self.drop_if_given_up(channel) {
            return;
        }
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
        self.publish(host);
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
}
