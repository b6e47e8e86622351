//! Large payloads: written beside the batches, from the program's memory into a place of the peer's, so that they never
//! stand in front of small messages and are not copied on the way. A batch that follows names the place.
//!
//! Only where writes are placed in the order in which they are posted: the batch is behind its payload then.

use super::engine::Engine;
use super::link::{Link, PLACE_BYTES, StreamNumber};
use convoy_aggregator::batch::Writer;
use convoy_fabric::{Limits, PostError, RemoteMemory, Source, Write};

/// Payloads from this size on travel that way.
pub(super) const LARGE: u32 = 8 << 10;
/// Writes on their way, and those posted in one turn: what a small message may find in front of it on the wire.
const MOST_WRITES: usize = 16;
const PER_TURN: usize = 4;
/// Marks the context of such a write; the rest is the registration that it uses.
const MARK: u64 = 1 << 63;

/// The registration that a finished write has used, if it was a large payload's.
pub(super) fn registration_of(context: u64) -> Option<u32> {
    (context & MARK != 0).then_some(context as u32)
}

/// Whether a rail can carry payloads beside the batches.
pub(super) fn is_possible(limits: Limits) -> bool {
    limits.ordered && limits.one_sided && limits.write >= PLACE_BYTES
}

impl Engine {
    /// Posts large payloads of a link; to be followed by a batch. The error is the link's end.
    pub(super) fn write_large(&mut self, index: usize) -> Result<(), String> {
        for _ in 0..PER_TURN {
            let Some(link) = self.links[index].as_mut().filter(|link| link.may_write_large()) else { break };
            let Some(number) = link.large.pop_front() else { break };
            self.write_first(index, number)?;
        }
        Ok(())
    }

    /// Posts the first payload of a stream.
    fn write_first(&mut self, index: usize, number: StreamNumber) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        let Some((program, piece)) = link.first_piece(number) else { return Ok(()) };
        let Some(program) = self.programs.get(program).and_then(Option::as_ref) else { return Ok(()) };
        let (Some(port), Some(block)) = (program.port.as_ref(), piece.block) else { return Ok(()) };
        let registered =
            link.beside.then(|| self.registrations.take(&mut self.rails, link.rail, program.serial, port));
        let Some((registration, memory)) = registered.flatten() else {
            // Not tried again for each payload.
            link.beside = false;
            link.send_in_batches(number);
            return Ok(());
        };
        let Some(place) = link.free_places.pop() else {
            self.registrations.done(&mut self.rails, registration);
            link.large.push_front(number);
            return Ok(());
        };
        let length = piece.length as usize;
        let write = Write {
            source: Source::Memory { memory, offset: port.block_offset(block), length },
            target: link.places_there,
            offset: u64::from(place) * PLACE_BYTES as u64,
            immediate: None,
            context: MARK | u64::from(registration),
            more: true,
        };
        let posted = self.rails[link.rail].fabric.post(link.id, &write);
        if let Err(error) = posted {
            self.registrations.done(&mut self.rails, registration);
            link.free_places.push(place);
            return match error {
                PostError::Full => {
                    link.large.push_front(number);
                    Ok(())
                }
                PostError::Down => Err("the connection has ended".into()),
                PostError::Invalid(what) => Err(what.into()),
            };
        }
        link.writing.push(registration);
        link.note_placed(number, place, length);
        Ok(())
    }

    /// A large payload is out of the program's memory.
    pub(super) fn large_written(&mut self, index: usize, registration: u32) {
        let Some(link) = self.links[index].as_mut() else { return };
        if let Some(position) = link.writing.iter().position(|known| *known == registration) {
            link.writing.swap_remove(position);
            self.registrations.done(&mut self.rails, registration);
        }
    }

    /// A payload for a program lies in a place: false when it waits for room.
    pub(super) fn take_block(
        &mut self,
        index: usize,
        sequence: u32,
        number: StreamNumber,
        length: u32,
        place: u32,
    ) -> Result<bool, String> {
        let Some(link) = self.links[index].as_ref() else { return Ok(true) };
        let mut bytes = core::mem::take(&mut self.block);
        bytes.resize((length as usize).min(PLACE_BYTES), 0);
        let memory = link.places_here.filter(|_| length as usize <= PLACE_BYTES);
        let offset = place as usize * PLACE_BYTES;
        let fabric = &self.rails[link.rail].fabric;
        let taken = match memory.filter(|memory| fabric.read(*memory, offset, &mut bytes)) {
            Some(_) => self.take_data(index, sequence, number, &bytes),
            None => Err("a payload in a place that there is not".into()),
        };
        self.block = bytes;
        taken
    }
}

impl Link {
    /// The peer has places for large payloads.
    pub(super) fn set_places(&mut self, places: RemoteMemory) {
        self.places_there = places;
        self.free_places = (0..(places.bytes / PLACE_BYTES as u64) as u32).collect();
        self.beside = !self.free_places.is_empty();
    }

    pub(super) fn may_write_large(&self) -> bool {
        !self.large.is_empty() && !self.free_places.is_empty() && self.writing.len() < MOST_WRITES
    }

    /// Names places in a batch; false when it is full.
    pub(super) fn name_places(&mut self, writer: &mut Writer<'_>, frames: &mut Vec<(usize, u64)>) -> bool {
        while let Some(number) = self.placed.front().copied() {
            let Some((place, length)) = self.placed_piece(number) else {
                self.placed.pop_front();
                continue;
            };
            if !writer.block(number, length, place) {
                return false;
            }
            self.placed.pop_front();
            self.occupied.push_back((self.send.next_sequence(), place));
            frames.extend(self.pop_placed(number));
            self.counters.payload_sent += u64::from(length);
            self.requeue(number);
        }
        true
    }

    /// A batch was delivered: the places that it named are free.
    pub(super) fn free_places_of(&mut self, sequence: u32) {
        let free = &mut self.free_places;
        self.occupied.retain(|(batch, place)| {
            let keep = *batch != sequence;
            if !keep {
                free.push(*place);
            }
            keep
        });
    }

    fn note_placed(&mut self, number: StreamNumber, place: u32, length: usize) {
        if let Some(stream) = self.stream(number) {
            stream.placed = Some(place);
        }
        self.placed.push_back(number);
        self.counters.large_sent += 1;
        self.counters.wire_bytes_sent += self.wire.batch(length);
    }
}
