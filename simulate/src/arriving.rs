//! Writes land in the ring of an end, and its agent takes the batches apart. After `agent/src/daemon/receive.rs`.

use crate::clock::Event;
use crate::link::{Flight, PLACE_BYTES};
use crate::slots::Refused;
use crate::world::World;
use convoy_aggregator::batch::{Control, HEAD_BYTES, Head, Record, Records};
use convoy_aggregator::link::UNIT;

/// How much later a completion may be reported once more, in microseconds.
const LATE: u64 = 100_000;

impl World {
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
            // Now and then when another batch has its place.
            self.report.fault("completions twice");
            let late = if self.rng.once_in(4) { LATE } else { self.plan.flight };
            self.clock.after(delay + self.rng.below(late), event);
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

    /// A batch is complete in the ring; `immediate` says which and where.
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
        let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
        queue.receive.arrived(immediate);
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
        if let Some(known) = &mut self.links[link as usize].sides[side] {
            known.written.retain(|(written, ..)| *written != sequence);
        }
        self.take_cursors(link, side, &head)?;
        self.take_records(link, side, sequence, &batch)
    }

    fn take_cursors(&mut self, link: u32, side: usize, head: &Head) -> Result<(), String> {
        let mut done = Vec::new();
        let Some(queue) = self.links[link as usize].queue(side) else { return Ok(()) };
        queue.on_head(head, |sequence| done.push(sequence)).map_err(|error| error.to_string())?;
        done.into_iter().for_each(|sequence| self.finish_batch(link, side, sequence));
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
            self.delivered(*channel, *frame);
        }
        if let Some(queue) = self.links[link as usize].queue(side) {
            queue.return_list(frames);
        }
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
            // One part more: what it has brought is to be published first.
            queue.on_records(sequence, any, awaited, held + u32::from(any), now);
            if any {
                let token = self.links[link as usize].token;
                self.note_unpublished((link, side, token), sequence);
            }
        }
        Ok(())
    }

    /// Bytes for a program: false when they wait, for room or for the news that nobody gets them.
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
            return Ok(!self.withhold((link, side, token), sequence));
        };
        match self.give(channel, slot, bytes, ((link, side, token), sequence)) {
            Ok(at_once) => Ok(at_once),
            Err(Refused::Credit) => Err("more bytes than credit".into()),
            Err(Refused::GaveUp) => {
                self.drop_program(channel);
                Ok(!self.withhold((link, side, token), sequence))
            }
        }
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
}
