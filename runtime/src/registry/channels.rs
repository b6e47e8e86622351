//! Which channels exist: one per pair of processes.

use super::{CHANNELS, Locked, PROBES, hash};
use crate::process::Identity;
use core::sync::atomic::{AtomicU64, Ordering};

/// A channel; all words are written under the registry's lock. `serial` 0 = free.
#[repr(C)]
pub struct ChannelRecord {
    serial: AtomicU64,
    /// Side 0, which made the segment.
    creator: AtomicU64,
    /// Side 1.
    other: AtomicU64,
    /// The creator's descriptor of the segment, reachable as /proc/PID/fd/N until side 1 has attached.
    descriptor: AtomicU64,
}

crate::anchor::layout! {
    /// Where a record's words lie.
    ChannelRecordLayout of ChannelRecord { serial, creator, other, descriptor }
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub serial: u64,
    pub sides: [Identity; 2],
    pub descriptor: i32,
}

impl Locked<'_> {
    fn records(&self, one: Identity, two: Identity) -> impl Iterator<Item = &ChannelRecord> {
        let start = hash(&[one.0.min(two.0), one.0.max(two.0)]) as usize;
        (0..PROBES).map(move |step| &self.0.channels[(start + step) % CHANNELS])
    }

    /// The channel between two processes, if there is one.
    pub fn channel_between(&self, one: Identity, two: Identity) -> Option<Found> {
        self.records(one, two)
            .map(ChannelRecord::found)
            .find(|found| found.serial != 0 && (found.sides == [one, two] || found.sides == [two, one]))
    }

    /// Enters a new channel; false when there is no place.
    pub fn enter_channel(&self, found: Found) -> bool {
        let [one, two] = found.sides;
        let free = |record: &&ChannelRecord| record.serial.load(Ordering::Relaxed) == 0;
        let dead = |record: &&ChannelRecord| {
            let sides = record.found().sides;
            sides.iter().any(|side| !side.alive())
        };
        let place = self.records(one, two).find(free).or_else(|| self.records(one, two).find(dead));
        let Some(record) = place else { return false };
        record.creator.store(one.0, Ordering::Relaxed);
        record.other.store(two.0, Ordering::Relaxed);
        record.descriptor.store(found.descriptor as u64, Ordering::Relaxed);
        record.serial.store(found.serial, Ordering::Relaxed);
        true
    }
}

impl ChannelRecord {
    fn found(&self) -> Found {
        let identity = |word: &AtomicU64| Identity(word.load(Ordering::Relaxed));
        Found {
            serial: self.serial.load(Ordering::Relaxed),
            sides: [identity(&self.creator), identity(&self.other)],
            descriptor: self.descriptor.load(Ordering::Relaxed) as i32,
        }
    }
}
