//! What a stream has received and its program has not yet read: a chain of chunks and lent blocks.
//! May contain `unsafe`: chunks are plain memory guarded by the receive lock.

use super::Channel;
use crate::iov::Cursor;
use crate::shm::party::{CHUNK_ROOM, Chunk, LaneReceiving, NONE, Receiving};
use core::sync::atomic::Ordering;

impl Channel {
    /// Queues bytes; false (and nothing queued) when the chunks have run out.
    ///
    /// # Safety
    /// `source` is readable for `length`; the receive lock is held.
    pub(super) unsafe fn enqueue_bytes(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        source: *const u8,
        length: usize,
    ) -> bool {
        let room = self.tail_room(stream);
        if length > room {
            let beyond = length - room;
            if beyond > CHUNK_ROOM || room > 0 {
                // SAFETY: the caller's promise.
                return unsafe { self.enqueue_across(slot, lane, stream, source, length) };
            }
            if !self.append_chunk(lane, stream, NONE) {
                return false;
            }
        }
        // SAFETY: the tail has room for all of it, now.
        unsafe { self.fill_tail(stream, source, length) };
        self.count_queued(slot, length as u64);
        true
    }

    /// The same where several chunks are needed.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn enqueue_across(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        source: *const u8,
        length: usize,
    ) -> bool {
        let chunks_needed = (length - self.tail_room(stream)).div_ceil(CHUNK_ROOM);
        if !self.chunks_left(lane, chunks_needed) {
            return false;
        }
        let mut done = 0;
        while done < length {
            if self.tail_room(stream) == 0 && !self.append_chunk(lane, stream, NONE) {
                return false;
            }
            let part = (length - done).min(self.tail_room(stream));
            // SAFETY: the tail has room for the part; the source has `length` bytes.
            unsafe { self.fill_tail(stream, source.add(done), part) };
            done += part;
        }
        self.count_queued(slot, length as u64);
        true
    }

    /// Appends to the last chunk of the queue.
    ///
    /// # Safety
    /// There is one, with room for `length` bytes, which `source` has; the receive lock is held.
    #[inline]
    unsafe fn fill_tail(&self, stream: &Receiving, source: *const u8, length: usize) {
        let (head, payload) = self.party.chunk(stream.last);
        // SAFETY: `last` is a chunk of this stream, with room by the caller's promise; the lock is held.
        unsafe {
            core::ptr::copy_nonoverlapping(source, payload.add((*head).end as usize), length);
            (*head).end += length as u32;
        }
    }

    /// Queues a range of a block of the peer (checked by the caller); false when the chunks have run out, or when the peer lies:
    /// a block is in one queue at a time, else frames without credit would fill the memory.
    pub(super) fn enqueue_block(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        block: u32,
        range: core::ops::Range<u32>,
    ) -> bool {
        let Some(word) = lane.queued_blocks.get(block as usize / 64) else { return false };
        if word & 1 << (block % 64) != 0 {
            self.fail("a block named twice");
            return false;
        }
        // Of one that is delivered in part the first bytes are still to be read, from the block.
        if range.start == 0 && self.blocks_are_short(lane) {
            return self.enqueue_copy(slot, lane, stream, block, range);
        }
        if !self.append_chunk(lane, stream, block) {
            return false;
        }
        lane.queued_blocks[block as usize / 64] |= 1 << (block % 64);
        lane.queued_count += 1;
        let (head, _) = self.party.chunk(stream.last);
        // SAFETY: the chunk was just appended; the lock is held.
        let head = unsafe { &mut *head };
        (head.start, head.end) = (range.start, range.end);
        self.count_queued(slot, u64::from(range.end - range.start));
        true
    }

    /// Whether half of the peer's blocks wait for slow readers: the others are for those who read at once.
    fn blocks_are_short(&self, lane: &LaneReceiving) -> bool {
        lane.queued_count >= self.segment.geometry.blocks / 2
    }

    /// Queues the bytes of a block and gives the block back.
    fn enqueue_copy(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        block: u32,
        range: core::ops::Range<u32>,
    ) -> bool {
        let length = (range.end - range.start) as usize;
        let source = self.segment.block(self.side ^ 1, block).wrapping_add(range.start as usize);
        // SAFETY: the caller has checked that the range lies inside of the block; the lock is held.
        let queued = unsafe { self.enqueue_bytes(slot, lane, stream, source, length) };
        if queued {
            self.return_block(block);
        }
        queued
    }

    /// Copies up to `limit` queued bytes to the program; with `peek` they stay. Returns how many.
    pub(super) fn dequeue(
        &self,
        slot: u32,
        lane: &mut LaneReceiving,
        stream: &mut Receiving,
        target: &mut Cursor,
        limit: u64,
        mode: Mode,
    ) -> usize {
        let mut total = 0u64;
        let mut current = stream.first;
        while current != NONE && target.remaining() > 0 && total < limit {
            let (head, _) = self.party.chunk(current);
            // SAFETY: a chunk of this stream's queue; the lock is held.
            let head = unsafe { &mut *head };
            let available = (head.end - head.start) as usize;
            let part = available.min(target.remaining()).min((limit - total) as usize);
            let source = self.content(current, head);
            match mode {
                Mode::Discard => target.skip(part),
                // SAFETY: the chunk or block holds `part` bytes from its start on.
                _ => unsafe { target.put(source, part) },
            };
            total += part as u64;
            if mode == Mode::Peek {
                current = head.next;
                continue;
            }
            head.start += part as u32;
            if head.start == head.end {
                let next = head.next;
                self.free_chunk(lane, current);
                stream.first = next;
                if next == NONE {
                    stream.last = NONE;
                }
                current = next;
            }
        }
        if mode != Mode::Peek {
            self.count_queued(slot, total.wrapping_neg());
        }
        total as usize
    }

    /// Adds to the count of queued bytes. The caller holds the receive lock, so that nobody else writes it.
    #[inline]
    fn count_queued(&self, slot: u32, more: u64) {
        let queued = &self.party.stream(slot).queued;
        queued.store(queued.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
    }

    /// Drops what is queued and everything the stream still holds.
    pub(super) fn drop_queue(&self, slot: u32, lane: &mut LaneReceiving, stream: &mut Receiving) -> u64 {
        let mut current = stream.first;
        while current != NONE {
            let (head, _) = self.party.chunk(current);
            // SAFETY: a chunk of this stream's queue; the lock is held.
            let next = unsafe { (*head).next };
            self.free_chunk(lane, current);
            current = next;
        }
        (stream.first, stream.last) = (NONE, NONE);
        stream.window = 0;
        self.party.stream(slot).queued.swap(0, Ordering::Release)
    }

    fn content(&self, chunk: u32, head: &Chunk) -> *const u8 {
        let base = match head.block {
            NONE => self.party.chunk(chunk).1,
            block => self.segment.block(self.side ^ 1, block),
        };
        // SAFETY: `start` was set by this side and is within the chunk or block.
        unsafe { base.add(head.start as usize) }
    }

    fn tail_room(&self, stream: &Receiving) -> usize {
        if stream.last == NONE {
            return 0;
        }
        let (head, _) = self.party.chunk(stream.last);
        // SAFETY: a chunk of this stream's queue; the lock is held by the callers.
        let head = unsafe { &*head };
        if head.block == NONE { CHUNK_ROOM - head.end as usize } else { 0 }
    }

    fn chunks_left(&self, lane: &LaneReceiving, wanted: usize) -> bool {
        let fresh = (self.party.chunks() - lane.fresh_chunk) as usize;
        fresh >= wanted || (wanted == 1 && lane.free_chunk != NONE)
    }

    fn append_chunk(&self, lane: &mut LaneReceiving, stream: &mut Receiving, block: u32) -> bool {
        let chunk = if lane.free_chunk != NONE {
            let chunk = lane.free_chunk;
            // SAFETY: a free chunk; the lock is held.
            lane.free_chunk = unsafe { (*self.party.chunk(chunk).0).next };
            chunk
        } else if lane.fresh_chunk < self.party.chunks() {
            lane.fresh_chunk += 1;
            lane.fresh_chunk - 1
        } else {
            return false;
        };
        // SAFETY: the chunk belongs to nobody else now; the lock is held.
        unsafe { *self.party.chunk(chunk).0 = Chunk { next: NONE, start: 0, end: 0, block } };
        let last = core::mem::replace(&mut stream.last, chunk);
        if last == NONE {
            stream.first = chunk;
        } else {
            // SAFETY: the previous tail of this stream's queue.
            unsafe { (*self.party.chunk(last).0).next = chunk };
        }
        true
    }

    fn free_chunk(&self, lane: &mut LaneReceiving, chunk: u32) {
        let (head, _) = self.party.chunk(chunk);
        // SAFETY: the chunk is unlinked; the lock is held.
        let head = unsafe { &mut *head };
        if head.block != NONE {
            lane.queued_blocks[head.block as usize / 64] &= !(1 << (head.block % 64));
            lane.queued_count -= 1;
            self.return_block(head.block);
        }
        head.next = lane.free_chunk;
        lane.free_chunk = chunk;
    }

    /// Gives a block back to the peer, who may write it again.
    #[inline]
    pub(super) fn return_block(&self, block: u32) {
        if let Some(word) = self.incoming().returned.get(block as usize / 64) {
            word.fetch_or(1 << (block % 64), Ordering::Release);
        }
    }
}

/// What a read does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Take,
    /// MSG_PEEK.
    Peek,
    /// MSG_TRUNC on a stream: taken, not copied.
    Discard,
}
