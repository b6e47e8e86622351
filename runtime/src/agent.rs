//! The program's side of its host's agent: finding it, offering it connections to other hosts, hearing from it.
//!
//! `agent::protocol` is what the two say over their Unix socket, `agent::listener` the thread that hears it. The bytes
//! of streams go over an ordinary channel (`channel::far` has what is different about it). Nobody waits for the agent:
//! offers are sent and forgotten, and an answer is found at a later call on the connection.

pub(crate) mod failover;
pub(crate) mod listener;
pub mod protocol;
pub mod server;

use crate::channel::{self, Channel, Way};
use crate::config::{Fabric, settings};
use crate::process::Identity;
use crate::registry::Registry;
use crate::session::Session;
use crate::socket::{self, Far, Socket};
use crate::{log, stats, sys, table, wait};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};
use protocol::{Message, Reason, VERSION};

/// What belongs to the connection with one agent; never freed.
pub struct Agent {
    pub channel: &'static Channel,
}

/// The agent this process talks to; null when there is none.
static CURRENT: AtomicPtr<Agent> = AtomicPtr::new(core::ptr::null_mut());
/// When an agent may be looked for again, in nanoseconds of the steady clock.
static NEXT_TRY: AtomicU64 = AtomicU64::new(0);
const BETWEEN_TRIES_NS: u64 = 2_000_000_000;
/// Whether the agent is there, but at the last try more programs were waiting at its socket than it has room for.
static CROWDED: AtomicBool = AtomicBool::new(false);
const BETWEEN_TRIES_IN_CROWDS_NS: u64 = 10_000_000;

/// Whether connections to other hosts are to be accelerated at all.
pub fn wanted() -> bool {
    matches!(settings().fabric, Fabric::Auto | Fabric::Provider(_))
}

/// The agent of this process that is there.
#[inline]
pub fn current() -> Option<&'static Agent> {
    // SAFETY: a leaked box or null.
    let agent = unsafe { CURRENT.load(Ordering::Acquire).as_ref() }?;
    let way = agent.channel.way()?;
    (!way.lost.load(Ordering::Relaxed) && agent.channel.usable()).then_some(agent)
}

/// What became of an offer to the agent.
pub enum Offering {
    Offered,
    /// The agent has much to do: at a later call.
    Later,
    NoAgent,
}

