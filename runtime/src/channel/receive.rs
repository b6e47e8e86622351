//! Receiving on a channel: frames leave the lane and are sorted to their streams (`channel::sort` has one frame). Any
//! thread that waits or reads does this for all streams of the channel.
//! May contain `unsafe`: it hands out what the receive lock guards.

use super::queue::Mode;
use super::sort::{Direct, Step, Wakes};
use super::{Channel, Trouble};
use crate::config::settings;
use crate::inside::Section;
use crate::iov::Cursor;
use crate::shm::lock::LockError;
use crate::shm::party::{Batch, LaneReceiving, NONE, Receiving, Recovery};
use crate::wait::spin;
use crate::{position, stats};
use convoy_aggregator::path::Path;
use convoy_aggregator::wire::Kind;
use core::sync::atomic::Ordering;

/// About a microsecond.
const JUST_NOW_TICKS: u64 = 2_500;

/// What a stream had to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    /// Nothing at the moment, and what comes next comes through the channel.
    Empty,
    /// The next bytes come through the kernel: read there, at most this many.
    Kernel(u64),
}

/// The receive lock, held.
pub struct Guard<'a>(&'a Channel);

impl Guard<'_> {
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn lane(&self) -> &mut LaneReceiving {
        // SAFETY: the lock is held; callers use one reference at a time.
        unsafe { self.0.party.shared().receiving() }
    }

    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn stream(&self, slot: u32) -> &mut Receiving {
        // SAFETY: the lock is held; callers use one reference per stream at a time.
        unsafe { self.0.party.stream(slot).receiving() }
    }

    /// The same if it is still that stream: the slot of one that was closed may be another's, and its lines are reset.
    #[inline]
    pub fn open_stream(&self, slot: u32, generation: u8) -> Result<&mut Receiving, Trouble> {
        let stream = self.stream(slot);
        if stream.open && stream.generation == generation { Ok(stream) } else { Err(Trouble::Closed) }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.party.shared().receive_lock.0.release();
    }
}

