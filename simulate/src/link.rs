//! Links between agents: batches are built, written into the other's ring, lost, delayed, reported twice, and taken. After
//! `agent/src/daemon/{transmit,receive,large,hosts}.rs`; a rail places writes in order, or in any.

use crate::channel::Payload;
use crate::clock::Event;
use crate::plan::ANSWERS;
use crate::port::LinkEnd;
use crate::world::World;
use convoy_aggregator::batch::{Control, HEAD_BYTES, Head, Record, Records};
use convoy_aggregator::gather::Thresholds;
use convoy_aggregator::link::UNIT;
use convoy_aggregator::queue::Queue;

/// Bytes of a place for a large payload.
const PLACE_BYTES: usize = 16 << 10;
/// Large payloads on their way, and those posted in one turn.
const MOST_WRITES: usize = 16;
const PER_TURN: usize = 4;
/// Writes that a turn may post, beside those on their way.
const RESERVE: usize = 8;
/// How long a batch may go unanswered.
const SILENCE_US: u64 = 4_000_000;
/// After so long, or twice as long, a rail gives up to repeat a write.
const REPORT_AFTER: u64 = 6_000_000;
const BETWEEN_PROPOSALS: u64 = 1_000_000;

/// One end.
pub struct Side {
    pub queue: Queue<Payload>,
    /// The ring, and the places for large payloads, into which the other end writes.
    pub ring: Vec<u8>,
    pub places: Vec<u8>,
    /// Large payloads that are on their way.
    pub writing: usize,
    /// Nothing lands before this, on a rail that keeps order.
    last_landing: u64,
}

/// A link between two hosts over a rail.
pub struct Link {
    pub hosts: [u32; 2],
    pub rail: u8,
    /// Counted up each time it is made.
    pub token: u32,
    pub sides: [Option<Box<Side>>; 2],
    pub retry_at: u64,
    /// A write was lost on a rail that keeps order: none lands after it.
    broken: bool,
    /// Its ends are going to be told of a write that was lost.
    reported: bool,
}

impl Link {
    /// Which side a host is.
    pub fn side_of(&self, host: u32) -> usize {
        usize::from(self.hosts[0] != host)
    }

    /// Nothing lands any more.
    pub fn cut(&mut self) {
        self.broken = true;
    }

    /// What one end has to send.
    pub fn queue(&mut self, side: usize) -> Option<&mut Queue<Payload>> {
        self.sides[side].as_mut().map(|side| &mut side.queue)
    }

    /// The same, if the link is still the one that was meant.
    pub fn queue_of(&mut self, side: usize, token: u32) -> Option<&mut Queue<Payload>> {
        if self.token == token { self.queue(side) } else { None }
    }

    /// Whether a stream number is free at one end.
    pub fn is_free(&mut self, side: usize, number: u32) -> bool {
        self.queue(side).is_some_and(|queue| queue.stream(number).is_none())
    }

    /// Channel and slot of a stream at one end.
    pub fn slot_of(&mut self, side: usize, token: u32, number: u32) -> Option<(u32, u32)> {
        let stream = self.queue_of(side, token)?.stream(number)?;
        Some((stream.program as u32, stream.slot))
    }
}

/// A write on its way.
pub struct Flight {
    link: u32,
    side: usize,
    token: u32,
    offset: usize,
    /// Into a place instead of the ring.
    beside: bool,
    /// Reported to the receiver when it has landed.
    immediate: Option<u32>,
    bytes: Vec<u8>,
}

impl World {
    /// A link between two hosts that is up; one is made if need be and possible.
    pub fn link_between(&mut self, one: u32, two: u32) -> Option<u32> {
        let (low, high) = (one.min(two), one.max(two));
        let first = self.rng.below(u64::from(self.plan.rails)) as u8;
        for step in 0..self.plan.rails {
            let rail = (first + step) % self.plan.rails;
            let up = [low, high].iter().all(|host| self.hosts[*host as usize].rails[rail as usize]);
            if !up {
                continue;
            }
            let index = self.link_at(low, high, rail);
            let link = &self.links[index as usize];
            match &link.sides {
                [Some(_), Some(_)] => return Some(index),
                [None, None] if self.clock.now >= link.retry_at => {
                    self.make_link(index);
                    return Some(index);
                }
                _ => {}
            }
        }
        None
    }