/// The descriptors of the way to an agent that is gone were closed: its channel may be freed.
fn forget(channel: &Channel) {
    let agent = CURRENT.load(Ordering::Acquire);
    // SAFETY: a leaked box or null.
    if unsafe { agent.as_ref() }.is_some_and(|agent| core::ptr::eq(agent.channel, channel)) {
        let _ = CURRENT.compare_exchange(agent, core::ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The agent of this process, looked for again when it is time to.
pub fn find() -> Option<&'static Agent> {
    current().or_else(|| join(crate::session::current()?))
}

/// The channel to the agent that a socket was offered to, if that agent is there.
pub fn channel_of(socket: &Socket) -> Option<&'static Channel> {
    let channel = current()?.channel;
    went_through(channel, socket).then_some(channel)
}

/// Whether the last offer of a socket went to the agent behind a channel. The next agent's channel may get the place of its channel.
fn went_through(channel: &Channel, socket: &Socket) -> bool {
    channel.way().is_some_and(|way| way.number == socket.far_way.load(Ordering::Relaxed))
}

/// Whether the agent finds the fabric worth it for the stream that it has opened for a socket. Also when that agent is gone:
/// then whoever wants to join the stream finds out.
pub fn is_worth(socket: &Socket, slot: u32) -> bool {
    channel_of(socket).is_none_or(|channel| channel.is_worth(slot))
}

/// A message was sent on a connection that may still leave the kernel: counted where the agent judges by it.
#[inline]
pub fn note_sent(socket: &Socket, bytes: usize) {
    if let Far::Opened { slot, .. } = socket.far()
        && let Some(channel) = channel_of(socket)
    {
        channel.note_sent(slot, socket.take_answered(), bytes);
    }
}

/// Offers a connection to another host: asks whether it may be shown. The caller holds the slow lock.
pub fn offer(index: u32, socket: &Socket) -> Offering {
    let Some(agent) = find() else {
        return if CROWDED.load(Ordering::Relaxed) { Offering::Later } else { Offering::NoAgent };
    };
    let Some(way) = agent.channel.way().filter(|_| listener::running()) else { return Offering::NoAgent };
    socket.far_way.store(way.number, Ordering::Relaxed);
    let id = socket.begin_far(index);
    let sent = sys::unix_send(way.socket.load(Ordering::Relaxed), &Message::Ask { id }.encode(), &[]);
    if sent.is_err() {
        socket.set_far(Far::None);
    }
    match sent {
        Ok(_) => Offering::Offered,
        Err(errno) if is_full(errno) => Offering::Later,
        Err(_) => Offering::NoAgent,
    }
}

/// The agent is there: it gets a copy of the connection that it was asked for, unless the program has closed it since.
fn show(way: &Way, id: u64) {
    let index = (id >> 32) as u32;
    let Some(socket) = socket::at(index) else { return };
    let again = || {
        socket.calls.store(0, Ordering::Relaxed);
        socket.asked.store(false, Ordering::Relaxed);
        socket.answer_far(id, Far::None);
    };
    match copy_of(socket, || socket.far() == Far::Waiting && socket.far_id(index) == id) {
        Ok(Some(copy)) => {
            let message = Message::Offer { id }.encode();
            if sys::unix_send(way.socket.load(Ordering::Relaxed), &message, &[copy]).is_err_and(is_full) {
                again();
            }
            table::abandon(copy);
        }
        Ok(None) | Err(_) => again(),
    }
}

/// A copy of a socket's descriptor, for a thread that the program does not know of. Nothing when the program has just closed that
/// descriptor, or `is_same` says that it is through with the socket.
///
/// Looked at after it was copied: before that, the program may have closed it, and another file may have got the number.
fn copy_of(socket: &Socket, is_same: impl FnOnce() -> bool) -> sys::Answer<Option<i32>> {
    let fd = socket.fd.load(Ordering::Relaxed);
    let copied = table::copy(fd);
    fence(Ordering::SeqCst);
    if is_same() && socket.fd.load(Ordering::Relaxed) == fd {
        return copied.map(Some);
    }
    copied.into_iter().for_each(table::abandon);
    Ok(None)
}

/// Linux counts descriptors on their way, too: ETOOMANYREFS (unix(7)).
fn is_full(errno: sys::Errno) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ETOOMANYREFS)
}

/// The agent behind a channel is gone: nobody will answer the offers that it had, which may be made again to another.
pub fn forget_offers(channel: &Channel) {
    let had = |socket: &Socket| went_through(channel, socket) && socket.far() == Far::Waiting;
    for (index, socket) in socket::all().filter(|(_, socket)| had(socket)) {
        socket.asked.store(false, Ordering::Relaxed);
        socket.answer_far(socket.far_id(index), Far::None);
    }
}

/// An offer, or what came of it, is not wanted any more.
pub fn withdraw(index: u32, socket: &Socket) {
    let far = socket.take_far();
    if far == Far::None {
        return;
    }
    let Some(agent) = current() else { return };
    if let Some(way) = agent.channel.way() {
        let message = Message::Withdraw { id: socket.far_id(index) }.encode();
        // The other end may wait for this. An agent that is not stopped makes room at once.
        wait::patiently(WITHDRAW_NS, || {
            sys::unix_send(way.socket.load(Ordering::Relaxed), &message, &[]) != Err(libc::EAGAIN)
        });
    }
}

/// How long a withdrawal waits for room in the socket.
const WITHDRAW_NS: u64 = 1_000_000_000;

/// In a forked child: streams that it has inherited go on; for new ones it finds the agent by itself.
pub fn after_fork_in_child() {
    CURRENT.store(core::ptr::null_mut(), Ordering::Release);
    NEXT_TRY.store(0, Ordering::Relaxed);
    listener::THREAD.after_fork_in_child();
    failover::after_fork_in_child();
}

