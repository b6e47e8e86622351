//! A channel: the shared memory between two processes, over which all streams between them travel.
//!
//! Here: one channel, its slots and its end. `channel::list` makes, attaches and finds channels; `channel::send`,
//! `channel::receive` and `channel::sort` move frames; `channel::reading` says from which path; `channel::queue` keeps what was received and not yet read;
//! `channel::recall` brings a stream back to the kernel; `channel::failure` ends a channel whose peer lies; `channel::far` has
//! what is different when the other end is on another host.

mod failure;
mod far;
pub mod far_return;
mod half_close;
pub mod hold;
mod list;
#[cfg(any(test, feature = "fuzz"))]
pub mod pair;
mod peek;
pub mod queue;
mod reading;
pub mod recall;
pub mod receive;
mod rest;
pub mod send;
mod sort;
mod straight;
mod switch;
#[cfg(test)]
mod tests;
mod unread;
mod way;
mod window;

use crate::process::{self, Identity};
use crate::room::Words;
use crate::shm::party::{LaneSending, NONE, Party, Recovery};
use crate::shm::segment::{LaneLines, Segment, SideHeader, SideLine, SlotState};
use crate::{memory, stats, table};
use convoy_aggregator::credit::{ReceiveCredit, SendCredit};
use convoy_aggregator::path::{ReceivePath, SendPath};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

pub use failure::{after_fork_in_child, await_resets};
pub use list::{
    AGENT_SERIAL, MOST, all, anchored, at, at_exit, moved, of_answer, refuse, with_agent, with_peer,
};
pub use rest::{Rest, register};
pub use way::Way;

/// How many closed slots are looked at for one whose other end is closed too.
const FREE_LOOKS: u32 = 8;

/// One side's end of a channel. Freed long after it has ended: a thread may still look at it.
pub struct Channel {
    pub segment: Segment,
    pub party: Party,
    /// 0 for the process that made the segment.
    pub side: usize,
    pub serial: u64,
    pub peer: Identity,
    /// The process that entered it here; a forked child only uses the streams it has inherited.
    maker: Identity,
    pub index: u32,
    /// The creator's descriptor of the segment until the other side has attached.
    descriptor: AtomicI32,
    /// The other side is this host's agent, which passes everything on to another host.
    way: Option<Way>,
    /// Streams this process has open on it.
    pub streams: AtomicU32,
    /// Slot to socket index + 1, in this process.
    sockets: Words,
    /// Slot to bytes that this process has reserved for the window of its stream; 0 for one that it has not, or has given up.
    reserved: Words,
    /// The peer is gone and no stream is left: the place may be used for another channel.
    retired: AtomicBool,
}

crate::anchor::layout! {
    /// Where a channel's fields lie; `sockets` is an address and a length.
    ChannelLayout of Channel { segment, party, side, serial, peer, index, descriptor, sockets, retired }
}

/// Set by the first fork with streams: another process may sort frames of a channel that this process uses too.
static FORKED: AtomicBool = AtomicBool::new(false);

pub fn any_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

pub fn note_fork() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Set with the first channel to an agent.
static FAR: AtomicBool = AtomicBool::new(false);

/// Whether this process has (or had) a channel to an agent.
#[inline]
pub fn any_far() -> bool {
    FAR.load(Ordering::Relaxed)
}

/// Why a channel takes no further stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// CONVOY_MEMORY_LIMIT.
    Memory,
    /// All slots are in use.
    Slots,
}

/// What went wrong with a channel as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be used any more: the peer lied, or a process died while it held a lock.
    Broken,
    /// A signal handler interrupted this thread inside the channel.
    Reentered,
    /// Another thread has closed the stream.
    Closed,
    /// The connection was reset before bytes arrived that come next: what is beyond them is never delivered.
    Lost,
}

impl Channel {
    pub fn usable(&self) -> bool {
        !self.party.shared().broken.load(Ordering::Relaxed)
    }

