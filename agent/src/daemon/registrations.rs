//! Programs' memory that is registered with rails, so that large payloads are written from where they are.
//!
//! Registering is slow, so a registration stays when nothing uses it: until its program is gone, or others need the place.
//! The only `unsafe` code of this program is here: it promises a fabric that the memory stays.
#![allow(unsafe_code)]

use super::engine::Rail;
use convoy_fabric::{Foreign, MemoryId};
use convoy_runtime::port::{Blocks, Port};
use std::sync::Arc;

/// Most registrations, and most bytes in them.
const MOST_ENTRIES: usize = 256;
const MOST_BYTES: usize = 4 << 30;

/// All registrations, of all rails.
#[derive(Default)]
pub(super) struct Registrations {
    entries: Vec<Entry>,
    next: u32,
    /// Counts uses, for their order.
    clock: u64,
}

struct Entry {
    id: u32,
    program: u64,
    rail: usize,
    memory: MemoryId,
    bytes: usize,
    /// Writes that are not done.
    users: u32,
    used: u64,
    /// Its program is gone.
    over: bool,
}

struct Kept(Arc<Blocks>);

// SAFETY: the blocks give one range, which is mapped until the last reference to them is dropped.
unsafe impl Foreign for Kept {
    fn range(&self) -> (*const u8, usize) {
        self.0.range()
    }
}

impl Registrations {
    /// The registration of a program's blocks for one more write, made if need be; nothing when the device refuses or
    /// everything is in use.
    pub(super) fn take(
        &mut self,
        rails: &mut [Rail],
        rail: usize,
        program: u64,
        port: &Port,
    ) -> Option<(u32, MemoryId)> {
        self.clock += 1;
        let clock = self.clock;
        let known = |entry: &&mut Entry| entry.program == program && entry.rail == rail && !entry.over;
        if let Some(entry) = self.entries.iter_mut().find(known) {
            entry.users += 1;
            entry.used = clock;
            return Some((entry.id, entry.memory));
        }
        let blocks = port.blocks();
        let (_, bytes) = blocks.range();
        if !self.make_room(rails, bytes) {
            return None;
        }
        let memory = rails.get_mut(rail)?.fabric.register(Arc::new(Kept(blocks)));
        let memory = memory
            .inspect_err(
                |error| tracing::warn!(%error, rail, bytes, "a program's memory cannot be registered"),
            )
            .ok()?;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.entries.push(Entry { id, program, rail, memory, bytes, users: 1, used: clock, over: false });
        Some((id, memory))
    }

    /// Ends registrations that nothing uses, the longest unused first, until one of so many bytes has room.
    fn make_room(&mut self, rails: &mut [Rail], bytes: usize) -> bool {
        loop {
            let total: usize = self.entries.iter().map(|entry| entry.bytes).sum();
            if self.entries.len() < MOST_ENTRIES && total + bytes <= MOST_BYTES {
                return true;
            }
            let unused = (0..self.entries.len()).filter(|index| self.entries[*index].users == 0);
            let Some(oldest) = unused.min_by_key(|index| self.entries[*index].used) else { return false };
            self.end(rails, oldest);
        }
    }

    /// A write is done, or never will be.
    pub(super) fn done(&mut self, rails: &mut [Rail], id: u32) {
        let Some(index) = self.entries.iter().position(|entry| entry.id == id) else { return };
        let entry = &mut self.entries[index];
        entry.users = entry.users.saturating_sub(1);
        if entry.users == 0 && entry.over {
            self.end(rails, index);
        }
    }

    /// A program is gone: its memory goes when the last write from it is done.
    pub(super) fn forget(&mut self, rails: &mut [Rail], program: u64) {
        for index in (0..self.entries.len()).rev() {
            let entry = &mut self.entries[index];
            if entry.program == program {
                entry.over = true;
                if entry.users == 0 {
                    self.end(rails, index);
                }
            }
        }
    }

    fn end(&mut self, rails: &mut [Rail], index: usize) {
        let entry = self.entries.swap_remove(index);
        if let Some(rail) = rails.get_mut(entry.rail) {
            rail.fabric.release(entry.memory);
        }
    }
}
