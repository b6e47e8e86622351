//! Streams are opened, their ends meet on a channel, and channels come and go. After `runtime/src/promote.rs` and
//! `agent/src/daemon/broker.rs`; offers and policy are left out: two ends that both want to leave the kernel are found at once.

use crate::channel::{Channel, Line, Place, READY, SlotState};
use crate::clock::Event;
use crate::port::{LinkEnd, Port, Slot};
use crate::stream::{Recovery, Stream};
use crate::world::World;
use convoy_aggregator::stream::{ReceiveHalf, SendHalf};

/// Calls on a connection before it may leave the kernel.
const PROMOTE_AFTER: u32 = 2;
/// Between the two agents.
const CONTROL_DELAY: u64 = 400;

impl World {
    /// New streams are opened, and the next ones planned.
    pub fn arrive(&mut self) {
        if self.opened >= self.plan.streams || self.calm {
            return;
        }
        if (self.opened_streams() as u64) < self.plan.most_open {
            self.open_stream();
        }
        let delay = self.rng.between(1, self.plan.arrivals_every * 2);
        self.clock.after(delay, Event::Arrivals);
    }

    fn open_stream(&mut self) {
        let one = self.rng.below(self.programs.len() as u64) as u32;
        let host = self.programs[one as usize].host;
        let mut other_host = self.rng.pick(&self.hosts[host as usize].partners.clone());
        if self.rng.once_in(5) {
            other_host = host;
        }
        let per_host = u64::from(self.plan.programs_per_host);
        let two = other_host * self.plan.programs_per_host + self.rng.below(per_host) as u32;
        if one == two {
            return;
        }
        let totals = [self.total(), self.total()];
        let index = self.free_streams.pop().unwrap_or(self.streams.len() as u32);
        let epoch = self.streams.get(index as usize).map_or(0, |known| known.epoch);
        let mut stream = Stream::new(self.opened, epoch, [one, two], totals, host == other_host);
        let lies = |program: u32| self.programs[program as usize].liar;
        stream.tainted =
            lies(one) || lies(two) || self.hosts[host as usize].liar || self.hosts[other_host as usize].liar;
        match self.streams.get_mut(index as usize) {
            Some(place) => *place = stream,
            None => self.streams.push(stream),
        }
        self.opened += 1;
        self.report.streams += 1;
        self.report.most.streams = self.report.most.streams.max(self.opened_streams() as u64);
        for (e, program) in [one, two].into_iter().enumerate() {
            self.programs[program as usize].streams.insert(index);
            let delay = self.rng.below(200);
            self.wake(index, e, delay);
        }
        self.note(index, || format!("opened between programs {one} and {two}, {totals:?} bytes"));
    }

    /// How many bytes an end is to send: few, or about as many as there may be.
    fn total(&mut self) -> u64 {
        let most = self.plan.bytes;
        if self.rng.once_in(4) { self.rng.skewed(most) } else { self.rng.between(most / 2, most) }
    }

    /// Lets both ends leave the kernel if they want to and there is a way.
    pub fn consider_joining(&mut self, index: u32) {
        let stream = &self.streams[index as usize];
        let wants = |e: usize| {
            let end = &stream.ends[e];
            let free = match (end.at, end.recovery) {
                (None, _) => true,
                (Some(_), Recovery::Done | Recovery::Quiet) => end.queue.is_empty(),
                _ => false,
            };
            free && !end.closed && end.calls >= PROMOTE_AFTER && !end.finished && end.ended.is_none()
        };
        if stream.joining
            || self.calm
            || !(wants(0) && wants(1))
            || stream.wires.iter().any(|wire| wire.is_marked())
        {
            return;
        }
        if stream.local { self.join_pair(index) } else { self.open(index) }
    }

    fn join_pair(&mut self, index: u32) {
        let programs = [0, 1].map(|e| self.streams[index as usize].ends[e].program);
        let key = (programs[0].min(programs[1]), programs[0].max(programs[1]));
        let known = self.pairs.get(&key).copied();
        let channel = known.filter(|channel| !self.channels[*channel as usize].lost).unwrap_or_else(|| {
            let host = self.programs[key.0 as usize].host;
            let channel = self.new_channel(host, [Some(key.0), Some(key.1)]);
            self.pairs.insert(key, channel);
            channel
        });
        let (slot, generation) = self.channels[channel as usize].open_slot();
        let life = self.channels[channel as usize].life;
        for e in [0, 1] {
            let side = usize::from(programs[e] != key.0);
            let epoch = self.streams[index as usize].epoch;
            self.channels[channel as usize].lines[slot as usize][side].state = SlotState::Open;
            self.attach(index, e, epoch, Place { channel, life, side, slot, generation });
        }
    }

