//! A batch of what waits: news first, then places of large payloads, then the streams' bytes in turn.

use alloc::vec::Vec;

use super::{Owes, Piece, Queue, StreamNumber};
use crate::batch::{Control, Head, Writer};
use crate::link::Place;

/// A batch in memory.
#[derive(Clone, Debug)]
pub struct Built {
    /// Bytes of the batch.
    pub length: usize,
    /// Where it goes; nothing without room, which the caller is to have made sure of.
    pub place: Option<Place>,
    /// Frames that are sent with it to their last byte, by program and number.
    frames: Vec<(usize, u64)>,
    /// It carries more than cursors.
    pub full: bool,
    /// Bytes of payload in it and in the places that it names.
    pub payload: u64,
}

impl Built {
    /// How many frames end with it.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.frames.len() as u64
    }
}

/// Bytes of one stream in a row while others wait.
const QUANTUM: usize = 8 << 10;

impl<P: Piece> Queue<P> {
    /// Bytes that a batch of all that waits takes, or a little more.
    #[must_use]
    pub fn estimate(&self) -> usize {
        self.pending_bytes as usize + 32 * self.controls.len() + 64
    }

    /// Fills a batch from what waits. `copy` gives the bytes of a program's payload, from one of them on.
    pub fn build(
        &mut self,
        room: &mut [u8],
        now_us: u64,
        mut copy: impl FnMut(usize, &P, u32, &mut [u8]),
    ) -> Built {
        let mut frames = self.spare.pop().unwrap_or_default();
        let mut writer = Writer::new(room);
        self.write_news(&mut writer);
        let before = self.pending_bytes;
        let mut payload = 0;
        // A switch is told before the bytes behind it.
        let told = self.controls.is_empty() && self.name_places(&mut writer, &mut frames, &mut payload);
        let large = frames.len();
        let streams = if told { self.active.len() } else { 0 };
        for _ in 0..streams {
            let Some(number) = self.active.pop_front() else { break };
            if !self.fill(number, &mut writer, &mut frames, &mut copy) {
                self.active.push_front(number);
                break;
            }
        }
        payload += before - self.pending_bytes;
        self.pending_frames -= (frames.len() - large) as u64;
        self.gather.on_flush();
        if self.pending_frames > 0 {
            let rest = u32::try_from(self.pending_bytes).unwrap_or(u32::MAX);
            let _ = self.gather.push(now_us, rest);
        }
        let (length, full) = (writer.len(), !writer.is_empty());
        let place = self.send.place(length);
        let (consumed, delivered) = self.receive.tell();
        self.owes = Owes::Nothing;
        if let Some(place) = place {
            Head { length: length as u32, sequence: place.sequence, consumed, delivered }.write(room);
        }
        Built { length, place, frames, full, payload }
    }

    /// The batch is on its way.
    pub fn on_sent(&mut self, built: Built) {
        let Some(place) = built.place else { return };
        if built.frames.is_empty() {
            self.return_list(built.frames);
        } else {
            self.sent.push(place.sequence, built.frames);
        }
        if built.full {
            self.unanswered.push_back(place.sequence);
        }
    }

    fn write_news(&mut self, writer: &mut Writer<'_>) {
        while let Some((stream, control)) = self.controls.front().copied() {
            if !writer.control(stream, control) {
                break;
            }
            let sequence = self.send.next_sequence();
            match control {
                Control::Announce { number, .. } => self.announced.push_back((sequence, stream, number)),
                Control::Lost => self.losses.on_written(sequence),
                _ => {}
            }
            self.controls.pop_front();
        }
        while writer.room() > 0
            && let Some(sequence) = self.receive.next_early()
        {
            let _ = writer.delivered(sequence);
        }
    }

    /// Writes what one stream has, up to a quantum, as one record. False when the batch is full.
    fn fill(
        &mut self,
        number: StreamNumber,
        writer: &mut Writer<'_>,
        frames: &mut Vec<(usize, u64)>,
        copy: &mut impl FnMut(usize, &P, u32, &mut [u8]),
    ) -> bool {
        let Some(stream) = self.streams.get_mut(number as usize).and_then(Option::as_mut) else {
            return true;
        };
        let small = || stream.pending.iter().take_while(|taken| !taken.large);
        let waiting: usize = small().map(|taken| taken.piece.length() as usize).sum();
        let most = (waiting - stream.begun as usize).min(QUANTUM).min(writer.room());
        if most == 0 && waiting > 0 {
            return false;
        }
        let Some(mut room) = writer.data(number, most) else { return false };
        while let Some(taken) = stream.pending.front().filter(|taken| !taken.large) {
            let left = taken.piece.length() - stream.begun;
            let part = (left as usize).min(room.len());
            let (target, rest) = room.split_at_mut(part);
            copy(stream.program, &taken.piece, stream.begun, target);
            room = rest;
            if part < left as usize {
                stream.begun += part as u32;
                break;
            }
            frames.push((stream.program, taken.frame));
            stream.begun = 0;
            stream.pending.pop_front();
        }
        self.pending_bytes -= most as u64;
        self.requeue(number);
        true
    }
}
