//! The thread that hears the agent: answers to offers, and that it is gone.
//!
//! It exists only in processes that have offered a connection to an agent. It has all signals blocked; fork finds it
//! outside of its work, and a child starts its own when it needs one.

use super::Agent;
use super::failover::{self, Failover};
use super::protocol::{BYTES, Message};
use crate::background::Background;
use crate::channel::{self, Channel};
use crate::{sys, table};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

/// Between two looks whether the process has other threads at all.
const LOOK_S: i64 = 20;
/// Between two questions whether the agent is there, while there are streams over it.
const PING_S: i64 = 1;
/// An agent that does not answer for so long is as good as gone.
const OVERDUE_NS: u64 = 4_000_000_000;
/// How long a thread may still use the way to an agent that is gone.
const LINGER_NS: u64 = 10_000_000_000;

/// Event counter by which the thread is woken; -1 before the first.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Set by the thread before it looks whether there are streams, and left so while it sleeps for long because there are none. Whoever
/// opens one clears it and wakes the thread: SeqCst fences between what each writes and reads.
static IDLE: AtomicBool = AtomicBool::new(false);

/// The thread.
pub static THREAD: Background = Background::new("convoy-agent");

/// Whether the thread is there; starts it.
pub fn running() -> bool {
    THREAD.start(run)
}

/// Wakes the thread, which has something to do that does not come from its sockets. Starts it if need be.
pub fn wake() {
    if running() {
        ring();
    }
}

/// A stream over the agent was opened: from now on the thread looks whether the agent is there.
pub fn stream_opened() {
    fence(Ordering::SeqCst);
    if IDLE.swap(false, Ordering::Relaxed) {
        ring();
    }
}

fn ring() {
    let fd = WAKE.load(Ordering::Acquire);
    if fd >= 0 {
        sys::ring_eventfd(fd);
    }
}

/// The event counter to wake the thread by; made by it, kept for the next one.
fn waker() -> i32 {
    if WAKE.load(Ordering::Relaxed) < 0
        && let Ok(fd) = table::make(sys::eventfd)
    {
        WAKE.store(fd, Ordering::Release);
    }
    WAKE.load(Ordering::Relaxed)
}

fn run() {
    let mut state = State::default();
    loop {
        hear_until_idle(&mut state);
        THREAD.end();
        // A request that came at the last moment found the thread there.
        if !failover::has_requests() || !THREAD.end_is_off() {
            return;
        }
    }
}

/// What the thread keeps.
#[derive(Default)]
struct State {
    failover: Failover,
    ping: Ping,
    /// Ways to agents that are gone: closed when no thread can be at them any more.
    closing: Vec<(u64, &'static Channel)>,
}

fn hear_until_idle(state: &mut State) {
    let State { failover, ping, closing } = state;
    loop {
        close_lost(closing);
        // The channels of others may be freed during the sleep.
        let is_there = |channel: &'static Channel| {
            channel.way().filter(|way| !way.lost.load(Ordering::Relaxed)).map(|way| (channel, way))
        };
        let ways: Vec<_> = channel::all().filter_map(is_there).collect();
        let mut set: Vec<_> = ways
            .iter()
            .map(|(channel, way)| {
                // What is said to a parent is not for its child, which only learns that the agent is gone.
                let events = if is_own(channel) { libc::POLLIN } else { 0 };
                libc::pollfd { fd: way.socket.load(Ordering::Relaxed), events, revents: 0 }
            })
            .collect();
        if set.is_empty() && failover.is_idle() && closing.is_empty() {
            break;
        }
        let sockets = set.len();
        set.push(libc::pollfd { fd: waker(), events: libc::POLLIN, revents: 0 });
        set.extend(failover.poll_set());
        let busy = !failover.is_idle();
        let streams = has_streams();
        let mut limit = match (busy, streams || !closing.is_empty()) {
            (true, _) => libc::timespec { tv_sec: 0, tv_nsec: failover.pause_ns() },
            (false, true) => libc::timespec { tv_sec: PING_S, tv_nsec: 0 },
            (false, false) => libc::timespec { tv_sec: LOOK_S, tv_nsec: 0 },
        };
        // SAFETY: the set is valid, a timeout, no mask.
        let ready = unsafe { sys::ppoll(set.as_mut_ptr(), set.len(), &mut limit, core::ptr::null()) };
        match ready {
            Ok(0) if !busy && alone() => break,
            _ => {}
        }
        let _work = THREAD.work();
        if set[sockets].revents != 0 {
            let mut count = [0u8; 8];
            // SAFETY: eight writable bytes.
            let _ = unsafe { sys::read(set[sockets].fd, count.as_mut_ptr(), count.len()) };
        }
        for entry in set.iter().take(sockets).filter(|entry| entry.revents != 0) {
            let way = ways.iter().find(|(_, way)| way.socket.load(Ordering::Relaxed) == entry.fd);
            if let Some((channel, _)) = way {
                if is_own(channel) && hear_all(entry.fd) {
                    ping.heard();
                } else {
                    channel.lose_agent();
                }
            }
        }
        if let Some(agent) = super::current().filter(|_| streams)
            && !ping.is_answered(agent)
        {
            agent.channel.lose_agent();
        }
        failover.work();
    }
}

