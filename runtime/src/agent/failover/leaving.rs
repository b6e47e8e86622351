//! Streams whose program has closed them and that are still with the agents: what is lost there can only be sent again by this
//! process, so it keeps the connection a little longer, with a copy of the program's descriptor.

use crate::channel::Channel;
use crate::lock::{Mutex, free_in_child};
use crate::session::SLOW;
use crate::socket::{self, Socket};
use crate::{agent, close, epoll, sys, table};
use core::sync::atomic::Ordering;

/// So long a closed stream may stay, in nanoseconds, when the other end does not read on: about as long as the kernel keeps the
/// connection of a closed socket whose peer does not (tcp_fin_timeout, tcp(7)).
const LATEST_NS: u64 = 60_000_000_000;
/// So many at most: each has a descriptor that the program does not know of.
const MOST: usize = 64;

/// One that leaves. Its socket is in use and has no number of the program's any more.
struct Leaving {
    index: u32,
    channel: &'static Channel,
    slot: u32,
    generation: u8,
    /// The copy.
    fd: i32,
    since: u64,
}

/// Changed under [`SLOW`].
static LEAVING: Mutex<Vec<Leaving>> = Mutex::new(Vec::new());

/// The program closes the last descriptor of a stream: when it cannot end yet, it does so later. False when it ends now. The caller
/// holds [`SLOW`].
pub fn close_later(index: u32, socket: &Socket, channel: &'static Channel, slot: u32, fd: i32) -> bool {
    let generation = socket.generation();
    if !channel.leads_to_agent()
        || !channel.is_joined(slot)
        || channel.party.stream(slot).holders.load(Ordering::Acquire) != 1
        || channel.settles_before_leaving(slot, generation, fd)
        // The program has said how long its close may take, or that it is a reset.
        || sys::option(fd, libc::SOL_SOCKET, libc::SO_LINGER) != Ok(0)
        || !agent::listener::running()
    {
        return false;
    }
    let Ok(copy) = table::copy(fd) else { return false };
    epoll::drop_registrations(fd);
    socket.fd.store(copy, Ordering::Relaxed);
    let mut leaving = LEAVING.lock();
    let oldest = (leaving.len() >= MOST).then(|| leaving.remove(0));
    leaving.push(Leaving { index, channel, slot, generation, fd: copy, since: sys::now_ns() });
    drop(leaving);
    oldest.iter().for_each(Leaving::end);
    agent::listener::wake();
    true
}

/// All of them end now: another process would hold the connections, or this one is not to be followed any more. The caller holds
/// [`SLOW`].
pub fn end_all() {
    let leaving = core::mem::take(&mut *LEAVING.lock());
    leaving.iter().for_each(Leaving::end);
}

/// In a forked child: what was not ended before is the parent's, which counts it.
pub(super) fn after_fork_in_child() {
    free_in_child(&LEAVING);
    for leaving in core::mem::take(&mut *LEAVING.lock()) {
        if let Some(socket) = socket::at(leaving.index) {
            socket::release(leaving.index, socket);
        }
        table::abandon(leaving.fd);
    }
}

pub(super) fn is_empty() -> bool {
    LEAVING.lock().is_empty()
}

/// Whether one may be through at any moment.
pub(super) fn is_fresh() -> bool {
    LEAVING.lock().iter().any(|leaving| super::is_fresh(leaving.since))
}

/// Ends those whose time has come. From the listener.
pub(super) fn work() {
    if is_empty() {
        return;
    }
    // Who holds it may wait for this thread.
    let Some(_slow) = SLOW.try_lock() else { return };
    let due: Vec<Leaving> = LEAVING.lock().extract_if(.., |leaving| leaving.is_due()).collect();
    due.iter().for_each(Leaving::end);
}

impl Leaving {
    fn is_due(&self) -> bool {
        let Self { channel, slot, generation, fd, since, .. } = *self;
        if channel.settles_before_leaving(slot, generation, fd) {
            return true;
        }
        let late = sys::now_ns() - since >= LATEST_NS;
        if late && let Some(socket) = socket::at(self.index) {
            crate::log_info!(
                "{socket} was closed and ends: the other end has not read everything for too long"
            );
        }
        late
    }

    fn end(&self) {
        if let Some(socket) = socket::at(self.index) {
            close::leave_stream(self.index, socket, self.channel, self.slot, self.fd);
        }
        table::abandon(self.fd);
    }
}
