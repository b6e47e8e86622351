//! Large payloads: written beside the batches, from the program's memory into a place of the peer's, so that they never
//! stand in front of small messages and are not copied on the way. A batch that follows names the place.
//!
//! Only where writes are placed in the order in which they are posted: the batch is behind its payload then.

use super::engine::Engine;
use super::link::Link;
use super::program::Payload;
use convoy_aggregator::link::PLACE_BYTES;
use convoy_aggregator::queue::StreamNumber;
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
            if !self.links[index].as_ref().is_some_and(Link::may_write_large) {
                break;
            }
            self.write_next(index)?;
        }
        Ok(())
    }

    /// Posts the next large payload.
    fn write_next(&mut self, index: usize) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        let Some((number, program, Payload(piece))) = link.queue.next_large() else { return Ok(()) };
        let Some(program) = self.programs.get(program).and_then(Option::as_ref) else { return Ok(()) };
        let (Some(port), Some(block)) = (program.port.as_ref(), piece.block) else { return Ok(()) };
        let beside = link.queue.goes_beside();
        let registered =
            beside.then(|| self.registrations.take(&mut self.rails, link.rail, program.serial, port));
        let Some((registration, memory)) = registered.flatten() else {
            // Not tried again for each payload.
            link.queue.send_in_batches(number);
            return Ok(());
        };
        let Some(place) = link.queue.take_place() else {
            self.registrations.done(&mut self.rails, registration);
            link.queue.put_back_large(number, None);
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
            return match error {
                PostError::Full => {
                    link.queue.put_back_large(number, Some(place));
                    Ok(())
                }
                PostError::Down => Err("the connection has ended".into()),
                PostError::Invalid(what) => Err(what.into()),
            };
        }
        link.writing.push(registration);
        link.queue.note_placed(number, place);
        link.counters.large_sent += 1;
        link.counters.wire_bytes_sent += link.wire.batch(length);
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
        self.queue.set_places((places.bytes / PLACE_BYTES as u64) as u32);
    }

    pub(super) fn may_write_large(&self) -> bool {
        self.queue.may_write_large() && self.writing.len() < MOST_WRITES
    }
}
