//! The usual case, made short: one small message on a channel between two processes, whose stream has nothing queued, no switch
//! ahead and credit left. What is anything else is left to `channel::send` and `channel::receive`, untouched.
//! May contain `unsafe`: it copies out of and into the shared rings, within lengths it has checked.

use super::receive::{Guard, Received};
use super::sort::Piece;
use super::{Channel, Trouble};
use crate::config::settings;
use crate::iov::Cursor;
use crate::shm::party::{LaneSending, NONE, Sending};
use convoy_aggregator::wire::{self, Kind};

impl Channel {
    /// The frame at the head of the lane goes to the reader, when it is one of its stream, fits, and is all that the reader can get.
    /// Nothing when it is not that simple.
    #[inline]
    pub(super) fn receive_straight(
        &self,
        guard: &Guard<'_>,
        slot: u32,
        target: &mut Cursor,
    ) -> Result<Option<Received>, Trouble> {
        let stream = guard.stream(slot);
        if self.glance(slot) != Some(false) || stream.first != NONE {
            return Ok(None);
        }
        let lane = guard.lane();
        let capacity = u64::from(self.segment.geometry.ring_bytes);
        match lane.ring.refresh(&self.incoming().producer, capacity) {
            Ok(true) => {}
            Ok(false) => return Ok(Some(Received::Empty)),
            // What cannot be true is found again.
            Err(_) => return Ok(None),
        }
        let (offset, available) = lane.ring.next(capacity);
        let (header, span) = self.header_at(offset, available)?;
        let length = header.length as usize;
        let ours = header.kind == Kind::Data && header.slot == slot && header.generation == stream.generation;
        let whole =
            length > 0 && (length == target.remaining() || length < target.remaining() && available == span);
        if !ours || !whole {
            return Ok(None);
        }
        // SAFETY: header_at checked that the payload lies inside the ring.
        let payload = unsafe { self.segment.ring(self.side ^ 1).add(offset + wire::HEADER_BYTES) };
        self.book(slot, stream, &Piece::inline(payload, length))?;
        // SAFETY: as above.
        unsafe { target.put(payload, length) };
        let full = self.count_in_batch(lane, available, header.length);
        lane.ring.advance(span);
        if full {
            lane.batch.end = lane.ring.head();
        }
        self.give_room(lane);
        self.note_taken(lane, 1);
        self.account(slot, stream, length as u64);
        Ok(Some(Received::Bytes(length)))
    }

    /// All of `bytes` becomes one frame, published at once: how many they are, 0 when it is not that simple.
    #[inline]
    pub(super) fn put_straight(
        &self,
        slot: u32,
        lane: &mut LaneSending,
        stream: &mut Sending,
        bytes: &mut Cursor,
    ) -> usize {
        let length = bytes.remaining();
        let most = (settings().coalesce_max as usize).min(self.largest_inline());
        // Nothing is sent when there is nothing to send: a frame without bytes would be a lie.
        if length.wrapping_sub(1) >= most || lane.held.on || stream.credit.available() < length as u64 {
            return 0;
        }
        // What cannot be true is found again.
        let Ok(Some(target)) = self.segment.reserve(self.side, &mut lane.ring, length) else { return 0 };
        // SAFETY: the room was given for it, to the lock holder.
        let counters = unsafe { self.write_data(slot, lane, stream, bytes, target, length) };
        let _ = stream.credit.consume(length as u64);
        lane.ring.publish(&self.outgoing().producer);
        counters.bytes_sent.bump(length as u64);
        length
    }
}