    fn link_at(&mut self, low: u32, high: u32, rail: u8) -> u32 {
        if let Some(index) = self.link_of.get(&(low, high, rail)) {
            return *index;
        }
        let index = self.links.len() as u32;
        let sides = [None, None];
        self.links.push(Link {
            hosts: [low, high],
            rail,
            token: 0,
            sides,
            retry_at: 0,
            broken: false,
            reported: false,
        });
        self.link_of.insert((low, high, rail), index);
        self.hosts[low as usize].linked.push(index);
        if high != low {
            self.hosts[high as usize].linked.push(index);
        }
        index
    }

    fn make_link(&mut self, index: u32) {
        let plan = &self.plan;
        let thresholds = Thresholds { delay_us: plan.delay_us, ..Thresholds::default() };
        let side = |odd: bool| {
            let mut queue = Queue::new(plan.link_bytes, odd, thresholds);
            queue.set_places(plan.places);
            let places = vec![0; plan.places as usize * PLACE_BYTES];
            Some(Box::new(Side {
                queue,
                ring: vec![0; plan.link_bytes as usize],
                places,
                writing: 0,
                last_landing: 0,
            }))
        };
        let sides = [side(false), side(true)];
        let link = &mut self.links[index as usize];
        link.token += 1;
        link.sides = sides;
        (link.broken, link.reported) = (false, false);
        self.report.most.links = self.report.most.links.max(self.links.len() as u64);
    }

    /// A link end has something to look at.
    pub fn mark_busy(&mut self, link: Option<LinkEnd>) {
        let Some((link, side, _)) = link else { return };
        let host = self.links[link as usize].hosts[side];
        let busy = &mut self.hosts[host as usize].busy;
        if busy.last() != Some(&(link, side)) {
            busy.push((link, side));
        }
        self.plan_turn(host, 1);
    }

    /// Lets batches leave that are due, and answers.
    pub fn transmit(&mut self, host: u32) {
        let now = self.clock.now;
        let mut busy = std::mem::take(&mut self.hosts[host as usize].busy);
        busy.sort_unstable();
        busy.dedup();
        for (link, side) in busy {
            while self.transmit_one(link, side, false) {}
            let answer = self.links[link as usize].queue(side).and_then(|queue| queue.owes.due());
            if answer.is_some_and(|due| due <= now) {
                self.transmit_one(link, side, true);
            }
            let Some(queue) = self.links[link as usize].queue(side) else { continue };
            let next =
                queue.poll_timeout().into_iter().chain(queue.owes.due()).filter(|due| *due > now).min();
            if let Some(next) = next {
                self.hosts[host as usize].busy.push((link, side));
                self.plan_turn(host, next - now);
            }
        }
        for (channel, slot) in std::mem::take(&mut self.hosts[host as usize].ending) {
            self.end_if_over(channel, slot);
        }
    }

    fn transmit_one(&mut self, link: u32, side: usize, answer: bool) -> bool {
        let now = self.clock.now;
        let (batch_bytes, depth) = (self.plan.batch_bytes, self.plan.depth);
        let Some(known) = self.links[link as usize].sides[side].as_mut() else { return false };
        let queue = &mut known.queue;
        let untold = queue.must_answer();
        let wanted = queue.has_pending() && queue.is_due(now) || answer || untold;
        let large = queue.may_write_large() && known.writing < MOST_WRITES;
        if !(wanted || large) {
            return false;
        }
        let batches = usize::from(wanted) + usize::from(large);
        if queue.send.in_flight() + known.writing + RESERVE >= depth
            || !queue.send.has_room(batch_bytes * batches + ANSWERS)
        {
            // Both sides may be full: an answer has room of its own.
            let room = queue.send.in_flight() + known.writing < depth && queue.send.has_room(HEAD_BYTES);
            return (answer || untold) && room && self.send_batch(link, side, HEAD_BYTES);
        }
        if wanted {
            self.send_batch(link, side, batch_bytes);
        }
        if large {
            (0..PER_TURN).for_each(|_| self.write_large(link, side));
            self.send_batch(link, side, batch_bytes);
        }
        true
    }

