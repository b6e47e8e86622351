//! What operations are known by while they are outstanding: each has a slot, and the slot's context is the address
//! given to the library. Whatever address comes back is looked up, not followed.

use std::ffi::c_void;

use super::bindings::fi_context2;
use crate::region::Region;
use crate::{Error, LinkId};

/// Outstanding operations that a rail has room for. The memory is not touched before it is used.
const SLOTS: usize = 1 << 16;

/// What a message is on this side.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// A write, and not of the handshake.
    pub write: bool,
    /// What to report, if anything.
    pub context: Option<u64>,
}

/// What a slot is for.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    Free,
    /// Of an endpoint that is closed: free as soon as its completion cannot be in a queue any more.
    Dead,
    /// A one-sided write.
    Write {
        link: LinkId,
        /// What to report, if anything.
        context: Option<u64>,
    },
    /// A message from a buffer of a port.
    Send {
        /// The link, or the rail's own endpoint.
        port: Option<LinkId>,
        buffer: u16,
        sent: Sent,
    },
    /// A buffer of a port that waits for a message.
    Receive {
        port: Option<LinkId>,
        buffer: u16,
    },
}

impl Use {
    fn is_of(&self, link: LinkId) -> bool {
        match *self {
            Use::Free | Use::Dead => false,
            Use::Write { link: of, .. } => of == link,
            Use::Send { port, .. } | Use::Receive { port, .. } => port == Some(link),
        }
    }
}

/// All slots of a rail.
pub struct Slots {
    contexts: Region,
    uses: Vec<Use>,
    free: Vec<u32>,
    dead: Vec<u32>,
}

impl Slots {
    pub fn new() -> Result<Slots, Error> {
        let contexts = Region::new(SLOTS * size_of::<fi_context2>())?;
        Ok(Slots { contexts, uses: Vec::new(), free: Vec::new(), dead: Vec::new() })
    }

    /// A slot and its context; nothing when all are taken.
    pub fn take(&mut self, for_what: Use) -> Option<(u32, *mut c_void)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.uses.len() < SLOTS => {
                self.uses.push(Use::Free);
                u32::try_from(self.uses.len() - 1).ok()?
            }
            None => return None,
        };
        let context = self.contexts.part(index as usize * size_of::<fi_context2>(), 0)?;
        *self.uses.get_mut(index as usize)? = for_what;
        Some((index, context.cast()))
    }

    /// The slot of a context, if it is one of ours.
    pub fn find(&self, context: *mut c_void) -> Option<(u32, Use)> {
        let distance = (context as usize).checked_sub(self.contexts.base() as usize)?;
        let index = distance / size_of::<fi_context2>();
        let found = self.uses.get(index).filter(|_| distance % size_of::<fi_context2>() == 0)?;
        Some((u32::try_from(index).ok()?, *found))
    }

    /// The operation is done.
    pub fn give_back(&mut self, index: u32) {
        if let Some(slot) = self.uses.get_mut(index as usize) {
            *slot = Use::Free;
            self.free.push(index);
        }
    }

    /// The link's endpoint is closed.
    pub fn bury(&mut self, link: LinkId) {
        for (index, slot) in (0_u32..).zip(&mut self.uses) {
            if slot.is_of(link) {
                *slot = Use::Dead;
                self.dead.push(index);
            }
        }
    }

    /// How many slots are dead.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// All queues have been found empty since the first `count` dead slots died.
    pub fn reap(&mut self, count: usize) {
        for index in self.dead.drain(..count.min(self.dead.len())) {
            if let Some(slot) = self.uses.get_mut(index as usize) {
                *slot = Use::Free;
                self.free.push(index);
            }
        }
    }
}
