//! Sending on a channel: a stream's bytes become frames in the lane, or blocks named by frames.
//! May contain `unsafe`: it writes the shared ring, at offsets that its own cursors give.

use super::{Channel, Trouble, hold};
use crate::config::settings;
use crate::inside::Section;
use crate::iov::Cursor;
use crate::shm::blocks::Blocks;
use crate::shm::frames::write_header;
use crate::shm::lock::LockError;
use crate::shm::party::{KernelSend, LaneSending, Recovery, Sending};
use crate::stats::{self, LaneCounters};
use crate::trace::Frame;
use convoy_aggregator::path::Path;
use convoy_aggregator::wire::{self, BlockRef, Header, Kind};
use core::sync::atomic::Ordering;

/// Largest payload of one inline frame.
const MAX_INLINE: usize = 16384;

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many are on their way.
    Bytes(usize),
    /// The stream is on the kernel: the caller makes the kernel call and then [`Channel::end_kernel_send`].
    Kernel(KernelSend),
    /// The receiver recalls the stream (see `channel::recall`) after this many bytes of the call: to be obeyed.
    Recalled(usize),
    /// No credit or no room in the lane for all of it: this many bytes were sent.
    NoRoom,
    /// The stream returns to the kernel because the way to the other host is gone: again in a moment.
    Busy,
}

/// The send lock, held.
pub struct Guard<'a>(&'a Channel);

impl Guard<'_> {
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn lane(&self) -> &mut LaneSending {
        // SAFETY: the lock is held; callers use one reference at a time.
        unsafe { self.0.party.shared().sending() }
    }

    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn stream(&self, slot: u32) -> &mut Sending {
        // SAFETY: the lock is held; callers use one reference per stream at a time.
        unsafe { self.0.party.stream(slot).sending() }
    }

    /// The same if it is still that stream: the slot of one that was closed may be another's, and its lines are reset.
    #[inline]
    pub fn open_stream(&self, slot: u32, generation: u8) -> Result<&mut Sending, Trouble> {
        let stream = self.stream(slot);
        // Under the lock that whoever closes it takes.
        let open = self.0.party.stream(slot).open.load(Ordering::Relaxed) != 0;
        if open && stream.generation == generation { Ok(stream) } else { Err(Trouble::Closed) }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.party.shared().send_lock.release();
    }
}

