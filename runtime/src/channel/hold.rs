//! Holding: what a user who set CONVOY_BATCH_DELAY_US asked for. Frames are written into the lane and not published
//! until the batch is full, its time is up, or this process finds nothing to do.
//!
//! Without a delay nothing here is called but [`release_all`], which is then one load. `aggregator::gather` decides
//! when a batch is full; `flusher` has the clock. Here: the list of streams whose receivers must be told, and
//! publishing. A frame larger than CONVOY_COALESCE_MAX and one of a stream that several processes hold leave at once:
//! the latter because the process whose clock runs may be killed while another keeps the connection open. What the
//! last holder leaves behind when it is killed is found by the receiver (`Channel::reveal`).

use super::Channel;
use super::send::Guard;
use crate::config::{Settings, settings};
use crate::inside::Section;
use crate::shm::party::{Held, LaneSending, Sending};
use crate::shm::waiters::Bells;
use crate::{bell, flusher, sys};
use convoy_aggregator::gather::{Flush, Gather, Thresholds};
use core::sync::atomic::{AtomicBool, Ordering, fence};

/// End of the list of streams with held frames; other values are a slot + 1, and 0 is "not in the list".
const LAST: u32 = u32::MAX;
/// How many different sets of bells are remembered until the lock is free.
const MOST_DUE: usize = 8;

/// Set when this process has begun a batch; a thread that waits clears it and publishes.
static HOLDING: AtomicBool = AtomicBool::new(false);

/// Publishes what this process holds; to be called before a wait, and when a read finds nothing.
#[inline]
pub fn release_all() {
    if HOLDING.load(Ordering::Relaxed) {
        release_each();
    }
}

#[cold]
fn release_each() {
    if HOLDING.swap(false, Ordering::SeqCst) {
        super::all().filter(|channel| channel.held_until() != 0).for_each(Channel::publish_held);
    }
}

/// Publishes what should have left by now; when the next batch is due (microseconds of [`now_us`]), if there is one.
pub fn release_due() -> Option<u64> {
    let now = now_us();
    let due = |channel: &&Channel| (1..=now).contains(&channel.held_until());
    super::all().filter(due).for_each(Channel::publish_held);
    next_due()
}

/// When the next batch is due, if there is one.
pub fn next_due() -> Option<u64> {
    super::all().map(Channel::held_until).filter(|until| *until != 0).min()
}

/// The clock of batches.
pub fn now_us() -> u64 {
    sys::now_ns() / 1000
}

/// The state of a new lane; `never` where somebody else gathers.
pub(super) fn new(settings: &Settings, never: bool) -> Held {
    let thresholds = Thresholds {
        bytes: settings.batch_bytes,
        frames: settings.batch_frames,
        delay_us: settings.batch_delay_us,
    };
    Held {
        on: settings.batch_delay_us > 0 && !never,
        due: false,
        first: LAST,
        gather: Gather::new(thresholds),
    }
}

/// Bells of receivers whose frames were published, to be rung when the lock is free.
#[must_use]
pub(super) struct Due {
    bells: [Option<Bells>; MOST_DUE],
    count: usize,
}

impl Due {
    fn add(&mut self, bells: Bells) {
        if bells.is_empty() || self.bells[..self.count].contains(&Some(bells)) {
            return;
        }
        match self.bells.get_mut(self.count) {
            Some(place) => {
                *place = Some(bells);
                self.count += 1;
            }
            // So many different sleepers are rare: these are rung under the lock.
            None => bell::ring_all(bells),
        }
    }

    pub(super) fn ring(self) {
        self.bells.into_iter().flatten().for_each(bell::ring_all);
    }
}

impl Channel {
    /// When the frames that are held leave at the latest; 0 when there are none. Needs no lock.
    fn held_until(&self) -> u64 {
        self.party.shared().held_until.load(Ordering::SeqCst)
    }

    /// A frame with `bytes` of payload was written and joins the batch.
    #[cold]
    pub(super) fn hold(&self, slot: u32, lane: &mut LaneSending, stream: &mut Sending, bytes: usize) {
        if stream.next_held == 0 {
            stream.next_held = core::mem::replace(&mut lane.held.first, slot + 1);
        }
        let alone = bytes > settings().coalesce_max as usize
            || self.party.stream(slot).holders.load(Ordering::Relaxed) > 1;
        match lane.held.gather.push(now_us(), bytes as u32) {
            Flush::Hold { until_us } if !alone => {
                lane.ring.note(&self.outgoing().producer);
                self.party.shared().held_until.store(until_us, Ordering::SeqCst);
            }
            _ => {
                lane.ring.publish(&self.outgoing().producer);
                lane.held.gather.on_flush();
                lane.held.due = true;
            }
        }
    }

    /// After a send call whose frames joined the batch; `all` when none of its bytes are left.
    #[cold]
    pub(super) fn after_holding(&self, guard: Guard<'_>, all: bool) {
        let lane = guard.lane();
        if lane.held.due || !all {
            let due = self.release(&guard);
            drop(guard);
            due.ring();
            return;
        }
        drop(guard);
        let until = self.held_until();
        if until == 0 {
            return;
        }
        HOLDING.swap(true, Ordering::SeqCst);
        if !flusher::arm(until) {
            self.publish_held();
        }
    }

    /// Publishes held frames; the caller holds the send lock, and rings when it has given it up.
    pub(super) fn release(&self, guard: &Guard<'_>) -> Due {
        let lane = guard.lane();
        let mut due = Due { bells: [None; MOST_DUE], count: 0 };
        if !lane.held.on || lane.held.first == LAST {
            return due;
        }
        lane.ring.publish(&self.outgoing().producer);
        lane.held.gather.on_flush();
        lane.held.due = false;
        self.party.shared().held_until.store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while lane.held.first != LAST {
            let slot = lane.held.first - 1;
            lane.held.first = core::mem::take(&mut guard.stream(slot).next_held);
            due.add(self.peer_line(slot).receive_waiters.snapshot());
        }
        due
    }

    /// Publishes what is held on this channel, and wakes its receivers.
    pub fn publish_held(&self) {
        if self.held_until() == 0 {
            return;
        }
        let _section = Section::new();
        if let Ok(guard) = self.lock_sending() {
            let due = self.release(&guard);
            drop(guard);
            due.ring();
        }
    }
}