    /// Builds a batch of at most so many bytes and writes it.
    fn send_batch(&mut self, link: u32, side: usize, most: usize) -> bool {
        let now = self.clock.now;
        let mut room = std::mem::take(&mut self.scratch);
        room.clear();
        room.resize(most, 0);
        let channels = &self.channels;
        let Some(known) = self.links[link as usize].sides[side].as_mut() else { return false };
        let built = known.queue.build(&mut room, now, |channel, payload: &Payload, from, into| {
            let frame = channels[channel].lanes[0].get(payload.frame);
            if let Some(part) =
                frame.and_then(|frame| frame.bytes.get(from as usize..from as usize + into.len()))
            {
                into.copy_from_slice(part);
            }
        });
        let (place, length) = (built.place, built.length);
        known.queue.on_sent(built);
        self.report.batches += 1;
        match place {
            Some(place) => {
                self.lie_in_batch(link, side, &mut room[..length]);
                self.post(link, side, place.offset as usize, Some(place.immediate), &room[..length]);
            }
            None => self.broken_link(link, "a batch has room when there was room", format!("{length} bytes")),
        }
        self.scratch = room;
        place.is_some()
    }

    /// Writes the next large payload into a place of the other end.
    fn write_large(&mut self, link: u32, side: usize) {
        let Some(known) = self.links[link as usize].sides[side].as_mut() else { return };
        if !known.queue.may_write_large() || known.writing >= MOST_WRITES {
            return;
        }
        let Some((number, channel, payload)) = known.queue.next_large() else { return };
        let Some(place) = known.queue.take_place() else { return known.queue.put_back_large(number, None) };
        let Some(bytes) = self.channels[channel].lanes[0].get(payload.frame).map(|frame| frame.bytes.clone())
        else {
            return known.queue.put_back_large(number, Some(place));
        };
        known.queue.note_placed(number, place);
        known.writing += 1;
        self.post(link, side, place as usize * PLACE_BYTES, None, &bytes);
    }

    /// Puts a write on its way, unless it is lost.
    pub fn post(&mut self, link: u32, side: usize, offset: usize, immediate: Option<u32>, bytes: &[u8]) {
        let ordered = self.plan.is_ordered();
        let known = &mut self.links[link as usize];
        let rail = known.rail as usize;
        let [one, two] = known.hosts;
        let up = self.hosts[one as usize].rails[rail] && self.hosts[two as usize].rails[rail];
        let lost = !self.calm && self.rng.once_in(self.plan.loss);
        if lost {
            self.report.fault("writes lost");
        }
        let known = &mut self.links[link as usize];
        known.broken |= lost && ordered;
        let token = known.token;
        if immediate.is_none() {
            let delay = self.plan.flight;
            self.clock.after(delay, Event::Written { link, side: side as u8, token });
        }
        if !up || lost || known.broken {
            return self.report_loss(link);
        }
        let delay = self.plan.flight + self.rng.below(self.plan.jitter + 1);
        let Some(sender) = &mut known.sides[side] else { return };
        let at =
            if ordered { (self.clock.now + delay).max(sender.last_landing) } else { self.clock.now + delay };
        sender.last_landing = at;
        let flight = Flight {
            link,
            side: 1 - side,
            token,
            offset,
            beside: immediate.is_none(),
            immediate,
            bytes: bytes.to_vec(),
        };
        let index = self.free_flights.pop().unwrap_or(self.flights.len() as u32);
        match self.flights.get_mut(index as usize) {
            Some(place) => *place = Some(flight),
            None => self.flights.push(Some(flight)),
        }
        let delay = at - self.clock.now;
        self.clock.after(delay, Event::Land { flight: index });
    }

    /// A rail tells of a write that did not arrive, late: mostly its absence is noticed before.
    fn report_loss(&mut self, link: u32) {
        let known = &mut self.links[link as usize];
        if std::mem::replace(&mut known.reported, true) {
            return;
        }
        let token = known.token;
        for side in [0, 1] {
            let delay = REPORT_AFTER + self.rng.below(REPORT_AFTER);
            self.clock.after(delay, Event::Down { link, side, token });
        }
    }

    /// A write lands.
    pub fn land(&mut self, index: u32) {
        let Some(flight) = self.flights[index as usize].take() else { return };
        self.free_flights.push(index);
        let Flight { link, side, token, offset, beside, immediate, bytes } = flight;
        let known = &mut self.links[link as usize];
        let Some(target) = known.sides[side].as_mut().filter(|_| known.token == token) else { return };
        let memory = if beside { &mut target.places } else { &mut target.ring };
        let Some(room) = memory.get_mut(offset..offset + bytes.len()) else {
            return self.broken_link(
                link,
                "writes stay inside of the ring",
                format!("{offset} + {}", bytes.len()),
            );
        };
        room.copy_from_slice(&bytes);
        let Some(immediate) = immediate else { return };
        let event = Event::Complete { link, side: side as u8, token, immediate };
        let delay = if self.plan.is_ordered() { 0 } else { self.rng.below(self.plan.jitter + 1) };
        self.clock.after(delay, event);
        if self.rng.once_in(self.plan.twice) {
            // Again before the sender can know that its place is free.
            self.report.fault("completions twice");
            self.clock.after(delay + self.rng.below(self.plan.flight), event);
        }
    }

