//! One frame: its header is checked, its bytes go to the reader or into their stream's queue, and who waits for them
//! is noted. `channel::receive` walks through the lane.
//! May contain `unsafe`: it reads the shared ring and the peer's blocks, within lengths it has checked.

use super::receive::Guard;
use super::{Channel, Trouble};
use crate::iov::Cursor;
use crate::shm::party::{LaneReceiving, NONE, Receiving};
use crate::trace::Frame;
use crate::{bell, epoll, stats};
use convoy_aggregator::wire::{self, Header, Kind};

/// The reader's buffer, for frames that need not be queued first.
pub(super) struct Direct<'a> {
    pub slot: u32,
    pub target: &'a mut Cursor,
    pub taken: usize,
}

/// Whether to go on with the lane.
pub(super) enum Step {
    Next,
    /// The reader has enough, or memory is short: the frame stays in the lane.
    Stop,
}

/// The payload of a frame, in the ring or in a block.
pub(super) struct Piece {
    bytes: *const u8,
    length: usize,
    block: u32,
}

impl Piece {
    /// Bytes in the ring.
    #[inline]
    pub(super) fn inline(bytes: *const u8, length: usize) -> Self {
        Self { bytes, length, block: NONE }
    }
}

/// Streams that have received something: their epoll instances and sleepers are to be told.
pub(super) struct Wakes<'a> {
    channel: &'a Channel,
    slots: [u32; MOST_NOTED],
    count: usize,
}

/// How many are noted before they are told.
const MOST_NOTED: usize = 32;

impl<'a> Wakes<'a> {
    #[inline]
    pub(super) fn new(channel: &'a Channel) -> Self {
        Self { channel, slots: [0; MOST_NOTED], count: 0 }
    }

    /// Notes a stream that has received something.
    #[inline]
    pub(super) fn add(&mut self, slot: u32) {
        if self.count > 0 && self.slots.get(self.count - 1) == Some(&slot) {
            return;
        }
        if self.count == MOST_NOTED {
            self.note();
            self.ring();
        }
        if let Some(place) = self.slots.get_mut(self.count) {
            *place = slot;
            self.count += 1;
        }
    }

    /// Leaves notes with the epoll instances, gives the lock up, and wakes sleepers.
    #[inline]
    pub(super) fn tell(&mut self, guard: Guard<'_>) {
        if self.count > 0 {
            // Under the lock: nobody finds the lane empty and no notes yet.
            self.note();
        }
        drop(guard);
        if self.count > 0 {
            self.ring();
        }
    }

    fn note(&self) {
        let slots = self.slots.get(..self.count).unwrap_or_default();
        epoll::readable(slots.iter().map(|slot| self.channel.socket_of(*slot)));
    }

    /// What was noted and queued is there for whoever is about to sleep.
    fn ring(&mut self) {
        if !self.channel.nobody_sleeps_here() {
            for slot in self.slots.get(..self.count).unwrap_or_default() {
                bell::ring_all(self.channel.own_line(*slot).receive_waiters.snapshot());
            }
        }
        self.count = 0;
    }
}

impl Channel {
    /// The header at `offset`, checked.
    #[inline]
    pub(super) fn header_at(&self, offset: usize, available: u64) -> Result<(Header, u64), Trouble> {
        self.segment.header_at(self.side ^ 1, offset, available).map_err(|why| self.fail(why))
    }

    #[inline]
    pub(super) fn sort_frame(
        &self,
        guard: &Guard<'_>,
        lane: &mut LaneReceiving,
        header: Header,
        offset: usize,
        direct: &mut Option<&mut Direct<'_>>,
        wakes: &mut Wakes<'_>,
    ) -> Result<Step, Trouble> {
        if header.slot >= self.party.slots() {
            return Err(self.fail("impossible stream"));
        }
        // SAFETY: header_at checked that the payload lies inside the ring.
        let payload = unsafe { self.segment.ring(self.side ^ 1).add(offset + wire::HEADER_BYTES) };
        let piece = match header.kind {
            Kind::Block => self.block_piece(header, offset)?,
            _ => Piece::inline(payload, header.length as usize),
        };
        let stream = guard.stream(header.slot);
        if !stream.open || stream.recalled || stream.generation != header.generation {
            self.discard(&piece);
            return Ok(Step::Next);
        }
        if let Some(direct) = direct
            && direct.slot == header.slot
        {
            if direct.target.remaining() == 0 {
                return Ok(Step::Stop);
            }
            let whole = piece.length <= direct.target.remaining();
            let step = self.deliver(lane, stream, piece, direct);
            if !whole {
                // The rest waits in the queue: to those who wait it has arrived now.
                wakes.add(header.slot);
            }
            return step;
        }
        if !self.enqueue(header.slot, lane, stream, &piece, 0) {
            return Ok(Step::Stop);
        }
        self.book(header.slot, stream, &piece)?;
        wakes.add(header.slot);
        Ok(Step::Next)
    }

    fn block_piece(&self, header: Header, offset: usize) -> Result<Piece, Trouble> {
        let named = self.segment.block_at(self.side ^ 1, offset, header).map_err(|why| self.fail(why))?;
        stats::lane(self.index as usize).blocks_received.bump(1);
        Ok(Piece {
            bytes: self.segment.block(self.side ^ 1, named.block),
            length: named.length as usize,
            block: named.block,
        })
    }

    fn discard(&self, piece: &Piece) {
        stats::process().bytes_dropped.add(piece.length as u64);
        if piece.block != NONE {
            self.return_block(piece.block);
        }
    }

    /// Straight to the reader; what its buffer does not hold is queued.
    #[inline]
    fn deliver(
        &self,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        piece: Piece,
        direct: &mut Direct<'_>,
    ) -> Result<Step, Trouble> {
        let part = piece.length.min(direct.target.remaining());
        if part < piece.length && !self.enqueue(direct.slot, lane, stream, &piece, part) {
            return Ok(Step::Stop);
        }
        self.book(direct.slot, stream, &piece)?;
        // SAFETY: the piece has at least `part` bytes.
        unsafe { direct.target.put(piece.bytes, part) };
        direct.taken += part;
        if part == piece.length && piece.block != NONE {
            self.return_block(piece.block);
        }
        Ok(Step::Next)
    }

    fn enqueue(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        piece: &Piece,
        from: usize,
    ) -> bool {
        if piece.block != NONE {
            return self.enqueue_block(slot, lane, stream, piece.block, from as u32..piece.length as u32);
        }
        // SAFETY: `from` is within the piece; the lock is held.
        unsafe { self.enqueue_bytes(slot, lane, stream, piece.bytes.add(from), piece.length - from) }
    }

    #[inline]
    pub(super) fn book(&self, slot: u32, stream: &mut Receiving, piece: &Piece) -> Result<(), Trouble> {
        let length = piece.length as u64;
        if stream.credit.on_received(length).is_err() {
            return Err(self.fail("more bytes than credit"));
        }
        let counters = stats::lane(self.index as usize);
        counters.bytes_received.bump(length);
        if counters.is_traced() {
            let kind = if piece.block == NONE { Kind::Data } else { Kind::Block };
            let position = stream.credit.received() - length;
            let frame = Frame { kind, position, length: length as u32, payload: piece.bytes };
            self.trace_frame(false, slot, stream.generation, &frame);
        }
        Ok(())
    }
}