    /// The agent of the lower host opens a stream for both.
    fn open(&mut self, index: u32) {
        let programs = [0, 1].map(|e| self.streams[index as usize].ends[e].program);
        let hosts = programs.map(|program| self.programs[program as usize].host);
        let opener = usize::from(hosts[1] < hosts[0]);
        if programs.iter().any(|program| self.channel_to_agent(*program).is_none()) {
            return;
        }
        self.publish(hosts[opener]);
        let Some(link) = self.link_between(hosts[0], hosts[1]) else { return };
        let Some(channel) = self.channel_to_agent(programs[opener]) else { return };
        let now = self.clock.now;
        let known = &mut self.links[link as usize];
        let (side, token) = (known.side_of(hosts[opener]), known.token);
        let Some(queue) = known.queue(side) else { return };
        let Some(number) = queue.next_stream(now) else { return };
        let (slot, generation) = self.enter(index, opener, channel, (link, side, token), number, true);
        let stream = &mut self.streams[index as usize];
        stream.joining = true;
        let epoch = stream.epoch;
        self.note(index, || {
            format!("stream {number} of link {link} is opened for it, slot {slot}/{generation}")
        });
        let delay = CONTROL_DELAY + self.rng.below(CONTROL_DELAY);
        self.clock.after(delay, Event::Open { stream: index, epoch, link, token, number });
    }

    /// Enters a stream at an agent, on the channel of a program.
    fn enter(
        &mut self,
        index: u32,
        e: usize,
        channel: u32,
        (link, side, token): LinkEnd,
        number: u32,
        ours: bool,
    ) -> (u32, u8) {
        let known = &mut self.channels[channel as usize];
        let (slot, generation) = known.open_slot();
        known.lines[slot as usize] = [Line { state: SlotState::Open, ..Line::default() }; 2];
        if let Some(port) = &mut known.port {
            port.enter(slot, Slot::new(generation, (link, side, token), number));
        }
        let entered = self.links[link as usize]
            .queue(side)
            .is_some_and(|queue| queue.enter(number, channel as usize, slot, ours));
        let tainted = self.streams[index as usize].tainted;
        if !entered && !tainted {
            self.broken(index, "a stream number is free when it is handed out", format!("end {e}: {number}"));
        }
        (slot, generation)
    }

    /// The other agent, that of the higher host, opens its end, and answers.
    pub fn on_open(&mut self, index: u32, epoch: u32, link: u32, token: u32, number: u32) {
        self.publish(self.links[link as usize].hosts[1]);
        let agreed = self.agree(index, epoch, (link, 1, token), number);
        let delay = CONTROL_DELAY + self.rng.below(CONTROL_DELAY);
        self.clock.after(delay, Event::Opened { stream: index, epoch, link, token, number, agreed });
    }

    fn agree(&mut self, index: u32, epoch: u32, at: LinkEnd, number: u32) -> bool {
        let (link, side, token) = at;
        let host = self.links[link as usize].hosts[side];
        let known = &mut self.links[link as usize];
        if known.token != token || !known.is_free(side, number) {
            return false;
        }
        let Some(stream) = self.stream(index, epoch) else { return false };
        let programs = [stream.ends[0].program, stream.ends[1].program];
        let e = usize::from(self.programs[programs[0] as usize].host != host);
        if self.streams[index as usize].ends[e].closed {
            return false;
        }
        let Some(channel) = self.channel_to_agent(programs[e]) else { return false };
        let (slot, generation) = self.enter(index, e, channel, at, number, false);
        let life = self.channels[channel as usize].life;
        self.plan_attach((index, e, epoch), (channel, life, slot, generation));
        true
    }

    /// The agent that has opened the stream hears whether the other agrees.
    pub fn on_opened(&mut self, index: u32, epoch: u32, at: (u32, u32, u32), agreed: bool) {
        let (link, token, number) = at;
        self.publish(self.links[link as usize].hosts[0]);
        let mut e = 0;
        if let Some(stream) = self.stream(index, epoch) {
            stream.joining = false;
            let hosts =
                [0, 1].map(|e| stream.ends[e].program).map(|program| self.programs[program as usize].host);
            e = usize::from(hosts[1] < hosts[0]);
        }
        let Some((channel, slot)) = self.links[link as usize].slot_of(0, token, number) else {
            // What the other was told of the end came before it knew the stream.
            if let Some(queue) = self.links[link as usize].queue_of(0, token).filter(|_| agreed) {
                queue.disown(number);
                self.mark_busy(Some((link, 0, token)));
            }
            return;
        };
        let known = &self.channels[channel as usize];
        let (life, generation) = (known.life, known.generations[slot as usize]);
        if let Some(queue) = self.links[link as usize].queue_of(0, token).filter(|_| agreed) {
            queue.close_again(number);
            self.mark_busy(Some((link, 0, token)));
        }
        match agreed {
            true => self.plan_attach((index, e, epoch), (channel, life, slot, generation)),
            false => self.refuse(channel, slot),
        }
    }