    /// A large payload has left.
    pub fn written(&mut self, link: u32, side: usize, token: u32) {
        let known = &mut self.links[link as usize];
        if let Some(side) = known.sides[side].as_mut().filter(|_| known.token == token) {
            side.writing = side.writing.saturating_sub(1);
        }
        self.mark_busy(Some((link, side, token)));
    }

    /// A batch is complete in the ring, at that many units from its start.
    pub fn complete(&mut self, link: u32, side: usize, token: u32, immediate: u32) {
        let known = &self.links[link as usize];
        if known.token != token || known.sides[side].is_none() {
            return;
        }
        if let Err(reason) = self.take_batches(link, side, immediate) {
            self.link_lied(link, &reason);
            self.lose_link(link, side);
        }
        self.mark_busy(Some((link, side, token)));
    }

    fn take_batches(&mut self, link: u32, side: usize, immediate: u32) -> Result<(), String> {
        let head = self.read_head(link, side, immediate)?;
        let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
        queue.receive.arrived(head.sequence, immediate).map_err(|error| error.to_string())?;
        while let Some((sequence, place)) =
            self.links[link as usize].queue(side).and_then(|queue| queue.receive.next_batch())
        {
            self.take_batch(link, side, sequence, place)?;
        }
        Ok(())
    }

    fn read_head(&self, link: u32, side: usize, place: u32) -> Result<Head, String> {
        let offset = place as usize * UNIT as usize;
        let ring = self.links[link as usize].sides[side].as_ref().map(|side| side.ring.as_slice());
        let head = ring.and_then(|ring| ring.get(offset..offset + HEAD_BYTES)).and_then(Head::read);
        head.ok_or_else(|| "a batch outside of the ring".into())
    }

    fn take_batch(&mut self, link: u32, side: usize, sequence: u32, place: u32) -> Result<(), String> {
        let head = self.read_head(link, side, place)?;
        let length = head.length as usize;
        if head.sequence != sequence || !(HEAD_BYTES..=self.plan.batch_bytes).contains(&length) {
            return Err("a batch that was changed".into());
        }
        let offset = place as usize * UNIT as usize;
        let ring = self.links[link as usize].sides[side].as_ref().map(|side| side.ring.as_slice());
        let batch =
            ring.and_then(|ring| ring.get(offset..offset + length)).ok_or("a batch outside of the ring")?;
        let batch = batch.to_vec();
        self.take_cursors(link, side, &head)?;
        self.take_records(link, side, sequence, &batch)
    }

    fn take_cursors(&mut self, link: u32, side: usize, head: &Head) -> Result<(), String> {
        let mut done = Vec::new();
        let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
        queue.on_head(head, |sequence| done.push(sequence)).map_err(|error| error.to_string())?;
        done.into_iter().for_each(|sequence| self.finish_batch(link, side, sequence));
        let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
        queue.forget_before(head.delivered);
        while let Some((number, switch)) =
            self.links[link as usize].queue(side).and_then(|queue| queue.next_heard(head.consumed))
        {
            let token = self.links[link as usize].token;
            let Some((channel, slot)) = self.links[link as usize].slot_of(side, token, number) else {
                continue;
            };
            self.channels[channel as usize].lines[slot as usize][1].heard = switch;
            self.touch(channel, slot);
        }
        Ok(())
    }

    /// The frames of a batch are with the other host's programs.
    fn finish_batch(&mut self, link: u32, side: usize, sequence: u32) {
        let Some(queue) = self.links[link as usize].queue(side) else { return };
        let frames = queue.take_sent(sequence);
        for (channel, frame) in &frames {
            self.channels[*channel].lanes[0].finish(*frame);
        }
        queue.return_list(frames);
    }

