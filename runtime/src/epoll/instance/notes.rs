//! Notes in an instance's inbox: for which sockets bytes have come. Who sorts frames leaves them, whoever looks at the instance takes
//! them first.

use super::{BOTH, BYTES, Instance, State};
use crate::channel;
use crate::lock::MutexGuard;
use crate::socket::{self, MANY, Socket};
use core::sync::atomic::{AtomicBool, Ordering};

/// From this many notes on, none is left twice.
const MOST_DOUBLE_NOTES: usize = 64;

impl Instance {
    /// The inbox, to leave notes in.
    #[inline]
    pub fn notes(&self) -> Notes<'_> {
        Notes { inbox: self.inbox.lock(), noted: &self.noted }
    }

    #[inline]
    pub fn has_notes(&self) -> bool {
        self.noted.load(Ordering::Acquire)
    }

    /// Queues the streams that notes name.
    #[inline]
    pub fn take_notes(&self, state: &mut State) {
        if !self.noted.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut notes = self.inbox.lock();
        for index in notes.drain(..) {
            let Some(socket) = socket::at(index) else { continue };
            socket.told.store(false, Ordering::Release);
            // An agent's news may be about room.
            let far =
                channel::any_far() && socket.stream().is_some_and(|(channel, _)| channel.leads_to_agent());
            let events = if far { BOTH } else { BYTES };
            match socket.watch.load(Ordering::Relaxed) {
                0 => {}
                MANY => state.descriptors_of(index).into_iter().for_each(|fd| state.news(fd, events)),
                mark => state.news(mark as u32 as i32, events),
            }
        }
    }
}

/// An instance's inbox, locked; nothing else is locked meanwhile.
pub struct Notes<'a> {
    inbox: MutexGuard<'a, Vec<u32>>,
    noted: &'a AtomicBool,
}

impl Notes<'_> {
    /// Leaves a note that bytes have come for a socket that this instance alone watches. `told` changes under the inbox's lock: where
    /// it is set, the note is still there, and the streams are looked at after it has been taken.
    #[inline]
    pub fn leave(&mut self, index: u32, socket: &Socket) {
        if !socket.told.load(Ordering::Relaxed) {
            socket.told.store(true, Ordering::Relaxed);
            self.push(index);
        }
    }

    /// The same for one that others may watch too.
    pub fn leave_once(&mut self, index: u32) {
        if self.inbox.len() < MOST_DOUBLE_NOTES || !self.inbox.contains(&index) {
            self.push(index);
        }
    }

    fn push(&mut self, index: u32) {
        self.inbox.push(index);
        self.noted.store(true, Ordering::Release);
    }
}