    fn plan_attach(&mut self, (index, e, epoch): (u32, usize, u32), at: (u32, u32, u32, u8)) {
        let (channel, life, slot, generation) = at;
        if let Some(slot) = self.port_slot(channel, slot) {
            slot.told = true;
        }
        let delay = 1 + self.rng.below(2_000);
        let event = Event::Attach { stream: index, end: e as u8, epoch, channel, life, slot, generation };
        self.clock.after(delay, event);
    }

    /// A program learns that its end is on a channel: from now on it follows the other end's switches.
    pub fn attach(&mut self, index: u32, e: usize, epoch: u32, place: Place) {
        let known = &self.channels[place.channel as usize];
        if known.life != place.life || known.generations.get(place.slot as usize) != Some(&place.generation) {
            return;
        }
        let usable = self.stream(index, epoch).is_some_and(|stream| {
            let end = &stream.ends[e];
            let free = end.at.is_none() || matches!(end.recovery, Recovery::Done | Recovery::Quiet);
            free && end.queue.is_empty() && !end.closed && !end.finished && end.ended.is_none()
        });
        if !usable || self.is_lost(place) {
            // The program does not want it any more.
            self.own_line(place).state = SlotState::Closed;
            return self.changed(place);
        }
        self.leave_place(index, e);
        let window = self.plan.window;
        let stream = &mut self.streams[index as usize];
        let (kernel_sent, kernel_read) = (stream.wires[e].totals().0, stream.wires[1 - e].totals().1);
        let end = &mut stream.ends[e];
        end.at = Some(place);
        end.send = SendHalf::default();
        end.receive = ReceiveHalf::new(window);
        (end.kernel_sent, end.kernel_read) = (kernel_sent, kernel_read);
        (end.stay, end.recalled, end.recovery) = (false, false, Recovery::None);
        (end.window, end.arrived) = (window, 0);
        let limit = end.receive.grant_now();
        let known = &mut self.channels[place.channel as usize];
        known.owners[place.slot as usize][place.side] = Some((index, e));
        known.open += 1;
        let line = &mut known.lines[place.slot as usize][place.side];
        *line = Line { state: SlotState::Open, flags: READY, limit, ..Line::default() };
        self.report.joins += 1;
        self.note(index, || format!("end {e} is on channel {}, slot {}", place.channel, place.slot));
        self.changed(place);
        self.wake(index, e, 1);
    }

    /// The channel between a program and its agent, made if need be; nothing without an agent.
    fn channel_to_agent(&mut self, program: u32) -> Option<u32> {
        let known = &self.programs[program as usize];
        let host = known.host;
        if let Some((channel, life)) = known.channel {
            let channel_known = &self.channels[channel as usize];
            if channel_known.life == life && !channel_known.lost {
                return Some(channel);
            }
        }
        if !self.hosts[host as usize].agent {
            return None;
        }
        let channel = self.new_channel(host, [Some(program), None]);
        self.channels[channel as usize].port = Some(Port::default());
        let life = self.channels[channel as usize].life;
        self.programs[program as usize].channel = Some((channel, life));
        self.hosts[host as usize].channels.insert(channel);
        Some(channel)
    }

    fn new_channel(&mut self, host: u32, programs: [Option<u32>; 2]) -> u32 {
        let index = self.free_channels.pop().unwrap_or(self.channels.len() as u32);
        let life = self.channels.get(index as usize).map_or(0, |known| known.life + 1);
        let channel = Channel::new(life, host, programs, self.plan.lane_bytes);
        match self.channels.get_mut(index as usize) {
            Some(place) => *place = channel,
            None => self.channels.push(channel),
        }
        index
    }

    /// Gives a channel's place in the table to others when nobody uses it any more.
    pub fn free_channel_if_over(&mut self, index: u32) {
        let known = &mut self.channels[index as usize];
        if (known.lost || known.retired) && known.open == 0 && known.port.is_none() && !known.over {
            known.over = true;
            known.life += 1;
            let host = known.host;
            self.hosts[host as usize].channels.remove(&index);
            self.free_channels.push(index);
        }
    }
}
