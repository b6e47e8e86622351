//! Connections that the kernel says have ended without a word of the agent's: usually that is on its way. Where the process that
//! could say so was killed while others of its family live on, it never comes.

use super::{REQUESTS, Request, end, stream_of};
use crate::agent::listener;
use crate::channel::{self, Channel};
use crate::lock::{Mutex, free_in_child};
use crate::shm::party::Recovery;
use crate::shm::segment::SlotState;
use crate::sys;

/// So long what the other end has sent may be on its way, in nanoseconds: until then an agent that stands still is given up.
const LATEST_NS: u64 = 8_000_000_000;

/// One that nobody has explained yet.
struct Over {
    request: Request,
    since: u64,
}

/// Noted by any thread.
static OVER: Mutex<Vec<Over>> = Mutex::new(Vec::new());

/// The kernel reports the end of a stream that has not ended as far as the agent has told.
pub fn note_over(channel: &Channel, slot: u32, generation: u8) {
    if !channel.leads_to_agent() || !listener::running() {
        return;
    }
    let request = Request { channel: channel.index, slot, generation };
    OVER.lock().push(Over { request, since: sys::now_ns() });
    listener::wake();
}

pub(super) fn is_empty() -> bool {
    OVER.lock().is_empty()
}

/// Whether one may be explained at any moment.
pub(super) fn is_fresh() -> bool {
    OVER.lock().iter().any(|over| super::is_fresh(over.since))
}

pub(super) fn work() {
    if is_empty() {
        return;
    }
    let waiting = core::mem::take(&mut *OVER.lock());
    let mut left: Vec<Over> = waiting.into_iter().filter(|over| !over.is_done()).collect();
    OVER.lock().append(&mut left);
}

impl Over {
    fn is_done(&self) -> bool {
        let Request { channel, slot, generation } = self.request;
        let Some(channel) = channel::at(channel) else { return true };
        let Some((_, socket)) = stream_of(channel, slot, generation) else { return true };
        let explained = channel.other_stays(slot)
            || channel.peer_line(slot).state(generation) == SlotState::Closed
            || channel.recovery(slot) != Recovery::None;
        if explained {
            return true;
        }
        let late = sys::now_ns() - self.since >= LATEST_NS;
        if late && channel.party.stream(slot).begin_recovery(Recovery::None) {
            crate::log_info!("{socket} has ended: nobody is left there to say so");
            if channel.is_next(slot) {
                end(channel, slot, generation, Recovery::Quiet);
            } else {
                // Some of it never comes: the return finds out up to which byte it goes on.
                REQUESTS.lock().push(self.request);
            }
        }
        late
    }
}

/// In a forked child: the parent sees to what it has noted.
pub(super) fn after_fork_in_child() {
    free_in_child(&OVER);
    OVER.lock().clear();
}
