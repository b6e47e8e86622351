//! The registered memory of a rail.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;

use super::bindings::*;
use super::core::Core;
use super::object::Object;
use crate::region::{Region, random};
use crate::{Access, Error, MemoryId, RemoteMemory};

/// One piece of memory. Fields are dropped in this order.
pub struct Memory {
    registration: Option<Object<fid_mr>>,
    pub region: Region,
    /// How peers write into it, if they may.
    remote: Option<RemoteMemory>,
}

impl Memory {
    /// What operations name it by.
    pub fn descriptor(&self) -> *mut c_void {
        self.registration.as_ref().map_or(null_mut(), Object::descriptor_word)
    }
}

/// All of it.
#[derive(Default)]
pub struct Memories {
    table: HashMap<MemoryId, Memory>,
    /// By the key that messages name it with.
    keys: HashMap<u64, MemoryId>,
    next: u32,
    /// Released, but a provider that places bytes itself may be in the middle of a peer's write: with the number of
    /// links that there had been by then.
    lingering: Vec<(u64, Region)>,
}

impl Memories {
    /// Registers a region, as far as the provider needs it.
    pub fn add(&mut self, core: &Core, region: Region, access: Access) -> Result<MemoryId, Error> {
        let profile = &core.profile;
        let placed_here = profile.messages || access == Access::Local;
        let rights = match access {
            Access::Local => FI_SEND | FI_WRITE,
            Access::Remote => FI_REMOTE_WRITE,
        };
        let mut key = random() & profile.key_mask;
        let mut registration = None;
        if !placed_here || (profile.local_keys && !profile.messages) {
            // SAFETY: the region is dropped after the registration, and readable; only memory of this side, which is
            // writable too, is for peers.
            let made = unsafe { core.domain.register(region.base(), region.bytes(), rights, key) };
            let made = made.map_err(|errno| core.error("fi_mr_reg", errno))?;
            key = made.key();
            registration = Some(made);
        }
        if access == Access::Remote && key == FI_KEY_NOTAVAIL {
            return Err(Error(String::from("the provider's keys are too long")));
        }
        let base = match !placed_here && profile.virtual_addresses {
            true => region.base() as u64,
            false => 0,
        };
        let remote = RemoteMemory { key, base, bytes: region.bytes() as u64 };
        let remote = (access == Access::Remote).then_some(remote);
        let id = loop {
            let id = MemoryId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.table.contains_key(&id) {
                break id;
            }
        };
        if let Some(remote) = remote {
            self.keys.insert(remote.key, id);
        }
        self.table.insert(id, Memory { registration, region, remote });
        Ok(id)
    }

    /// Ends a registration, when there have been so many links.
    pub fn remove(&mut self, memory: MemoryId, links: u64) {
        let Some(Memory { registration, region, remote }) = self.table.remove(&memory) else { return };
        let registered = registration.is_some();
        // The device lets go before the memory does.
        drop(registration);
        if let Some(remote) = remote {
            self.keys.remove(&remote.key);
            if registered {
                region.discard();
                self.lingering.push((links, region));
            }
        }
    }

    /// Of the links that there are, this is the oldest.
    pub fn prune(&mut self, oldest: Option<u64>) {
        self.lingering.retain(|(links, _)| oldest.is_some_and(|oldest| oldest < *links));
    }

    pub fn get(&self, memory: MemoryId) -> Option<&Memory> {
        self.table.get(&memory)
    }

    pub fn remote(&self, memory: MemoryId) -> Option<RemoteMemory> {
        self.table.get(&memory)?.remote
    }

    /// Memory of this side only, allocated here.
    pub fn local(&mut self, memory: MemoryId) -> Option<&mut [u8]> {
        self.table.get_mut(&memory).filter(|memory| memory.remote.is_none())?.region.as_mut_slice()
    }

    /// Copies a peer's write to where it names; false when it may not.
    pub fn place(&self, key: u64, offset: u64, source: &Region, start: usize, length: usize) -> bool {
        let memory = self.keys.get(&key).and_then(|id| self.table.get(id));
        let (Some(memory), Ok(offset)) = (memory, usize::try_from(offset)) else { return false };
        memory.region.write_from(offset, source, start, length)
    }
}
