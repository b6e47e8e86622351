//! The registry: a small shared file per user in which the two ends of a connection find each other.
//!
//! An end that wants to leave the kernel enters an *offer* under its connection's addresses; the second to come
//! finds the first. Beside the offers stand the channels that exist (one per pair of processes) and the bells
//! of sleeping threads. One lock guards all slow changes; states that are polled are single atomic words.
//! Only processes of one user can open the file; its numbers are still range-checked before use.

mod channels;
mod memory;
mod offers;
#[cfg(test)]
mod tests;

pub use channels::{ChannelRecord, Found};
pub use memory::Others;
pub use offers::{Answer, Key, Offer, OfferRef, Progress};

use crate::process::{self, Identity};
use crate::{inside, sys};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"convoyR1");
/// Counted up when the words of the registry or of segments mean something else than before, at the same size.
const REVISION: usize = 1;
/// How many bells there can be; a number fits 16 bits and 0 is none.
pub const BELLS: usize = 4096;
const OFFERS: usize = 8192;
const CHANNELS: usize = 8192;
/// Places for spinning threads.
const MOST_SPINNERS: usize = 64;
/// In ticks, about 20 us.
const PROGRESS_APART: i64 = 50_000;
/// How far from its place by hash an entry may stand.
const PROBES: usize = 32;

/// The mapped file.
#[repr(C)]
pub struct Registry {
    magic: AtomicU64,
    /// Identity of the holder, 0 when free. Acquire on taking pairs with Release on giving up.
    lock: AtomicU64,
    /// Next channel serial; changed under the lock.
    serial: AtomicU64,
    /// Places of threads of this user that spin at this moment: identity of their process, 0 = free. Claimed by
    /// compare-and-swap; a place of a dead process may be taken over.
    spinners: [Line; MOST_SPINNERS],
    /// When a thread of this user last found what it waited for, roughly, in ticks. Written by any of them, not more often than a line
    /// that all look at bears; Relaxed: a hint.
    progress: Line,
    /// Processors that any process of this user has been allowed to use (a bit each), and how many those are. Added to
    /// by every process that joins; bits of processes that are gone do no harm.
    cpus: [AtomicU64; sys::CPU_WORDS],
    cpu_count: AtomicU64,
    memory: [memory::MemoryRecord; memory::PROCESSES],
    bells: [BellRecord; BELLS],
    offers: [Offer; OFFERS],
    channels: [ChannelRecord; CHANNELS],
}

/// Where the registry's entries lie, for those who read it from outside.
pub mod layout {
    use super::{BellRecord, Registry};

    pub(crate) const OFFERS: u64 = super::OFFERS as u64;
    pub(crate) const BELLS: u64 = super::BELLS as u64;
    pub(crate) const CHANNELS: u64 = super::CHANNELS as u64;

    crate::anchor::layout! {
        /// Where the registry's parts lie.
        RegistryLayout of Registry { lock, bells, offers, channels }
    }
    crate::anchor::layout! {
        /// Where a bell's words lie.
        BellLayout of BellRecord { owner, sleepers, rung }
    }
    pub use super::channels::ChannelRecordLayout;
    pub use super::offers::OfferLayout;
}

/// A word on a line of its own: as a place to spin it is taken and left for every message of a busy pair.
#[repr(C, align(64))]
struct Line(AtomicU64);

/// Where a thread of this process span last, which no other has used meanwhile as a rule.
static LAST_PLACE: AtomicUsize = AtomicUsize::new(0);

/// A bell: see `bell`.
#[repr(C, align(64))]
pub struct BellRecord {
    /// Identity of the process that sleeps by this bell; 0 = free. Claimed by compare-and-swap.
    pub owner: AtomicU64,
    /// How many threads sleep or are about to; written by the owner.
    pub sleepers: AtomicU32,
    /// 1 from the ring until the woken thread looks; written by both.
    pub rung: AtomicU32,
}

impl Registry {
    /// Changes with the layout, so that versions that differ do not meet.
    pub const LAYOUT: usize =
        size_of::<Self>() ^ size_of::<crate::shm::segment::SideLine>() << 24 ^ REVISION << 40;

