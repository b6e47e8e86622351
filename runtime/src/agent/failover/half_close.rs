//! The FINs that wait until nothing is with the agents any more (`channel::half_close`).

use super::{Request, stream_of};
use crate::agent::{copy_of, listener};
use crate::channel::{self, Channel};
use crate::lock::{Mutex, free_in_child};
use crate::shm::party::Recovery;
use crate::{epoll, sys, table};
use core::sync::atomic::Ordering;

/// So long a FIN may wait, in nanoseconds: until then it is known whether the agents are there, and one of the ends may have no mind
/// to read on.
const LATEST_NS: u64 = 10_000_000_000;

/// One that waits.
struct Waiting {
    request: Request,
    since: u64,
}

/// Noted by any thread.
static REQUESTS: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

/// What this end sends is shut down when that may be. False when there is nobody to do it.
pub fn shut_down_later(channel: &Channel, slot: u32, generation: u8) -> bool {
    if !listener::running() {
        return false;
    }
    channel.note_shutdown(slot, libc::SHUT_WR);
    let request = Request { channel: channel.index, slot, generation };
    REQUESTS.lock().push(Waiting { request, since: sys::now_ns() });
    listener::wake();
    true
}

pub(super) fn after_fork_in_child() {
    free_in_child(&REQUESTS);
}

pub(super) fn has_requests() -> bool {
    !REQUESTS.lock().is_empty()
}

/// Those that wait, kept by the listener.
#[derive(Default)]
pub(super) struct HalfClosed {
    waiting: Vec<Waiting>,
}

impl HalfClosed {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one may be through at any moment.
    pub(super) fn is_fresh(&self) -> bool {
        self.waiting.iter().any(|waiting| super::is_fresh(waiting.since))
    }

    pub(super) fn work(&mut self) {
        self.waiting.append(&mut REQUESTS.lock());
        self.waiting.retain(|waiting| !waiting.is_over());
    }
}

impl Waiting {
    /// Shuts down when it is time to; whether nothing is left to do.
    fn is_over(&self) -> bool {
        let Request { channel, slot, generation } = self.request;
        let Some(channel) = channel::at(channel) else { return true };
        let Some((number, socket)) = stream_of(channel, slot, generation) else {
            // The program has closed it.
            return true;
        };
        let fd = socket.fd.load(Ordering::Relaxed);
        let due = channel.may_shut_down(slot, generation, fd) || sys::now_ns() - self.since >= LATEST_NS;
        // Whoever brings a stream back does it afterwards.
        if !due || channel.recovery(slot) == Recovery::Running {
            return false;
        }
        shut_down(channel, slot, generation);
        socket.hint.store(true, Ordering::Relaxed);
        epoll::readable(core::iter::once(number));
        !channel.notes_shutdown(slot)
    }
}

/// Shuts down what was noted for the stream, if anything was.
pub(super) fn shut_down(channel: &Channel, slot: u32, generation: u8) {
    let stream = || stream_of(channel, slot, generation);
    let Some((_, socket)) = stream().filter(|_| channel.notes_shutdown(slot)) else { return };
    match copy_of(socket, || stream().is_some()) {
        Ok(Some(copy)) => {
            channel.shut_down_now(slot, copy);
            table::abandon(copy);
        }
        // It is closed, or is to be found under another number.
        Ok(None) => {}
        // Without a descriptor to spare.
        Err(_) => channel.shut_down_now(slot, socket.fd.load(Ordering::Relaxed)),
    }
}
