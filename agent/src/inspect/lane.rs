//! One direction of a channel: how far it is written and read, and the frames in between.

use super::memory::Fields;
use super::state::{Place, View};
use convoy_aggregator::wire::{BlockRef, HEADER_BYTES, Header, Kind, span};
use serde::Serialize;
use std::collections::HashMap;

/// Frames that are looked at, and those of them that are listed.
const MOST_FRAMES: u64 = 1 << 17;
const MOST_LISTED: usize = 64;

/// A lane.
#[derive(Serialize, Default)]
pub(crate) struct Lane {
    /// Bytes of the ring ever published, and ever taken out (as far as is told to the sender, in the sending direction).
    pub(crate) published: u64,
    pub(crate) taken: u64,
    /// Bytes of the ring in use, and free.
    pub(crate) used: u64,
    pub(crate) free: u64,
    pub(crate) frames: u64,
    /// The first of the frames.
    pub(crate) listed: Vec<Frame>,
    /// What is wrong with the cursors or a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
    /// What waits, by slot and generation.
    #[serde(skip)]
    of_streams: HashMap<(u32, u8), Waiting>,
}

/// A frame's header.
#[derive(Serialize)]
pub(crate) struct Frame {
    /// Bytes of the ring before it.
    pub(crate) at: u64,
    pub(crate) kind: &'static str,
    pub(crate) slot: u32,
    pub(crate) generation: u8,
    /// Bytes of the stream that it brings.
    pub(crate) length: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<u32>,
}

/// Frames of one stream.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

/// The lane that this process writes; nothing when it cannot be read.
pub(super) fn sending(view: &View<'_>, place: Place) -> Option<Lane> {
    let (published, taken) = view.cursors(place, place.side)?;
    Some(view.walk(place, place.side, published, taken))
}

/// The lane that it reads: what was taken out is in its own memory.
pub(super) fn receiving(view: &View<'_>, place: Place) -> Option<Lane> {
    let (published, given_back) = view.cursors(place, place.side ^ 1)?;
    let own = Fields::read(view.memory, place.party, view.found.in_shared.size);
    let taken = own.and_then(|own| own.u64(view.found.in_shared.taken)).unwrap_or(given_back);
    Some(view.walk(place, place.side ^ 1, published, taken))
}

impl Lane {
    /// What waits for one stream.
    pub(super) fn of(&self, stream: (u32, u8)) -> Waiting {
        self.of_streams.get(&stream).copied().unwrap_or_default()
    }
}

impl View<'_> {
    fn cursors(&self, place: Place, sender: u64) -> Option<(u64, u64)> {
        let layout = self.found.in_lane;
        let start = place.base.checked_add(self.found.lanes_offset)?.checked_add(sender * layout.size)?;
        let fields = Fields::read(self.memory, start, layout.size)?;
        Some((fields.u64(layout.producer)?, fields.u64(layout.consumer)?))
    }

    fn walk(&self, place: Place, sender: u64, published: u64, taken: u64) -> Lane {
        let capacity = u64::from(place.geometry.ring_bytes);
        let used = published.saturating_sub(taken);
        let mut lane =
            Lane { published, taken, used, free: capacity.saturating_sub(used), ..Lane::default() };
        if published < taken || used > capacity || (published | taken) & 7 != 0 {
            lane.wrong = Some("the cursors cannot be".to_owned());
            return lane;
        }
        let start = place.base.wrapping_add(place.geometry.ring_offset(sender as usize) as u64);
        let ring = Ring { view: self, start, capacity };
        let mut at = taken;
        while at < published && lane.frames < MOST_FRAMES {
            match ring.frame(at, published) {
                Ok((frame, bytes)) => {
                    lane.take(frame);
                    at += bytes;
                }
                Err(why) => {
                    lane.wrong = Some(format!("at {at}: {why}"));
                    break;
                }
            }
        }
        lane
    }
}

impl Lane {
    fn take(&mut self, frame: Frame) {
        if frame.kind != "pad" {
            self.frames += 1;
            let waiting = self.of_streams.entry((frame.slot, frame.generation)).or_default();
            waiting.frames += 1;
            waiting.bytes += u64::from(frame.length);
        }
        if self.listed.len() < MOST_LISTED {
            self.listed.push(frame);
        }
    }
}

struct Ring<'a> {
    view: &'a View<'a>,
    start: u64,
    capacity: u64,
}

impl Ring<'_> {
    /// The frame at a cursor, and the bytes of the ring that it takes.
    fn frame(&self, at: u64, published: u64) -> Result<(Frame, u64), &'static str> {
        let offset = at & (self.capacity - 1);
        let word = self.word(offset).ok_or("the ring cannot be read")?;
        let header = Header::from_word(word).map_err(|_| "no frame")?;
        let bytes = span(header.length) as u64;
        if bytes > published - at || offset + bytes > self.capacity {
            return Err("a frame of an impossible length");
        }
        let named = if header.kind == Kind::Block {
            self.word(offset + HEADER_BYTES as u64).map(BlockRef::from_word)
        } else {
            None
        };
        let kind = match header.kind {
            Kind::Pad => "pad",
            Kind::Data => "data",
            Kind::Block => "block",
        };
        let length = named.map_or(header.length, |named| named.length);
        let block = named.map(|named| named.block);
        let Header { slot, generation, .. } = header;
        Ok((Frame { at, kind, slot, generation, length, block }, bytes))
    }

    fn word(&self, offset: u64) -> Option<u64> {
        self.view.memory.word(self.start.checked_add(offset)?)
    }
}
