//! From the kernel to a channel: who may, who meets whom, and the moment a stream becomes shared.
//! `promote::far` has what is different for connections to other hosts.

#[allow(unsafe_code)]
mod addresses;
mod far;

pub use addresses::{Address, Ends, are_ends, ends, halves};
pub use far::leave_again;

use addresses::{address, is_loopback, key, namespace, plain};

use crate::agent::{self, Offering};
use crate::channel::{self, Channel, Shortage};
use crate::config::{self, settings};
use crate::registry::{Answer, OfferRef, Progress};
use crate::session::{self, SLOW, Session};
use crate::shm::segment::READY;
use crate::socket::{self, Far, Socket, State};
use crate::{confine, epoll, fork, inside, options, position, stats, table};
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Calls between two looks whether the agent wants a connection on the fabric by now: that may never come.
const CALLS_PER_LOOK: u32 = 8;

/// Called for each data call on a candidate; cheap until the connection has proven busy. True when the socket is
/// promoted now.
#[inline]
pub fn consider(index: u32, socket: &Socket, fd: i32) -> bool {
    // Not exact when threads share the connection, and need not be.
    let calls = socket.calls.load(Ordering::Relaxed);
    socket.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
    calls >= settings().promote_after
        && (calls.is_multiple_of(CALLS_PER_LOOK) || !matches!(socket.far(), Far::Opened { .. }))
        && !short()
        && !inside::in_handler()
        && !epoll::unsure(fd)
        && attempt(index, socket, fd)
}

/// Until when nothing is tried, in ticks, because memory or slots were short; 0 = they have not been.
static SHORT_UNTIL: AtomicU64 = AtomicU64::new(0);
/// About 10 ms.
const SHORT_TICKS: u64 = 25_000_000;

/// Whether a stream was refused for want of memory or slots a moment ago: the next would be too.
#[inline]
fn short() -> bool {
    let until = SHORT_UNTIL.load(Ordering::Relaxed);
    until != 0 && (until.wrapping_sub(position::ticks()) as i64) > 0
}

/// A one-shot registration of the socket was just armed.
pub fn rearmed(index: u32, socket: &Socket, fd: i32) {
    if socket.calls.load(Ordering::Relaxed) >= settings().promote_after {
        attempt(index, socket, fd);
    }
}

#[cold]
fn attempt(index: u32, socket: &Socket, fd: i32) -> bool {
    if let Some(offer) = socket.offer() {
        return meets(index, socket, fd, offer);
    }
    match socket.far() {
        Far::None if far::is_limited(socket) => return false,
        Far::None => {}
        Far::Waiting => return false,
        Far::Declined => {
            forget_all(index, socket, fd);
            return false;
        }
        Far::Opened { slot, generation } => return far::consider(index, socket, fd, slot, generation),
    }
    if fork::held_elsewhere(socket) {
        return false;
    }
    enter(index, socket, fd)
}

/// Looks for an answer to an offer within this host: in the registry of this user, and of the agent when the other end does not
/// come there.
fn meets(index: u32, socket: &Socket, fd: i32, offer: OfferRef) -> bool {
    let Some(session) = session::current() else {
        return false;
    };
    match (session.registry.progress(offer), socket.far()) {
        (Progress::Matched(answer), _) => finish_offer(index, socket, fd, session, offer, answer),
        (Progress::Gone, _) => give_up(index, socket, fd, offer),
        (Progress::Waiting, Far::Opened { slot, generation }) => {
            if agent::is_worth(socket, slot) {
                crate::close::withdraw_registered(socket);
            }
            far::consider(index, socket, fd, slot, generation)
        }
        (Progress::Waiting, Far::None) => {
            far::ask_agent(index, socket, fd);
            false
        }
        // Declined: the other end may still come to the registry.
        (Progress::Waiting, Far::Waiting | Far::Declined) => false,
    }
}

/// Nobody will ever answer: the kernel does the rest, at no further cost. Unless another thread has just found the
/// answer and taken the offer away.
fn give_up(index: u32, socket: &Socket, fd: i32, offer: OfferRef) -> bool {
    let Some(slow) = SLOW.try_lock() else { return false };
    if !socket.take_offer(offer) {
        return socket.state() == State::Promoted;
    }
    drop(slow);
    agent::withdraw(index, socket);
    if forget_all(index, socket, fd) {
        stats::process().bypasses_shared.add(1);
    }
    false
}