    /// The line this side writes for a slot.
    #[inline]
    pub fn own_line(&self, slot: u32) -> &'static SideLine {
        self.segment.line(slot, self.side)
    }

    /// The line the peer writes for a slot.
    #[inline]
    pub fn peer_line(&self, slot: u32) -> &'static SideLine {
        self.segment.line(slot, self.side ^ 1)
    }

    /// What this side says in the segment's head.
    #[inline]
    fn own_side(&self) -> &'static SideHeader {
        self.segment.side(self.side)
    }

    /// Cursor lines of the direction this side sends on.
    #[inline]
    pub fn outgoing(&self) -> &'static LaneLines {
        self.segment.lane(self.side)
    }

    /// Cursor lines of the direction this side receives on.
    #[inline]
    pub fn incoming(&self) -> &'static LaneLines {
        self.segment.lane(self.side ^ 1)
    }

    /// Whether the peer has published frames, or an agent news, that nobody here has taken yet; may be stale.
    #[inline]
    pub fn has_frames(&self) -> bool {
        if !self.usable() {
            return false;
        }
        let taken = self.party.shared().taken.load(Ordering::Acquire);
        let published = crate::shm::ring::Consumer::published_beyond(&self.incoming().producer, taken);
        if published {
            self.segment.fetch_for_reading(self.side ^ 1, taken);
        }
        published || self.has_changes()
    }

    /// Whether everything published has been taken; a cursor that has gone back, as none does that can be believed, is no such sign.
    #[inline]
    fn is_lane_empty(&self) -> bool {
        let taken = self.party.shared().taken.load(Ordering::Acquire);
        crate::shm::ring::Consumer::published(&self.incoming().producer) == taken
    }

    /// The socket of this process that uses a slot, as index + 1.
    #[inline]
    pub fn socket_of(&self, slot: u32) -> u32 {
        self.sockets.get(slot as usize).map_or(0, |socket| socket.load(Ordering::Relaxed))
    }

    pub fn set_socket(&self, slot: u32, socket: Option<u32>) {
        if let Some(word) = self.sockets.get(slot as usize) {
            word.store(socket.map_or(0, |index| index + 1), Ordering::Relaxed);
        }
    }

    /// Takes a free slot for a new stream that this side opens, of the connection with that mark; its generation.
    pub fn open_slot(&self, mark: u64) -> Result<(u32, u8), Shortage> {
        self.close_descriptor_once_attached();
        let window = memory::reserve_window();
        if window == 0 {
            return Err(Shortage::Memory);
        }
        let free = self.lock_sending().ok().and_then(|guard| self.free_slot(guard.lane()));
        let Some((slot, generation)) = free else {
            memory::release_stream(window);
            return Err(Shortage::Slots);
        };
        self.peer_line(slot).reset();
        self.own_line(slot).reset();
        let opened = self.open_within(slot, generation, window, mark);
        opened.then_some((slot, generation)).ok_or(Shortage::Slots)
    }

    /// One side hands out slots from the first on, the other from the last on, until they meet: so few pages are touched, and one
    /// side that opens all streams has all slots.
    fn free_slot(&self, lane: &mut LaneSending) -> Option<(u32, u8)> {
        for _ in 0..FREE_LOOKS {
            let oldest = lane.first_free;
            if oldest == NONE {
                break;
            }
            // SAFETY: the send lock is held by the caller.
            let sending = unsafe { self.party.stream(oldest).sending() };
            lane.first_free = sending.next_free;
            if lane.first_free == NONE {
                lane.last_free = NONE;
            }
            if matches!(self.peer_line(oldest).state(sending.generation), SlotState::Closed) {
                return Some((oldest, sending.generation.wrapping_add(1)));
            }
            // The peer has not closed its end yet: others first.
            self.append_free(lane, oldest);
        }
        let slots = self.party.slots();
        (lane.fresh_slot < slots && self.segment.hand_out(self.side)).then(|| lane.fresh_slot += 1)?;
        let slot = if self.side == 0 { lane.fresh_slot - 1 } else { slots - lane.fresh_slot };
        if self.party.stream(slot).open.load(Ordering::Acquire) != 0 {
            self.fail("impossible slot");
            return None;
        }
        Some((slot, 1))
    }

    /// Whether this side has handed out that slot.
    fn handed_out(&self, slot: u32, lane: &LaneSending) -> bool {
        match self.side {
            0 => slot < lane.fresh_slot,
            _ => slot >= self.party.slots() - lane.fresh_slot,
        }
    }

    /// Joins the stream that the peer has opened: initialises this side's end of a slot and says that it is open. False when memory
    /// is short, when the slot is in use, or when the peer has not opened it for the connection with that `mark`: what has named
    /// the slot, the registry, may be another's lie. An agent names it itself, and there are no marks.
    pub fn open_end(&self, slot: u32, generation: u8, mark: Option<u64>) -> bool {
        if mark.is_some_and(|mark| !self.peer_line(slot).is_open_for(generation, mark)) {
            return false;
        }
        let in_use = self.party.stream(slot).open.load(Ordering::Acquire) != 0;
        let own = || self.lock_sending().is_ok_and(|guard| self.handed_out(slot, guard.lane()));
        if in_use || own() {
            return false;
        }
        let window = memory::reserve_window();
        window > 0 && self.open_within(slot, generation, window, mark.unwrap_or(0))
    }

    /// The same with a window that was reserved; false, and the window given back, when the channel has ended.
    fn open_within(&self, slot: u32, generation: u8, window: u32, mark: u64) -> bool {
        let stream = self.party.stream(slot);
        let (Ok(receiving), Ok(sending)) = (self.lock_receiving(), self.lock_sending()) else {
            memory::release_stream(window);
            return false;
        };
        // Frames of the stream before may still be held.
        let next_held = sending.stream(slot).next_held;
        *sending.stream(slot) = crate::shm::party::Sending {
            credit: SendCredit::default(),
            path: SendPath::default(),
            next_free: NONE,
            next_held,
            generation,
            stay: false,
        };
        let mut credit = ReceiveCredit::new(u64::from(window));
        let limit = credit.grant_now();
        *receiving.stream(slot) = crate::shm::party::Receiving {
            credit,
            path: ReceivePath::default(),
            first: NONE,
            last: NONE,
            window,
            granted_at: window::now(),
            generation,
            open: true,
            recalled: false,
        };
        stream.queued.store(0, Ordering::Relaxed);
        stream.unsettle();
        stream.forget_kernel_sends();
        stream.shut_after.store(0, Ordering::Relaxed);
        stream.end_recovery(Recovery::None);
        stream.holders.store(1, Ordering::Relaxed);
        self.note_window(slot, window);
        // Before other threads find the stream open: one that answers the peer writes into the line.
        let line = self.own_line(slot);
        line.reset();
        line.limit.store(limit, Ordering::Relaxed);
        line.set_mark(mark);
        line.set_state(generation, SlotState::Open);
        stream.open.store(1, Ordering::Release);
        drop((sending, receiving));
        self.changed(slot);
        self.streams.fetch_add(1, Ordering::Relaxed);
        stats::process().streams_opened.add(1);
        true
    }

    /// Ends this side of a stream: unread bytes are dropped; true when there were any.
    pub fn close_end(&self, slot: u32, generation: u8) -> bool {
        self.forget_socket(slot);
        let unread = self.drop_unread(slot);
        self.release_window(slot);
        if self.is_traced() {
            self.trace_close(slot, generation, unread);
        }
        if let Ok(guard) = self.lock_sending() {
            self.party.stream(slot).open.store(0, Ordering::Release);
            self.own_line(slot).set_state(generation, SlotState::Closed);
            self.changed(slot);
            if self.handed_out(slot, guard.lane()) {
                self.append_free(guard.lane(), slot);
            }
        }
        self.streams.fetch_sub(1, Ordering::Relaxed);
        stats::process().streams_closed.add(1);
        unread
    }

    /// This process is through with a stream with which another one goes on.
    pub fn give_up(&self, slot: u32) {
        self.forget_socket(slot);
        self.release_window(slot);
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    fn append_free(&self, lane: &mut LaneSending, slot: u32) {
        // SAFETY: the send lock is held by the callers; one reference at a time.
        unsafe { self.party.stream(slot).sending() }.next_free = NONE;
        let last = core::mem::replace(&mut lane.last_free, slot);
        if last == NONE {
            lane.first_free = slot;
        } else {
            // SAFETY: as above.
            unsafe { self.party.stream(last).sending() }.next_free = slot;
        }
    }

    fn close_descriptor_once_attached(&self) {
        if self.side == 0 && self.segment.side(1).attached.load(Ordering::Acquire) != 0 {
            self.close_descriptor();
        }
    }

    fn close_descriptor(&self) {
        let fd = self.descriptor.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            table::abandon(fd);
        }
    }

    /// Whether it was there before the fork that made this process.
    pub fn is_inherited(&self) -> bool {
        self.maker != process::own()
    }

    /// Ends a channel whose peer is gone and that no stream uses, nor who closes the way to an agent.
    pub fn retire_if_dead(&self) {
        if !self.is_inherited()
            && self.streams.load(Ordering::Relaxed) == 0
            && !self.retired.load(Ordering::Relaxed)
            && !self.peer_alive()
            && !self.is_to_be_closed()
        {
            self.party.shared().broken.store(true, Ordering::Relaxed);
            self.close_descriptor();
            self.segment.release_pages();
            self.party.release_pages();
            self.party.shared().broken.store(true, Ordering::Relaxed);
            self.retired.store(true, Ordering::Release);
        }
    }
}