impl Channel {
    #[inline]
    pub fn lock_sending(&self) -> Result<Guard<'_>, Trouble> {
        match self.party.shared().send_lock.acquire() {
            Ok(()) => Ok(Guard(self)),
            Err(LockError::Reentered) => Err(Trouble::Reentered),
            Err(LockError::Abandoned) => Err(self.fail("a process died while it was sending")),
        }
    }

    /// At the start all blocks are this side's to lend, and nothing is held.
    pub(super) fn lend_all_blocks(&self) {
        if let Ok(guard) = self.lock_sending() {
            guard.lane().held = hold::new(settings(), self.leads_to_agent());
            guard.lane().blocks = Blocks::first(self.segment.geometry.blocks);
        }
    }

    /// Sends what fits of `bytes`; `fd` is the kernel connection underneath.
    #[inline]
    pub fn send(&self, slot: u32, generation: u8, fd: i32, bytes: &mut Cursor) -> Result<Sent, Trouble> {
        if !self.usable() {
            return Err(Trouble::Broken);
        }
        // Published and not rung must not be the end of it.
        let _section = Section::new();
        let guard = self.lock_sending()?;
        let stream = guard.open_stream(slot, generation)?;
        // Under the lock: whoever brings the stream back has counted what was sent before.
        match self.recovery(slot) {
            Recovery::None => {}
            Recovery::Running => return Ok(Sent::Busy),
            Recovery::Done | Recovery::Failed | Recovery::Quiet => {
                return Ok(Sent::Kernel(self.enter_kernel_send(slot)));
            }
        }
        if self.recalled(slot, stream) {
            return Ok(Sent::Recalled(0));
        }
        self.obey_agent(slot, stream);
        if stream.path.path() == Path::Kernel && !self.switch_to_channel(slot, fd, stream) {
            let Some(call) = self.enter_kernel_send_unless_returning(slot, fd) else { return Ok(Sent::Busy) };
            if self.recalled(slot, stream) {
                self.end_kernel_send(slot, call);
                return Ok(Sent::Recalled(0));
            }
            return Ok(Sent::Kernel(call));
        }
        let sent = match self.put_straight(slot, guard.lane(), stream, bytes) {
            0 => self.put(slot, guard.lane(), stream, bytes)?,
            sent => sent,
        };
        if guard.lane().held.on {
            self.after_holding(guard, bytes.remaining() == 0);
        } else {
            let next = guard.lane().ring.tail();
            drop(guard);
            self.ring_receiver(slot);
            self.segment.fetch_for_writing(self.side, next);
        }
        if self.asks_for_kernel(slot, generation) {
            return Ok(Sent::Recalled(sent));
        }
        Ok(if sent == 0 { Sent::NoRoom } else { Sent::Bytes(sent) })
    }

    /// Moves bytes into the lane until they, the credit or the room end.
    #[inline(never)]
    fn put(
        &self,
        slot: u32,
        lane: &mut LaneSending,
        stream: &mut Sending,
        bytes: &mut Cursor,
    ) -> Result<usize, Trouble> {
        let mut total = 0;
        while bytes.remaining() > 0 {
            let credit = self.credit(slot, stream, bytes.remaining())?;
            let wanted = bytes.remaining().min(credit);
            if wanted == 0 {
                break;
            }
            let put = self.put_frame(slot, lane, stream, bytes, wanted)?;
            if put == 0 {
                break;
            }
            let _ = stream.credit.consume(put as u64);
            if lane.held.on {
                self.hold(slot, lane, stream, put);
            } else {
                lane.ring.publish(&self.outgoing().producer);
            }
            total += put;
        }
        if total > 0 {
            stats::lane(self.index as usize).bytes_sent.bump(total as u64);
        }
        Ok(total)
    }

    /// Bytes this stream may send now; looks at the peer's line only when the known credit does not do.
    #[inline]
    fn credit(&self, slot: u32, stream: &mut Sending, wanted: usize) -> Result<usize, Trouble> {
        if stream.credit.available() < wanted as u64 {
            let limit = self.peer_line(slot).limit.load(Ordering::Acquire);
            if stream.credit.grant(limit).is_err() {
                return Err(self.fail("impossible credit"));
            }
        }
        Ok(stream.credit.available().min(usize::MAX as u64) as usize)
    }

    /// Writes one frame of up to `wanted` bytes; the answer is how many it carries, 0 without room.
    fn put_frame(
        &self,
        slot: u32,
        lane: &mut LaneSending,
        stream: &Sending,
        bytes: &mut Cursor,
        wanted: usize,
    ) -> Result<usize, Trouble> {
        if wanted > settings().coalesce_max as usize
            && let Some(block) = lane.blocks.lend(&self.outgoing().returned)
        {
            return self.put_block(slot, lane, stream, bytes, wanted, block);
        }
        let length = wanted.min(self.largest_inline());
        let Some(target) = self.reserve(lane, length)? else {
            return Ok(0);
        };
        // SAFETY: the room was given for it, to the lock holder.
        unsafe { self.write_data(slot, lane, stream, bytes, target, length) };
        Ok(length)
    }

    /// Writes a frame with the next `length` bytes, and counts it.
    ///
    /// # Safety
    /// `target` is what `reserve` gave for a payload of that length; the send lock is held.
    #[inline(always)]
    pub(super) unsafe fn write_data(
        &self,
        slot: u32,
        lane: &mut LaneSending,
        stream: &Sending,
        bytes: &mut Cursor,
        target: *mut u8,
        length: usize,
    ) -> &'static LaneCounters {
        let header = Header { kind: Kind::Data, generation: stream.generation, slot, length: length as u32 };
        let payload = target.wrapping_add(wire::HEADER_BYTES);
        // SAFETY: room for header and payload, by the caller's promise.
        unsafe {
            bytes.take(payload, length);
            write_header(target, header);
        }
        self.count_frame(lane, stream, header, length, payload)
    }

    /// Payload of the largest frame that names no block.
    #[inline]
    pub(super) fn largest_inline(&self) -> usize {
        MAX_INLINE.min(self.segment.geometry.ring_bytes as usize / 4)
    }

    fn put_block(
        &self,
        slot: u32,
        lane: &mut LaneSending,
        stream: &Sending,
        bytes: &mut Cursor,
        wanted: usize,
        block: u32,
    ) -> Result<usize, Trouble> {
        let Some(target) = self.reserve(lane, size_of::<u64>())? else {
            lane.blocks.keep(block);
            return Ok(0);
        };
        let length = wanted.min(self.segment.geometry.block_bytes as usize);
        let header =
            Header { kind: Kind::Block, generation: stream.generation, slot, length: BlockRef::BYTES };
        let payload = self.segment.block(self.side, block);
        // SAFETY: the block is this side's until the frame is published, the ring place is reserved.
        unsafe {
            bytes.take(payload, length);
            target
                .add(wire::HEADER_BYTES)
                .cast::<u64>()
                .write(BlockRef { block, length: length as u32 }.to_word());
            write_header(target, header);
        }
        self.count_frame(lane, stream, header, length, payload);
        stats::process().blocks_sent.add(1);
        Ok(length)
    }

    /// The frame with `header`, which brings `length` bytes of the stream, is written.
    #[inline]
    pub(super) fn count_frame(
        &self,
        lane: &mut LaneSending,
        stream: &Sending,
        header: Header,
        length: usize,
        payload: *const u8,
    ) -> &'static LaneCounters {
        lane.ring.advance(wire::span(header.length) as u64);
        let counters = stats::lane(self.index as usize);
        counters.frames_sent.bump(1);
        if counters.is_traced() {
            let (position, length) = (stream.credit.sent(), length as u32);
            let frame = Frame { kind: header.kind, position, length, payload };
            self.trace_frame(true, header.slot, header.generation, &frame);
        }
        counters
    }

    /// Room for a frame with `length` bytes of payload.
    #[inline]
    fn reserve(&self, lane: &mut LaneSending, length: usize) -> Result<Option<*mut u8>, Trouble> {
        let room = self.segment.reserve(self.side, &mut lane.ring, length);
        room.map_err(|_| self.fail("impossible cursor"))
    }

    /// Whether there is credit and room for more, or the stream is on the kernel.
    pub fn has_room(&self, slot: u32) -> bool {
        let Ok(guard) = self.lock_sending() else { return true };
        let stream = guard.stream(slot);
        if stream.path.path() == Path::Kernel || !self.usable() {
            return true;
        }
        let capacity = u64::from(self.segment.geometry.ring_bytes);
        let credit = self.credit(slot, stream, 1).unwrap_or(1);
        credit > 0
            && guard.lane().ring.room(&self.outgoing().consumer, capacity, capacity / 2).unwrap_or(true)
    }

    /// Whether what this side sends goes through the channel. Such a stream is always writable: what the peer does
    /// not take spills into the kernel's buffers, which are empty as long as the channel is used.
    pub fn sends_here(&self, slot: u32) -> bool {
        if self.recovery(slot) != Recovery::None {
            return false;
        }
        self.own_line(slot).announced.load(Ordering::Relaxed) & 1 == 1
    }

    /// Bytes sent on the stream through the channel.
    pub fn sent_bytes(&self, slot: u32) -> u64 {
        self.lock_sending().map_or(0, |guard| guard.stream(slot).credit.sent())
    }
}