#[cold]
fn join(session: &Session) -> Option<&'static Agent> {
    let now = sys::now_ns();
    if !wanted() || now < NEXT_TRY.load(Ordering::Relaxed) {
        return None;
    }
    let connected = connect(session);
    let crowded = connected == Err(libc::EAGAIN);
    CROWDED.store(crowded, Ordering::Relaxed);
    let pause = if crowded { BETWEEN_TRIES_IN_CROWDS_NS } else { BETWEEN_TRIES_NS };
    NEXT_TRY.store(now + pause, Ordering::Relaxed);
    let (socket, identity) = connected.ok()?;
    match introduce_self(session, socket, identity) {
        Ok(agent) => {
            CURRENT.store(Box::into_raw(Box::new(agent)), Ordering::Release);
            current()
        }
        Err(errno) => {
            // No channel has it.
            table::abandon(socket);
            let pid = identity.pid();
            crate::log_warn!("the agent, process {pid}, cannot be used: {}", log::Reason(errno));
            None
        }
    }
}

fn introduce_self(session: &Session, socket: i32, identity: Identity) -> sys::Answer<Agent> {
    let (_, bells) = session.bells.ok_or(libc::ENOENT)?;
    let hello =
        Message::Hello { version: VERSION, layout: Registry::LAYOUT as u64, identity: session.identity.0 };
    let introduce = |segment| sys::unix_send(socket, &hello.encode(), &[segment, bells]).map(drop);
    let channel = channel::with_agent(session.identity, identity, socket, introduce)?;
    Ok(Agent { channel })
}

/// A socket to the agent of this network namespace: the user's own, or the machine's. Who answers there must be
/// this user or root. EAGAIN: too many others are about to connect.
fn connect(session: &Session) -> sys::Answer<(i32, Identity)> {
    let user = sys::geteuid();
    let mut reason = libc::ENOENT;
    for owner in [Some(user), None] {
        let path = server::socket_path(&settings().directory, owner, session.network);
        let Ok(path) = path else { continue };
        let socket = match table::make(|| sys::unix_connect(&path)) {
            Ok(socket) => socket,
            Err(errno) => {
                reason = errno;
                continue;
            }
        };
        match sys::unix_peer(socket) {
            Ok((pid, uid, _)) if uid == 0 || uid == user => {
                return Ok((socket, Identity((pid as u64) << 32)));
            }
            _ => table::abandon(socket),
        }
    }
    Err(reason)
}

/// What the agent has said. Called by the listener.
fn hear(message: Message, mut passed: [i32; sys::MOST_PASSED]) {
    let Some(agent) = current() else { return };
    match message {
        Message::Welcome { version: VERSION } if passed[0] >= 0 => {
            agent.channel.set_doorbell(core::mem::replace(&mut passed[0], -1));
        }
        Message::Show { id } => agent.channel.way().into_iter().for_each(|way| show(way, id)),
        Message::Opened { id, slot, generation } => answer(id, Far::Opened { slot, generation }),
        // A limit is there for a time: to be offered again.
        Message::Declined { id, reason: Reason::Limit } => answer(id, Far::None),
        Message::Declined { id, reason } => {
            count(reason);
            answer(id, Far::Declined);
        }
        Message::Lost { slot, generation } if agent.channel.is_lost(slot, generation) => {
            failover::note(agent.channel, slot);
        }
        Message::Recall { slot, generation } => agent.channel.obey_far_recall(slot, generation),
        _ => {}
    }
    drop_passed(passed);
}

fn drop_passed(passed: [i32; sys::MOST_PASSED]) {
    passed.into_iter().filter(|fd| *fd >= 0).for_each(table::abandon);
}

fn answer(id: u64, far: Far) {
    let index = (id >> 32) as u32;
    if let Some(socket) = socket::at(index) {
        socket.limited.store(far == Far::None, Ordering::Relaxed);
        socket.answer_far(id, far);
    }
}

fn count(reason: Reason) {
    let process = stats::process();
    match reason {
        Reason::NoPeer => process.bypasses_no_peer_agent.add(1),
        Reason::Unmatched => process.bypasses_unmatched.add(1),
        Reason::Policy => process.bypasses_policy.add(1),
        Reason::Limit => {}
        Reason::Invalid => process.bypasses_not_tcp.add(1),
    }
}