impl Channel {
    #[inline]
    pub fn lock_receiving(&self) -> Result<Guard<'_>, Trouble> {
        match self.party.shared().receive_lock.0.acquire() {
            Ok(()) => Ok(Guard(self)),
            Err(LockError::Reentered) => Err(Trouble::Reentered),
            Err(LockError::Abandoned) => Err(self.fail("a process died while it was receiving")),
        }
    }

    /// Reads from a stream into `target`; `fd` is the kernel connection underneath.
    #[inline]
    pub fn receive(
        &self,
        slot: u32,
        generation: u8,
        fd: i32,
        target: &mut Cursor,
        mode: Mode,
    ) -> Result<Received, Trouble> {
        if mode == Mode::Take && self.shows_nothing(slot) {
            return Ok(Received::Empty);
        }
        let _section = Section::new();
        let guard = self.lock_receiving()?;
        guard.open_stream(slot, generation)?;
        if mode == Mode::Take
            && let Some(taken) = self.receive_queued(&guard, slot, target)
        {
            return Ok(Received::Bytes(taken));
        }
        if mode == Mode::Take
            && let Some(received) = self.receive_straight(&guard, slot, target)?
        {
            return Ok(received);
        }
        let mut wakes = Wakes::new(self);
        let received = self.receive_locked(&guard, slot, fd, target, mode, &mut wakes);
        wakes.tell(guard);
        received
    }

    /// What is queued, where that is all that the call can expect.
    #[inline]
    fn receive_queued(&self, guard: &Guard<'_>, slot: u32, target: &mut Cursor) -> Option<usize> {
        if guard.stream(slot).first == NONE || self.glance(slot) != Some(true) {
            return None;
        }
        let enough = || self.queued_bytes(slot) >= target.remaining() as u64;
        if !enough() && !self.was_just_sorted(guard.lane()) {
            return None;
        }
        let taken = self.dequeue(slot, guard.lane(), guard.stream(slot), target, u64::MAX, Mode::Take);
        self.account(slot, guard.stream(slot), taken as u64);
        Some(taken)
    }

    #[inline(never)]
    fn receive_locked(
        &self,
        guard: &Guard<'_>,
        slot: u32,
        fd: i32,
        target: &mut Cursor,
        mode: Mode,
        wakes: &mut Wakes<'_>,
    ) -> Result<Received, Trouble> {
        self.take_changes(wakes);
        let recovery = self.recovery(slot);
        if recovery != Recovery::None {
            return self.receive_returned(guard, slot, target, mode, recovery);
        }
        let stream = guard.stream(slot);
        let limit = match self.path_limit(slot, fd, stream)? {
            (Path::Kernel, limit) => return Ok(Received::Kernel(limit)),
            (Path::Channel, limit) => limit,
        };
        if mode == Mode::Peek {
            self.drain(guard, None, wakes)?;
        }
        let mut taken = self.dequeue(slot, guard.lane(), guard.stream(slot), target, limit, mode);
        if target.remaining() > 0 && mode != Mode::Peek {
            let direct_allowed = mode == Mode::Take && limit == u64::MAX && guard.stream(slot).first == NONE;
            let mut direct = Direct { slot, target, taken: 0 };
            self.drain(guard, direct_allowed.then_some(&mut direct), wakes)?;
            let direct = direct.taken;
            taken += direct;
            if direct == 0 && !direct_allowed {
                let limit = limit.saturating_sub(taken as u64);
                taken += self.dequeue(slot, guard.lane(), guard.stream(slot), target, limit, mode);
            }
        }
        if taken == 0 {
            return if self.usable() { Ok(Received::Empty) } else { Err(Trouble::Broken) };
        }
        if mode != Mode::Peek {
            self.account(slot, guard.stream(slot), taken as u64);
        }
        Ok(Received::Bytes(taken))
    }

    /// Lets `read` take up to so many bytes from the kernel connection `fd`, if the next bytes of the stream are there: also
    /// while the stream is on the channel, if nothing is left or announced there and somebody outside Convoy has sent on
    /// the peer's socket. No other thread reads the stream meanwhile.
    pub fn read_beneath<T>(
        &self,
        slot: u32,
        generation: u8,
        fd: i32,
        read: impl FnOnce(u64) -> T,
    ) -> Result<Option<T>, Trouble> {
        let _section = Section::new();
        let guard = self.lock_receiving()?;
        guard.open_stream(slot, generation)?;
        let mut wakes = Wakes::new(self);
        // Before the path: see aggregator::path on why the order matters.
        let queued = position::readable(fd);
        let most = match self.path_beneath(slot, fd, guard.stream(slot))? {
            (Path::Kernel, limit) => queued.min(limit),
            // From another host such bytes may be of a switch that is still on its way.
            (Path::Channel, _) if self.leads_to_agent() => 0,
            (Path::Channel, u64::MAX) => {
                self.drain(&guard, None, &mut wakes)?;
                if guard.stream(slot).first == NONE { queued } else { 0 }
            }
            (Path::Channel, _) => 0,
        };
        let result = (most > 0).then(|| read(most));
        wakes.tell(guard);
        Ok(result)
    }

    /// Books consumed bytes and tells the sender of new credit.
    #[inline]
    pub(super) fn account(&self, slot: u32, stream: &mut Receiving, bytes: u64) {
        let Some(limit) = stream.credit.on_consumed(bytes) else {
            return;
        };
        self.own_line(slot).limit.store(limit, Ordering::Release);
        self.changed(slot);
        if self.is_traced() {
            self.trace_credit(slot, stream.generation, limit);
        }
        self.adapt_window(slot, stream);
    }

    /// Sorts all published frames; used by those who wait.
    pub fn sort(&self) -> Result<(), Trouble> {
        if !self.has_frames() || !self.usable() {
            return Ok(());
        }
        let _section = Section::new();
        let guard = self.lock_receiving()?;
        let mut wakes = Wakes::new(self);
        self.take_changes(&mut wakes);
        let result = self.drain(&guard, None, &mut wakes);
        wakes.tell(guard);
        result
    }

    /// Takes what the peer has written and holds back as well: it may never publish it, because it is dead.
    #[cold]
    pub fn reveal(&self) {
        let _section = Section::new();
        let Ok(guard) = self.lock_receiving() else { return };
        let capacity = u64::from(self.segment.geometry.ring_bytes);
        let revealed = guard.lane().ring.reveal(&self.incoming().producer, capacity);
        let mut wakes = Wakes::new(self);
        match revealed {
            Ok(true) => drop(self.drain(&guard, None, &mut wakes)),
            Ok(false) => {}
            Err(_) => drop(self.fail("impossible cursor")),
        }
        wakes.tell(guard);
    }

    /// Sorts what is published. Batches are closed at the user's thresholds: then the sender gets its room back.
    fn drain(
        &self,
        guard: &Guard<'_>,
        mut direct: Option<&mut Direct<'_>>,
        wakes: &mut Wakes<'_>,
    ) -> Result<(), Trouble> {
        let capacity = u64::from(self.segment.geometry.ring_bytes);
        let incoming = self.incoming();
        let lane = guard.lane();
        match lane.ring.refresh(&incoming.producer, capacity) {
            Ok(true) if self.usable() => {}
            Ok(_) => return Ok(()),
            Err(_) => return Err(self.fail("impossible cursor")),
        }
        let mut frames = 0;
        loop {
            let (offset, available) = lane.ring.next(capacity);
            if available == 0 {
                break;
            }
            let (header, span) = self.header_at(offset, available)?;
            if header.kind != Kind::Pad {
                match self.sort_frame(guard, lane, header, offset, &mut direct, wakes)? {
                    Step::Next => frames += 1,
                    Step::Stop => break,
                }
            }
            let full = header.kind != Kind::Pad && self.count_in_batch(lane, available, header.length);
            lane.ring.advance(span);
            if full {
                lane.batch.end = lane.ring.head();
                self.give_room(lane);
            } else if lane.ring.unreleased() >= capacity / 4 {
                lane.ring.release(&incoming.consumer);
            }
        }
        self.give_room(lane);
        if frames > 0 {
            self.note_taken(lane, frames);
        }
        Ok(())
    }

    /// So many frames have left the lane.
    #[inline]
    pub(super) fn note_taken(&self, lane: &mut LaneReceiving, frames: u64) {
        lane.sorted = position::ticks();
        spin::found(lane.sorted);
        self.note_find();
        stats::lane(self.index as usize).frames_received.bump(frames);
    }

    /// Whether the lane was looked at a moment ago. To look again costs a cache line that the sender writes, so a call that has got
    /// bytes is content with what was there then: what is sent while another processor reads arrives a little later in the kernel
    /// too. Within one process what has been sent can be read at once.
    #[inline]
    fn was_just_sorted(&self, lane: &LaneReceiving) -> bool {
        self.peer != self.maker && position::ticks().wrapping_sub(lane.sorted) < JUST_NOW_TICKS
    }

    /// What was taken so far is the sender's again.
    #[inline]
    pub(super) fn give_room(&self, lane: &mut LaneReceiving) {
        self.party.shared().taken.store(lane.ring.head(), Ordering::Release);
        lane.ring.release(&self.incoming().consumer);
    }

    /// Counts a frame, before it leaves the lane, in the batch it belongs to; true when that batch is full then.
    #[inline]
    pub(super) fn count_in_batch(&self, lane: &mut LaneReceiving, available: u64, bytes: u32) -> bool {
        let head = lane.ring.head();
        let batch = &mut lane.batch;
        if batch.end <= head {
            *batch = Batch { end: head + available, frames: 0, bytes: 0 };
            stats::lane(self.index as usize).batches_received.bump(1);
        }
        batch.frames += 1;
        batch.bytes = batch.bytes.saturating_add(bytes);
        batch.frames >= settings().batch_frames || batch.bytes >= settings().batch_bytes
    }

    /// Drops what this side has not read of a stream that it closes; true when there was anything.
    pub(super) fn drop_unread(&self, slot: u32) -> bool {
        let _section = Section::new();
        let Ok(guard) = self.lock_receiving() else {
            return false;
        };
        let mut wakes = Wakes::new(self);
        let _ = self.drain(&guard, None, &mut wakes);
        let stream = guard.stream(slot);
        stream.open = false;
        let unread = self.drop_queue(slot, guard.lane(), stream);
        wakes.tell(guard);
        unread > 0
    }
}
