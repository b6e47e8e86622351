//! Connections to other hosts: the agent has found the other end, for the first time or again.

use super::{forget_all, quiet, settle, start};
use crate::agent::{failover, listener};
use crate::channel::Channel;
use crate::config::settings;
use crate::session::SLOW;
use crate::shm::party::Recovery;
use crate::shm::segment::SlotState;
use crate::socket::{Far, Socket, State};
use crate::{agent, epoll, fork, inside, stats, table};
use core::sync::atomic::Ordering;

/// The agent has found the other end on another host: the connection leaves the kernel when the agent finds that worth it.
pub(super) fn consider(index: u32, socket: &Socket, fd: i32, slot: u32, generation: u8) -> bool {
    if agent::find().is_none() {
        return false;
    }
    let channel = agent::channel_of(socket).filter(|channel| slot < channel.party.slots());
    let Some(channel) =
        channel.filter(|channel| channel.peer_line(slot).state(generation) == SlotState::Open)
    else {
        // To be offered again, perhaps to another agent.
        agent::withdraw(index, socket);
        socket.calls.store(0, Ordering::Relaxed);
        return false;
    };
    channel.is_worth(slot) && finish(index, socket, fd, slot, generation)
}

fn finish(index: u32, socket: &Socket, fd: i32, slot: u32, generation: u8) -> bool {
    if fork::held_elsewhere(socket) {
        agent::withdraw(index, socket);
        return false;
    }
    // Not now if somebody is at it: it may be this very thread, interrupted by a signal.
    let Some(slow) = SLOW.try_lock() else { return false };
    if !table::is_socket(fd, index) || !quiet(socket) {
        return false;
    }
    let opened = Far::Opened { slot, generation };
    let channel = agent::channel_of(socket).filter(|channel| {
        socket.far() == opened && slot < channel.party.slots() && channel.open_end(slot, generation, None)
    });
    let Some(channel) = channel else {
        socket.end_move(State::Candidate);
        drop(slow);
        agent::withdraw(index, socket);
        forget_all(index, socket, fd);
        return false;
    };
    socket.set_far(Far::None);
    start(index, socket, fd, channel, slot, generation);
    stats::process().streams_far.add(1);
    joined(channel, slot, generation);
    true
}

/// A stream is there, and so is somebody who looks after its agent. News of a recall or a loss that came before it were not
/// followed.
fn joined(channel: &Channel, slot: u32, generation: u8) {
    listener::stream_opened();
    channel.obey_far_recall(slot, generation);
    // Who loses the agent sets this before it looks for streams.
    let gone = channel.way().is_some_and(|way| way.lost.load(Ordering::SeqCst));
    if gone || channel.is_lost(slot, generation) {
        failover::note(channel, slot);
        listener::wake();
    }
}

/// Calls between two offers of a connection beyond a limit.
const CALLS_BEYOND_LIMIT: u32 = 1024;

/// Whether a connection is beyond a limit of the agent's policy, and was offered lately.
pub(super) fn is_limited(socket: &Socket) -> bool {
    socket.limited.load(Ordering::Relaxed)
        && !socket.calls.load(Ordering::Relaxed).is_multiple_of(CALLS_BEYOND_LIMIT)
}

/// Calls that an end within this host waits for the other in the registry before the agent is asked, which joins users.
const CALLS_BEFORE_AGENT: u32 = 64;

/// The other end of a connection within this host does not come to the registry: it may be another user's.
pub(super) fn ask_agent(index: u32, socket: &Socket, fd: i32) {
    let calls = socket.calls.load(Ordering::Relaxed);
    if calls < settings().promote_after.saturating_add(CALLS_BEFORE_AGENT)
        || socket.asked.swap(true, Ordering::Relaxed)
    {
        return;
    }
    if let Some(_slow) = SLOW.try_lock()
        && table::is_socket(fd, index)
    {
        agent::offer(index, socket);
    } else {
        socket.asked.store(false, Ordering::Relaxed);
    }
}

/// Calls on a stream that has returned to the kernel between two offers of it.
const CALLS_BETWEEN_OFFERS: u32 = 256;

/// Called for calls on a promoted stream: one that has returned to the kernel because the way to the other host was gone is
/// offered again, and leaves the kernel again.
#[inline]
pub fn leave_again(index: u32, socket: &Socket, fd: i32) {
    if socket.returned.load(Ordering::Relaxed) {
        again(index, socket, fd);
    }
}

#[cold]
fn again(index: u32, socket: &Socket, fd: i32) {
    match socket.far() {
        Far::Opened { slot, generation } => {
            if agent::is_worth(socket, slot) {
                rejoin(index, socket, fd, slot, generation);
            }
        }
        Far::Waiting => {}
        Far::Declined => socket.set_far(Far::None),
        Far::None => {
            let calls = socket.calls.fetch_add(1, Ordering::Relaxed);
            if calls.is_multiple_of(CALLS_BETWEEN_OFFERS)
                && !inside::in_handler()
                && let Some(_slow) = SLOW.try_lock()
                && !socket.peer_gone.load(Ordering::Relaxed)
                && !socket.shut.load(Ordering::Relaxed)
            {
                agent::offer(index, socket);
            }
        }
    }
}

/// The agent has found the other end again. Threads that are inside a call on the old stream find it closed and look
/// again.
fn rejoin(index: u32, socket: &Socket, fd: i32, slot: u32, generation: u8) {
    let Some(_slow) = SLOW.try_lock() else { return };
    let Some((old, old_slot)) = socket.stream() else { return };
    let old_generation = socket.generation();
    let stays = old.party.stream(old_slot).holders.load(Ordering::Acquire) > 1
        || !matches!(old.recovery(old_slot), Recovery::Done | Recovery::Quiet)
        || old.has_bytes(old_slot)
        || old.sends_in_kernel(old_slot);
    if stays || !table::is_socket(fd, index) || !socket.begin_move(State::Promoted) {
        return;
    }
    if old.sends_in_kernel(old_slot) {
        // At a later call: what is withdrawn now may be joined by the other end already, which then waits for this one.
        return socket.end_move(State::Promoted);
    }
    let opened = Far::Opened { slot, generation };
    let channel = agent::channel_of(socket).filter(|channel| {
        socket.far() == opened && slot < channel.party.slots() && channel.open_end(slot, generation, None)
    });
    let Some(channel) = channel else {
        socket.end_move(State::Promoted);
        agent::withdraw(index, socket);
        return;
    };
    socket.set_far(Far::None);
    socket.returned.store(false, Ordering::Relaxed);
    old.close_end(old_slot, old_generation);
    settle(index, socket, fd, channel, slot, generation, || {
        epoll::follow_stream(index, old, old_slot, channel, slot);
    });
    old.wake_all(old_slot);
    stats::process().streams_far.add(1);
    joined(channel, slot, generation);
}
