//! Large payloads, which the caller writes beside the batches, each into a place of the peer's that a later batch names.

use alloc::vec::Vec;

use super::{Piece, Queue, StreamNumber};
use crate::batch::Writer;

impl<P: Piece> Queue<P> {
    /// The peer has so many places for large payloads: they go beside the batches from now on.
    pub fn set_places(&mut self, places: u32) {
        self.free_places = (0..places).collect();
        self.beside = places > 0;
    }

    /// Whether large payloads go beside the batches.
    #[must_use]
    pub const fn goes_beside(&self) -> bool {
        self.beside
    }

    /// Whether a large payload waits and there is a place for it.
    #[must_use]
    pub fn may_write_large(&self) -> bool {
        !self.large.is_empty() && !self.free_places.is_empty()
    }

    /// The stream whose large payload is to be written next, with its program, taken from the queue: to be followed by
    /// [`Queue::note_placed`], [`Queue::put_back_large`] or [`Queue::send_in_batches`].
    pub fn next_large(&mut self) -> Option<(StreamNumber, usize, P)> {
        loop {
            let number = self.large.pop_front()?;
            if let Some(stream) = self.stream(number)
                && let Some(taken) = stream.pending.front()
            {
                return Some((number, stream.program, taken.piece));
            }
        }
    }

    /// A place for it.
    pub fn take_place(&mut self) -> Option<u32> {
        self.free_places.pop()
    }

    /// It cannot be written now: again later, and the place that it had is free.
    pub fn put_back_large(&mut self, number: StreamNumber, place: Option<u32>) {
        self.free_places.extend(place);
        self.large.push_front(number);
    }

    /// It is on its way to its place: named in the next batch.
    pub fn note_placed(&mut self, number: StreamNumber, place: u32) {
        if let Some(stream) = self.stream(number) {
            stream.placed = Some(place);
        }
        self.placed.push_back(number);
    }

    /// No large payload can be written from where it is: those of the stream, and all that follow, go in batches.
    pub fn send_in_batches(&mut self, number: StreamNumber) {
        self.beside = false;
        let Some(stream) = self.streams.get_mut(number as usize).and_then(Option::as_mut) else { return };
        for taken in stream.pending.iter_mut().filter(|taken| taken.large) {
            taken.large = false;
            self.pending_bytes += u64::from(taken.piece.length());
            self.pending_frames += 1;
        }
        self.requeue(number);
    }

    /// Names places in a batch; false when it is full. `bytes` counts what they hold.
    pub(super) fn name_places(
        &mut self,
        writer: &mut Writer<'_>,
        frames: &mut Vec<(usize, u64)>,
        bytes: &mut u64,
    ) -> bool {
        while let Some(number) = self.placed.front().copied() {
            let stream = self.stream(number);
            let piece = stream.and_then(|stream| stream.placed.zip(stream.pending.front().copied()));
            let Some((place, taken)) = piece else {
                self.placed.pop_front();
                continue;
            };
            let length = taken.piece.length();
            if !writer.block(number, length, place) {
                return false;
            }
            self.placed.pop_front();
            self.occupied.push_back((self.send.next_sequence(), place));
            if let Some(stream) = self.stream(number) {
                stream.placed = None;
                stream.pending.pop_front();
                frames.push((stream.program, taken.frame));
            }
            *bytes += u64::from(length);
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
}