/// Closes the descriptors of ways that were lost a while ago.
fn close_lost(closing: &mut Vec<(u64, &'static Channel)>) {
    let now = sys::now_ns();
    for channel in channel::all().filter(|channel| channel.is_to_be_closed()) {
        if !closing.iter().any(|(_, known)| core::ptr::eq(*known, channel)) {
            closing.push((now + LINGER_NS, channel));
        }
    }
    closing.retain(|(when, channel)| {
        let due = now >= *when;
        if due {
            super::forget(channel);
            channel.close_way();
        }
        !due
    });
}

/// Whether the agent answers: it may be stopped.
#[derive(Default)]
struct Ping {
    /// When the last question was asked that has no answer yet, and the last answer came; nanoseconds.
    asked: Option<u64>,
    next: u64,
}

impl Ping {
    fn heard(&mut self) {
        self.asked = None;
    }

    /// Asks when it is time to; false when the answer is overdue.
    fn is_answered(&mut self, agent: &Agent) -> bool {
        let now = sys::now_ns();
        if let Some(asked) = self.asked {
            return now - asked < OVERDUE_NS;
        }
        if now >= self.next
            && let Some(way) = agent.channel.way()
        {
            self.next = now + PING_S as u64 * 1_000_000_000;
            self.asked = Some(now);
            let _ = sys::unix_send(way.socket.load(Ordering::Relaxed), &Message::Ping.encode(), &[]);
        }
        true
    }
}

/// Whether this process has streams over its agent. If not, whoever opens one wakes this thread.
fn has_streams() -> bool {
    IDLE.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let found = channel::all().any(|channel| is_own(channel) && channel.streams.load(Ordering::Relaxed) > 0);
    if found {
        IDLE.store(false, Ordering::Relaxed);
    }
    found
}

/// Whether this process, and not its parent, has made the channel to the agent.
fn is_own(channel: &Channel) -> bool {
    super::current().is_some_and(|agent| core::ptr::eq(agent.channel, channel))
}

/// False when the agent is gone.
fn hear_all(socket: i32) -> bool {
    loop {
        let mut bytes = [0u8; BYTES];
        match receive(socket, &mut bytes) {
            Ok((0, _)) => return false,
            Ok((count, passed)) => match bytes.get(..count).and_then(Message::decode) {
                Some(message) => super::hear(message, passed),
                None => super::drop_passed(passed),
            },
            Err(libc::EAGAIN | libc::EINTR) => return true,
            Err(_) => return false,
        }
    }
}

/// A message of the agent, with what it has passed: Convoy's own from now on.
fn receive(socket: i32, bytes: &mut [u8]) -> sys::Answer<(usize, [i32; sys::MOST_PASSED])> {
    let _hand = sys::hand();
    let (count, passed) = sys::unix_receive(socket, bytes)?;
    Ok((count, passed.map(|fd| if fd < 0 { fd } else { table::adopt(fd).unwrap_or(-1) })))
}

/// Whether this is the process's last thread: it must not keep it alive.
fn alone() -> bool {
    let mut status = [0u8; 2048];
    let length = sys::read_file(c"/proc/self/status", &mut status).unwrap_or(0);
    let text = core::str::from_utf8(status.get(..length).unwrap_or_default()).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("Threads:").is_some_and(|count| count.trim() == "1"))
}
