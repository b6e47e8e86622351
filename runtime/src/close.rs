//! The end of descriptors, sockets and of the process.

use crate::api::Handled;
use crate::position::Opener;
use crate::registry::Progress;
use crate::session::{self, SLOW};
use crate::shm::party::Recovery;
use crate::socket::{self, Far, Socket, State};
use crate::table::{self, Entry};
use crate::{agent, bell, channel, demote, epoll, fork, inside, process, promote, stats, sys, trace, wait};
use core::sync::atomic::{AtomicBool, Ordering, fence};

/// How long a process that ends waits for what the agents still have of its streams, which takes some round trips between hosts; and
/// for streams that return to the kernel because the way is gone; nanoseconds.
const LEAVE_NS: u64 = 50_000_000;
const RETURN_NS: u64 = 2_000_000_000;

/// Before the program's close of `fd`.
pub fn before_close(fd: i32) {
    match table::take(fd) {
        Entry::Socket(index) => close_socket(index, fd),
        Entry::Epoll(index) => epoll::close(index, fd),
        Entry::Private => {
            // Not the program's to close: put it back.
            table::set(fd, Entry::Private);
        }
        Entry::None => {}
    }
}

fn close_socket(index: u32, fd: i32) {
    let Some(socket) = socket::at(index) else { return };
    epoll::forget(index, socket, fd);
    if !socket::dereference(index, socket, fd) {
        // The socket may have been known by this number.
        return channel::await_resets();
    }
    let _slow = SLOW.lock();
    withdraw_offer(socket);
    if socket.far() != Far::None {
        // The agent may just have a copy.
        epoll::drop_registrations(fd);
        agent::withdraw(index, socket);
    }
    fork::drop_holder(socket);
    if socket.state() != State::Promoted {
        return socket::release(index, socket);
    }
    let Some((channel, slot)) = socket.stream() else { return socket::release(index, socket) };
    channel.publish_held();
    if !agent::failover::close_later(index, socket, channel, slot, fd) {
        leave_stream(index, socket, channel, slot, fd);
    }
}

/// This process is through with a stream, and with the socket.
pub fn leave_stream(index: u32, socket: &Socket, channel: &channel::Channel, slot: u32, fd: i32) {
    channel.shut_down_now(slot, fd);
    if channel.party.stream(slot).holders.fetch_sub(1, Ordering::AcqRel) == 1 {
        if channel.close_end(slot, socket.generation()) {
            reset_on_close(fd);
        }
        channel.retire_if_dead();
    } else {
        // Another process goes on with the stream: only this process's view of it ends.
        channel.give_up(slot);
    }
    socket::release(index, socket);
}

/// Closing with unread bytes resets the connection (RFC 1122 4.2.2.13), so that the peer learns of the loss.
fn reset_on_close(fd: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
}

pub fn withdraw_offer(socket: &Socket) {
    if withdraw_registered(socket) {
        stats::process().bypasses_unmatched.add(1);
    }
}

/// Takes the offer out of the registry; true when nobody had answered it.
pub fn withdraw_registered(socket: &Socket) -> bool {
    let (Some(offer), Some(session)) = (socket.offer(), session::current()) else { return false };
    if !socket.take_offer(offer) {
        return false;
    }
    let progress = session.registry.progress(offer);
    if let Progress::Matched(answer) = &progress {
        channel::refuse(answer, socket.mark());
    }
    session.registry.withdraw(offer);
    matches!(progress, Progress::Waiting)
}

/// Every tracked descriptor in a range is about to be closed.
pub fn before_close_range(first: u32, last: u32) {
    for (fd, entry) in table::tracked_in(first, last) {
        if entry != Entry::Private {
            before_close(fd);
        }
    }
}

/// `new` refers to what `old` refers to.
pub fn after_dup(old: i32, new: i32) {
    match table::get(old) {
        Entry::Socket(index) => {
            if let Some(socket) = socket::at(index) {
                socket.references.fetch_add(1, Ordering::AcqRel);
                if !table::set(new, Entry::Socket(index)) {
                    socket.references.fetch_sub(1, Ordering::AcqRel);
                    demote::demote(old, crate::api::Reason::Call);
                }
            }
        }
        Entry::Epoll(index) => drop(table::set(new, Entry::Epoll(index))),
        // A socket that is not connected yet: the copies must know of each other when it is. A connection that is in no entry has been
        // left to the kernel, for good: others may have it.
        Entry::None if crate::api::enabled() && socket::is_tcp(old) && promote::ends(old).is_none() => {
            if socket::follow(old, Opener::Unknown).is_some() {
                after_dup(old, new);
            }
        }
        Entry::Private | Entry::None => {}
    }
}

/// At the end of the process: counters written, offers and files withdrawn, peers told.
pub fn at_exit() {
    if process::own() == process::Identity::NOBODY && !fork::in_vfork_child() {
        fork::at_exit();
    }
    if process::own() == process::Identity::NOBODY || sys::getpid() != process::own().pid() {
        return stats::dump();
    }
    channel::hold::release_all();
    await_far_streams();
    for (_, socket) in socket::all() {
        withdraw_offer(socket);
        if socket.state() == State::Promoted
            && let Some((channel, slot)) = socket.stream()
        {
            let fd = socket.fd.load(Ordering::Relaxed);
            channel.shut_down_now(slot, fd);
            let last = channel.party.stream(slot).holders.fetch_sub(1, Ordering::AcqRel) == 1;
            // Who made the channel goes on with it.
            if last && channel.is_inherited() && channel.close_end(slot, socket.generation()) {
                reset_on_close(fd);
            }
        }
    }
    fork::at_exit();
    stats::dump();
    epoll::at_exit();
    bell::at_exit();
    stats::withdraw();
    channel::at_exit();
}