    fn take_records(&mut self, link: u32, side: usize, sequence: u32, batch: &[u8]) -> Result<(), String> {
        let now = self.clock.now;
        let mut held = 0;
        let (mut any, mut awaited) = (false, false);
        for record in Records::new(batch) {
            any = true;
            awaited |= !matches!(record, Ok(Record::Data { .. }));
            match record.map_err(|error| error.to_string())? {
                Record::Data { stream, bytes } => {
                    held += u32::from(!self.take_data(link, side, sequence, stream, bytes)?);
                }
                Record::Control { stream, control } => self.take_control(link, side, stream, control),
                Record::Delivered(sequence) => {
                    let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
                    if queue.send.on_early(sequence).map_err(|error| error.to_string())? {
                        self.finish_batch(link, side, sequence);
                    }
                }
                Record::Block { stream, length, place } => {
                    let from = place as usize * PLACE_BYTES;
                    let known = self.links[link as usize].sides[side].as_ref();
                    let inside = length as usize <= PLACE_BYTES;
                    let bytes = known
                        .filter(|_| inside)
                        .and_then(|side| side.places.get(from..from + length as usize));
                    let bytes = bytes.ok_or("a payload in a place that there is not")?.to_vec();
                    held += u32::from(!self.take_data(link, side, sequence, stream, &bytes)?);
                }
            }
        }
        if let Some(queue) = self.links[link as usize].queue(side) {
            queue.on_records(sequence, any, awaited, held, now);
        }
        Ok(())
    }

    /// Bytes for a program: false when they wait for room.
    fn take_data(
        &mut self,
        link: u32,
        side: usize,
        sequence: u32,
        number: u32,
        bytes: &[u8],
    ) -> Result<bool, String> {
        let token = self.links[link as usize].token;
        let Some((channel, slot)) = self.links[link as usize].slot_of(side, token, number) else {
            return Ok(true);
        };
        let given = self.give(channel, slot, bytes, ((link, side, token), sequence));
        given.ok_or_else(|| "more bytes than credit".into())
    }

    fn take_control(&mut self, link: u32, side: usize, number: u32, control: Control) {
        let now = self.clock.now;
        let token = self.links[link as usize].token;
        let Some((channel, slot)) = self.links[link as usize].slot_of(side, token, number) else { return };
        match control {
            Control::Closed => self.close_there(channel, slot),
            Control::Lost => {
                self.links[link as usize]
                    .queue(side)
                    .into_iter()
                    .for_each(|queue| queue.leave_for_long(number, now));
                self.lose_streams(vec![(channel, slot)]);
            }
            _ => {
                if let Err(reason) = self.hear(channel, slot, control) {
                    // Its own agent should have seen that: this stream is given up, the link goes on.
                    self.stream_lied(channel, slot, reason);
                    self.links[link as usize]
                        .queue(side)
                        .into_iter()
                        .for_each(|queue| queue.abandon(number, now));
                    self.lose_streams(vec![(channel, slot)]);
                }
            }
        }
    }

    /// A link cannot be used any more at one end: its streams return to the kernel. The other end hears of it.
    pub fn lose_link(&mut self, link: u32, side: usize) {
        let known = &mut self.links[link as usize];
        let Some(lost) = known.sides[side].take() else { return };
        known.retry_at = self.clock.now + BETWEEN_PROPOSALS;
        let token = known.token;
        lost.queue.unsettled().for_each(|(channel, frame)| self.finish_ended(channel, frame));
        let streams = lost.queue.streams().map(|stream| (stream.program as u32, stream.slot)).collect();
        self.lose_streams(streams);
        let delay = self.rng.skewed(2_000_000);
        self.clock.after(delay, Event::Down { link, side: 1 - side as u8, token });
    }

    /// An end is gone with its agent.
    pub fn abandon_link(&mut self, link: u32, side: usize) {
        let known = &mut self.links[link as usize];
        if known.sides[side].take().is_none() {
            return;
        }
        known.retry_at = self.clock.now + BETWEEN_PROPOSALS;
        let token = known.token;
        let delay = self.rng.skewed(2_000_000);
        self.clock.after(delay, Event::Down { link, side: 1 - side as u8, token });
    }

    /// One end hears that the other has ended.
    pub fn hear_down(&mut self, link: u32, side: usize, token: u32) {
        if self.links[link as usize].token == token {
            self.lose_link(link, side);
        }
    }

    /// Gives up links whose other end does not answer.
    pub fn look_for_silence(&mut self, host: u32) {
        let now = self.clock.now;
        for link in self.hosts[host as usize].linked.clone() {
            let side = self.links[link as usize].side_of(host);
            let queue = self.links[link as usize].queue(side);
            if queue.is_some_and(|queue| queue.is_silent(now, SILENCE_US)) {
                self.report.fault("links silent");
                self.lose_link(link, side);
            }
        }
    }
}