/// Takes a candidate out of the table: from now on a plain kernel socket. False when it is none any more.
pub fn forget_all(index: u32, socket: &Socket, fd: i32) -> bool {
    let _slow = SLOW.lock();
    if !table::is_socket(fd, index) || socket.state() != State::Candidate {
        return false;
    }
    if socket.references.load(Ordering::Relaxed) == 1 {
        table::take(fd);
    } else {
        let all: Vec<i32> = table::tracked_in(0, u32::MAX)
            .filter_map(|(fd, entry)| (entry == table::Entry::Socket(index)).then_some(fd))
            .collect();
        for fd in all {
            table::take(fd);
        }
    }
    socket::release(index, socket);
    true
}

fn enter(index: u32, socket: &Socket, fd: i32) -> bool {
    // Not now if somebody is at it: it may be this very thread, interrupted by a signal.
    let Some(slow) = SLOW.try_lock() else { return false };
    if !table::is_socket(fd, index) || socket.state() != State::Candidate || socket.offer().is_some() {
        return false;
    }
    let refused = match meet(index, socket, fd) {
        Ok(promoted) => return promoted,
        Err(refusal) => refusal,
    };
    drop(slow);
    let process = stats::process();
    process.promotions_refused.add(1);
    match refused {
        Refusal::Rules => process.bypasses_rules.add(1),
        Refusal::OtherHost => process.bypasses_other_host.add(1),
        Refusal::Full => process.bypasses_registry_full.add(1),
        Refusal::NoSegment => process.bypasses_no_segment.add(1),
        Refusal::SelfConnected => process.bypasses_self_connected.add(1),
        Refusal::NotTcp => process.bypasses_not_tcp.add(1),
        Refusal::Option => process.bypasses_option.add(1),
        Refusal::Identity => process.bypasses_identity.add(1),
        Refusal::Later => return false,
    }
    forget_all(index, socket, fd);
    false
}

/// Why a connection stays with the kernel.
enum Refusal {
    Rules,
    OtherHost,
    Full,
    NoSegment,
    SelfConnected,
    NotTcp,
    Option,
    /// The process has no place in a registry.
    Identity,
    /// Not now, perhaps at a later call.
    Later,
}

/// Later, but not at the very next call.
fn not_soon(socket: &Socket) -> Refusal {
    socket.calls.store(0, Ordering::Relaxed);
    Refusal::Later
}

fn meet(index: u32, socket: &Socket, fd: i32) -> Result<bool, Refusal> {
    let local = address(fd, false).ok_or(Refusal::NotTcp)?;
    let peer = address(fd, true).ok_or(Refusal::Later)?;
    socket.note_ends(local, peer);
    if local == peer {
        return Err(Refusal::SelfConnected);
    }
    if !settings().rules.allows(config::program(), plain(local), plain(peer)) {
        return Err(Refusal::Rules);
    }
    if position::consumed(fd).is_none() {
        return Err(Refusal::NotTcp);
    }
    if options::first_look(socket, fd) {
        return Err(Refusal::Option);
    }
    let session = session::join(namespace(fd)).ok_or(Refusal::Identity)?;
    // A connection within the host has the same address at both ends, or loopback addresses.
    if local.0 != peer.0 && !is_loopback(peer.0) {
        if socket.shut.load(Ordering::Relaxed) {
            return Err(not_soon(socket));
        }
        return match agent::offer(index, socket) {
            Offering::Offered => Ok(false),
            Offering::Later => Err(not_soon(socket)),
            Offering::NoAgent => Err(Refusal::OtherHost),
        };
    }
    let key = key(fd, local, peer);
    let locked = session.registry.lock().ok_or(Refusal::Later)?;
    while let Some((offer, owner)) = locked.counterpart(&key) {
        if !owner.alive() {
            locked.discard(offer);
            continue;
        }
        let channel = channel::with_peer(session, &locked, owner).map_err(|_| Refusal::NoSegment)?;
        return answer(index, socket, fd, session, channel, |answer| locked.answer(offer, answer));
    }
    let offer = locked.enter(&key, session.identity).ok_or(Refusal::Full)?;
    socket.set_offer(offer);
    Ok(false)
}