/// What the agents still have of this process's streams gets there, or would be lost with them: nobody could send it again.
fn await_far_streams() {
    let start = sys::now_ns();
    let mut returns = false;
    let mut settled = || {
        returns = false;
        // All of them take a step, not only the first.
        let left = far_streams().filter(|(socket, channel, slot)| {
            returns |= channel.recovery(*slot) == Recovery::Running;
            !channel.settles_before_leaving(*slot, socket.generation(), socket.fd.load(Ordering::Relaxed))
        });
        let left = left.count();
        left == 0 || !returns && sys::now_ns() - start >= LEAVE_NS
    };
    wait::patiently(RETURN_NS, &mut settled);
}

/// The streams to other hosts that only this process has.
fn far_streams() -> impl Iterator<Item = (&'static Socket, &'static channel::Channel, u32)> {
    socket::all().filter(|(_, socket)| socket.state() == State::Promoted).filter_map(|(_, socket)| {
        let (channel, slot) = socket.stream()?;
        let alone = channel.party.stream(slot).holders.load(Ordering::Relaxed) == 1;
        (channel.leads_to_agent() && alone).then_some((socket, channel, slot))
    })
}

/// shutdown(2): the kernel connection carries it; what was sent before is on the channel already.
pub fn shutdown(fd: i32, how: i32) -> Handled {
    let index = table::socket(fd)?;
    let socket = socket::at(index)?;
    if how != libc::SHUT_RD {
        socket.shut.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        withdraw_from_agent(index, socket);
    }
    if socket.state() == State::Promoted
        && let Some((channel, slot, generation)) = socket.stream_of(index, fd)
    {
        let returns =
            || (libc::SHUT_RD..=libc::SHUT_RDWR).contains(&how) && channel.defer_shutdown(slot, how);
        if returns() {
            return Some(Ok(0));
        }
        if how != libc::SHUT_RD {
            channel.settle_before_shutdown(slot, generation);
            // Who shuts both does not wait for the other end: threads that receive are to be woken.
            let waits = how == libc::SHUT_WR && !channel.may_shut_down_soon(slot, generation, fd);
            // It may have begun meanwhile.
            if returns() || waits && agent::failover::shut_down_later(channel, slot, generation) {
                return Some(Ok(0));
            }
        }
    }
    let result = sys::shutdown(fd, how).map(|()| 0);
    socket.hint.store(true, Ordering::Relaxed);
    // Who sleeps on the way to another host does not watch the connection.
    if how != libc::SHUT_WR
        && let Some((channel, slot)) = socket.stream().filter(|(channel, _)| channel.leads_to_agent())
    {
        channel.wake_all(slot);
    }
    epoll::readable(core::iter::once(index + 1));
    Some(result)
}

/// The other end of a stream that this one has not joined yet waits to hear of the end from here: it is told that this one
/// never will.
fn withdraw_from_agent(index: u32, socket: &Socket) {
    if socket.far() != Far::None {
        let _slow = SLOW.lock();
        agent::withdraw(index, socket);
    }
}

/// The program wants the number of one of Convoy's descriptors: it moves elsewhere.
pub fn vacate(fd: i32) {
    if table::get(fd) != Entry::Private {
        return;
    }
    if bell::moved(fd) || epoll::moved(fd) || channel::moved(fd) || trace::moved(fd) {
        table::take(fd);
    }
}

/// [`SLOW`] is held over an exec.
static KEPT: AtomicBool = AtomicBool::new(false);

/// The image is about to be replaced: what only this image knows is withdrawn; streams that survive the exec
/// go back to the kernel.
pub fn before_exec() {
    if process::own() == process::Identity::NOBODY || fork::in_vfork_child() {
        return;
    }
    stats::dump();
    channel::hold::release_all();
    // No stream is promoted behind our back; and exec ends the other threads: none of them may hold the registry then.
    core::mem::forget(SLOW.lock());
    KEPT.store(true, Ordering::Relaxed);
    agent::failover::end_all();
    for (index, socket) in socket::all() {
        if socket.state() == State::Promoted && stays_over_exec(index, socket) {
            demote::demote(socket.fd.load(Ordering::Relaxed), crate::api::Reason::Exec);
        }
        withdraw_offer(socket);
        fork::change_holders(socket, false);
    }
    // What arrives meanwhile goes to the old image's handlers or the new image, not back into the queue.
    inside::leave();
    stats::withdraw();
}

/// Whether the new image finds the socket under one of its numbers.
fn stays_over_exec(index: u32, socket: &Socket) -> bool {
    let stays = |fd: i32| sys::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0);
    if socket.references.load(Ordering::Relaxed) == 1 {
        return stays(socket.fd.load(Ordering::Relaxed));
    }
    table::tracked_in(0, u32::MAX).any(|(fd, entry)| entry == Entry::Socket(index) && stays(fd))
}

/// The old image goes on.
pub fn after_failed_exec() {
    if KEPT.swap(false, Ordering::Relaxed) {
        socket::all().for_each(|(_, socket)| fork::change_holders(socket, true));
        inside::enter();
        // SAFETY: taken in `before_exec` by this thread and forgotten.
        unsafe { SLOW.force_unlock() };
    }
}
