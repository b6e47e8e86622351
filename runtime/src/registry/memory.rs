//! What each process of the user has promised to buffer, so that all of them stay within one limit. Words that any process of the
//! user may write: a wrong one makes the others take less than they could, but never less than a share of their own.

use super::Registry;
use crate::process::Identity;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many processes are counted; what others take is not seen.
pub(super) const PROCESSES: usize = 1024;

/// A process and what it has promised, in bytes. Relaxed throughout: each word stands for itself.
#[repr(C)]
pub struct MemoryRecord {
    /// 0 = free. Claimed by compare-and-swap; one of a dead process may be taken over.
    owner: AtomicU64,
    bytes: AtomicU64,
}

/// What the other processes of the user have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How many have something.
    pub processes: u64,
    /// Bytes they have promised.
    pub bytes: u64,
}

impl Registry {
    /// Says what this process has promised.
    pub fn note_memory(&self, own: Identity, bytes: u64) {
        if let Some(record) = self.memory_record(own) {
            record.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Sums up what others have promised. Where that is more than `plenty`, processes that have ended are looked for first.
    pub fn memory_of_others(&self, own: Identity, plenty: u64) -> Others {
        let others = self.sum_of_others(own);
        if others.bytes <= plenty {
            return others;
        }
        self.forget_dead();
        self.sum_of_others(own)
    }

    fn sum_of_others(&self, own: Identity) -> Others {
        let mut others = Others::default();
        for record in &self.memory {
            let (owner, bytes) = (record.owner.load(Ordering::Relaxed), record.bytes.load(Ordering::Relaxed));
            if owner != 0 && owner != own.0 && bytes != 0 {
                others.processes += 1;
                others.bytes = others.bytes.saturating_add(bytes);
            }
        }
        others
    }

    fn forget_dead(&self) {
        for record in &self.memory {
            let owner = record.owner.load(Ordering::Relaxed);
            if owner != 0 && !Identity(owner).alive() {
                record.bytes.store(0, Ordering::Relaxed);
                let _ = record.owner.compare_exchange(owner, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// The record of a process: looked for from a place that follows from its number, so mostly the first.
    fn memory_record(&self, own: Identity) -> Option<&MemoryRecord> {
        let start = own.pid().unsigned_abs() as usize;
        let records = || (0..NEAR).map(move |step| &self.memory[(start + step) % PROCESSES]);
        let is_own = |record: &&MemoryRecord| record.owner.load(Ordering::Relaxed) == own.0;
        let claim = |record: &&MemoryRecord| {
            record.owner.compare_exchange(0, own.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        records().find(is_own).or_else(|| records().find(claim)).or_else(|| {
            // Looking for the dead takes long, and not being counted does no harm.
            let tries = TRIES.fetch_add(1, Ordering::Relaxed);
            tries.is_multiple_of(BETWEEN_TRIES).then(|| self.forget_dead());
            records().find(claim)
        })
    }
}

/// How far from its place a record may stand.
const NEAR: usize = 32;
/// How often a process without a record has looked for one, and how often it has before dead processes are looked for.
static TRIES: AtomicU32 = AtomicU32::new(0);
const BETWEEN_TRIES: u32 = 256;
