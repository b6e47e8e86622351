//! The memory that events are written to: slots of one cache line in a sealed memfd, used round and round. The process writes
//! and never waits; a reader outside (`convoy trace`) opens it through /proc/PID/fd, copies slots and finds out by their
//! numbers what was overwritten before it came.
//! May contain `unsafe`: it maps that memory.

use super::wire::{Head, SLOTS, Slot, WORDS};
use crate::sys::{self, Answer};
use core::sync::atomic::{Ordering, fence};

/// A mapped ring.
#[derive(Clone, Copy)]
pub(super) struct Ring(*const Memory);

#[repr(C)]
struct Memory {
    head: Head,
    slots: [Slot; SLOTS],
}

const BYTES: usize = size_of::<Memory>();
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

impl Ring {
    /// A new one, with its descriptor.
    pub(super) fn create() -> Answer<(Self, i32)> {
        let fd = sys::memfd_create(super::wire::NAME, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
        let mapped = sys::ftruncate(fd, BYTES as u64)
            .and_then(|()| sys::fcntl(fd, libc::F_ADD_SEALS, SEALS as usize))
            .and_then(|_| sys::map_shared(fd, BYTES));
        match mapped {
            Ok(base) => {
                let ring = Self::at(base.cast());
                ring.memory().head.slots.store(SLOTS as u64, Ordering::Relaxed);
                ring.memory().head.magic.store(super::wire::MAGIC, Ordering::Release);
                Ok((ring, fd))
            }
            Err(errno) => {
                let _ = sys::close(fd);
                Err(errno)
            }
        }
    }

    /// One whose address was kept.
    pub(super) fn at(base: *const u8) -> Self {
        Self(base.cast())
    }

    pub(super) fn base(self) -> *const u8 {
        self.0.cast()
    }

    fn memory(self) -> &'static Memory {
        // SAFETY: a mapping of that size, never removed; nothing but atomics inside.
        unsafe { &*self.0 }
    }

    /// Writes an event: its first slot, and behind it what `bytes` do not fit into. The tag of the first slot is written last.
    pub(super) fn put(self, event: u8, words: [u64; WORDS], bytes: &[u8]) {
        let more = bytes.len().div_ceil(WORDS * 8) as u64;
        let start = self.memory().head.next.fetch_add(1 + more, Ordering::SeqCst);
        for (index, piece) in (start + 1..).zip(bytes.chunks(WORDS * 8)) {
            let mut words = [0u64; WORDS];
            for (word, part) in words.iter_mut().zip(piece.chunks(8)) {
                let mut whole = [0; 8];
                whole[..part.len()].copy_from_slice(part);
                *word = u64::from_le_bytes(whole);
            }
            self.fill(index, super::wire::MORE, words);
        }
        self.fill(start, event, words);
    }

    fn fill(self, index: u64, event: u8, words: [u64; WORDS]) {
        let slot = &self.memory().slots[index as usize % SLOTS];
        slot.tag.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, word) in slot.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        slot.tag.store(super::wire::tag(index, event), Ordering::Release);
    }

    /// Nobody reads any more: gives the pages back, without the head, by which writers count.
    pub(super) fn give_back(self) {
        let slots: *const [Slot; SLOTS] = &raw const self.memory().slots;
        let base = slots.cast_mut().cast();
        // SAFETY: whole pages of the mapping; writers that race find zeros, which are valid, and readers find no tags.
        let _ = unsafe { sys::madvise(base, size_of::<[Slot; SLOTS]>(), libc::MADV_REMOVE) };
    }
}

const _: () = assert!(size_of::<Head>() == 4096 && size_of::<Slot>() == 64);