    /// Maps the file behind `fd`, which is made on first use.
    pub fn open(fd: i32) -> sys::Answer<&'static Self> {
        let bytes = size_of::<Self>();
        let size = sys::fstat(fd)?.st_size as usize;
        if size != 0 && size != bytes {
            return Err(libc::EPROTO);
        }
        // Reserved, so that a full file system is an error here and not a SIGBUS later.
        sys::fallocate(fd, 0, 0, bytes as u64)?;
        let base = sys::map_guarded(fd, bytes)?;
        // SAFETY: the mapping has the size of the type, all zero is valid, only atomics inside, never unmapped.
        let registry: &'static Self = unsafe { &*base.cast::<Self>() };
        match registry.magic.compare_exchange(0, MAGIC, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(MAGIC) => Ok(registry),
            Err(_) => Err(libc::EPROTO),
        }
    }

    /// Takes the lock; nothing when its holder does not give it up in time (a stopped process).
    pub fn lock(&self) -> Option<Locked<'_>> {
        let own = process::own();
        inside::enter();
        for turn in 0..400u32 {
            match self.lock.compare_exchange(0, own.0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Locked(self)),
                Err(holder) if turn % 100 == 99 && !Identity(holder).alive() => {
                    // The holder died: its entries are all single words or unanswered offers, so go on.
                    let _ = self.lock.compare_exchange(holder, 0, Ordering::Acquire, Ordering::Relaxed);
                }
                Err(_) if turn < 50 => sys::sched_yield(),
                Err(_) => sys::sleep_ns(20_000),
            }
        }
        inside::leave();
        None
    }

    /// Adds the processors this process may use.
    pub fn add_cpus(&self, mask: &[u64; sys::CPU_WORDS]) {
        let merged =
            self.cpus.iter().zip(mask).map(|(known, own)| known.fetch_or(*own, Ordering::Relaxed) | own);
        self.cpu_count.store(merged.map(|word| u64::from(word.count_ones())).sum(), Ordering::Relaxed);
    }

    /// How many processors there are for the processes that meet here.
    #[inline]
    pub fn cpus(&self) -> usize {
        self.cpu_count.load(Ordering::Relaxed) as usize
    }

    /// Takes a place to spin; nothing when as many threads spin already as there are processors.
    #[inline]
    pub fn begin_spin(&self, owner: Identity) -> Option<&AtomicU64> {
        let places = self.spinners.get(..self.cpus().min(MOST_SPINNERS))?;
        let claim = |place: &Line| {
            place.0.load(Ordering::Relaxed) == 0
                && place.0.compare_exchange(0, owner.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if let Some(last) = places.get(LAST_PLACE.load(Ordering::Relaxed)).filter(|place| claim(place)) {
            return Some(&last.0);
        }
        let found = places.iter().position(claim)?;
        LAST_PLACE.store(found, Ordering::Relaxed);
        places.get(found).map(|place| &place.0)
    }

    /// Frees the places of processes that died while they spun.
    pub fn sweep_spinners(&self) {
        for Line(place) in &self.spinners {
            let holder = place.load(Ordering::Relaxed);
            if holder != 0 && !Identity(holder).alive() {
                let _ = place.compare_exchange(holder, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// A thread has found what it waited for, at that time in ticks.
    #[inline]
    pub fn note_progress(&self, now: u64) {
        if now.wrapping_sub(self.last_progress()) as i64 > PROGRESS_APART {
            self.progress.0.store(now, Ordering::Relaxed);
        }
    }

    /// When a thread last did, to within [`PROGRESS_APART`].
    #[inline]
    pub fn last_progress(&self) -> u64 {
        self.progress.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn bell(&self, number: u16) -> &BellRecord {
        &self.bells[number as usize % BELLS]
    }

    /// Claims a free bell, or one whose owner died.
    pub fn claim_bell(&self, owner: Identity) -> Option<u16> {
        let start = (owner.0 >> 32) as usize;
        let numbers = (0..BELLS).map(|step| (start + step) % BELLS).filter(|&number| number != 0);
        let claim = |number: &usize, from: u64| {
            let word = &self.bells[*number].owner;
            word.compare_exchange(from, owner.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let mut found = numbers.clone().find(|number| claim(number, 0));
        if found.is_none() {
            found = numbers.clone().find(|number| {
                let old = self.bells[*number].owner.load(Ordering::Relaxed);
                !Identity(old).alive() && claim(number, old)
            });
        }
        let number = found? as u16;
        let bell = self.bell(number);
        bell.sleepers.store(0, Ordering::Relaxed);
        bell.rung.store(0, Ordering::Release);
        Some(number)
    }
}

/// The registry while its lock is held.
pub struct Locked<'a>(&'a Registry);

impl Locked<'_> {
    /// A number no other channel of this registry has.
    pub fn next_serial(&self) -> u64 {
        self.0.serial.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.lock.store(0, Ordering::Release);
        inside::leave();
    }
}

/// Spreads keys over a table (FNV-1a over words).
pub fn hash(words: &[u64]) -> u64 {
    let mixed = words.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, word| {
        (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23)
    });
    mixed ^ mixed >> 29
}