/// The second to come opens the stream and tells the first.
fn answer(
    index: u32,
    socket: &Socket,
    fd: i32,
    session: &Session,
    channel: &'static Channel,
    tell: impl FnOnce(Answer),
) -> Result<bool, Refusal> {
    if !quiet(socket) {
        return Err(not_soon(socket));
    }
    let (slot, generation) = match channel.open_slot(socket.mark()) {
        Ok(opened) => opened,
        Err(shortage) => {
            socket.end_move(State::Candidate);
            SHORT_UNTIL.store(position::ticks() + SHORT_TICKS, Ordering::Relaxed);
            let process = stats::process();
            match shortage {
                Shortage::Memory => process.bypasses_memory.add(1),
                Shortage::Slots => process.bypasses_channel_full.add(1),
            }
            return Err(not_soon(socket));
        }
    };
    tell(Answer { peer: session.identity, channel: channel.serial, slot, generation });
    start(index, socket, fd, channel, slot, generation);
    Ok(true)
}

/// The first to come finds that its offer was answered.
fn finish_offer(
    index: u32,
    socket: &Socket,
    fd: i32,
    session: &Session,
    offer: OfferRef,
    answer: Answer,
) -> bool {
    if fork::held_elsewhere(socket) {
        crate::close::withdraw_offer(socket);
        return false;
    }
    // Not now if somebody is at it: it may be this very thread, interrupted by a signal.
    let Some(slow) = SLOW.try_lock() else { return false };
    if !table::is_socket(fd, index) || !quiet(socket) {
        return false;
    }
    if !socket.take_offer(offer) {
        socket.end_move(State::Candidate);
        return false;
    }
    let (found, mark) = (channel::of_answer(session, answer.peer, answer.channel), socket.mark());
    let usable = found.ok().filter(|channel| {
        answer.slot < channel.party.slots() && channel.open_end(answer.slot, answer.generation, Some(mark))
    });
    session.registry.withdraw(offer);
    let Some(channel) = usable else {
        channel::refuse(&answer, mark);
        socket.end_move(State::Candidate);
        drop(slow);
        stats::process().bypasses_no_segment.add(1);
        forget_all(index, socket, fd);
        return false;
    };
    // The agent may have been asked, too.
    agent::withdraw(index, socket);
    start(index, socket, fd, channel, answer.slot, answer.generation);
    true
}

/// Begins the move if no other thread is inside a kernel call on the socket, and the kernel's count of what was read can
/// be believed: it is wrong while urgent data waits.
fn quiet(socket: &Socket) -> bool {
    if session::is_barred() || confine::confined() {
        return false;
    }
    let fd = socket.fd.load(Ordering::Relaxed);
    if crate::wait::kernel_state(fd, libc::POLLPRI) & libc::POLLPRI != 0 {
        return false;
    }
    if !socket.begin_move(State::Candidate) {
        return false;
    }
    if !socket.is_quiet() {
        socket.end_move(State::Candidate);
        return false;
    }
    true
}

/// The stream is there: from now on this process follows the peer's switches.
fn start(index: u32, socket: &Socket, fd: i32, channel: &'static Channel, slot: u32, generation: u8) {
    settle(index, socket, fd, channel, slot, generation, || epoll::adopt(index, socket, channel, slot));
    stats::process().promotions.add(1);
}

/// Gives a socket that is being moved its stream; `register` takes its registrations along.
fn settle(
    index: u32,
    socket: &Socket,
    fd: i32,
    channel: &'static Channel,
    slot: u32,
    generation: u8,
    register: impl FnOnce(),
) {
    socket.place(channel, slot, generation);
    channel.party.stream(slot).kernel_read.store(position::consumed(fd).unwrap_or(0), Ordering::Relaxed);
    channel.set_socket(slot, Some(index));
    register();
    socket.end_move(State::Promoted);
    channel.own_line(slot).descriptor.store(fd as u32, Ordering::Release);
    channel.own_line(slot).flags.fetch_or(READY, Ordering::Release);
    channel.changed(slot);
    if channel.is_traced() {
        channel.trace_open(slot, generation);
    }
    fence(Ordering::SeqCst);
    if socket.shut.load(Ordering::SeqCst) {
        channel.send_through_kernel(slot, generation);
    }
}
