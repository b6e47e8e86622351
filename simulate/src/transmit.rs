//! An agent builds batches and writes them and large payloads into the rings of others; some are lost, late or reported twice.
//! After `agent/src/daemon/{transmit,large}.rs`.

use crate::channel::Payload;
use crate::clock::Event;
use crate::link::{Flight, PLACE_BYTES};
use crate::plan::ANSWERS;
use crate::port::LinkEnd;
use crate::world::World;
use convoy_aggregator::batch::HEAD_BYTES;

/// Large payloads on their way, and those posted in one turn.
const MOST_WRITES: usize = 16;
const PER_TURN: usize = 4;
/// Writes that a turn may post, beside those on their way.
const RESERVE: usize = 8;
/// After so long, or twice as long, a rail gives up to repeat a write.
const REPORT_AFTER: u64 = 6_000_000;

impl World {
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
                self.occupy(link, 1 - side, place.sequence, place.offset as usize, length);
                self.lie_in_batch(link, side, &mut room[..length]);
                self.post(link, side, place.offset as usize, Some(place.immediate), &room[..length]);
            }
            None => self.broken_link(link, "a batch has room when there was room", format!("{length} bytes")),
        }
        self.scratch = room;
        place.is_some()
    }

    /// A batch is going to be in the ring of an end, where no other may be that was not taken.
    fn occupy(&mut self, link: u32, side: usize, sequence: u32, start: usize, length: usize) {
        let Some(known) = &mut self.links[link as usize].sides[side] else { return };
        let end = start + length;
        let other = known.written.iter().copied().find(|(_, from, to)| start < *to && *from < end);
        known.written.push_back((sequence, start, end));
        if let Some(other) = other {
            let what = format!("batch {sequence} at {start}..{end}, where {other:?} is");
            self.broken_link(link, "a place of a ring is free when it is given away", what);
        }
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
}
