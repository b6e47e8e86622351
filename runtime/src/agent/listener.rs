//! The thread that hears the agent: answers to offers, and that it is gone.
//!
//! It exists only in processes that have offered a connection to an agent. It has all signals blocked; fork finds it
//! outside of [`WORK`], and a child starts its own when it needs one.

use super::protocol::{BYTES, Message};
use crate::channel::{self, Channel};
use crate::lock::Mutex;
use crate::{flusher, sys};
use core::sync::atomic::{AtomicU32, Ordering};

const STACK_BYTES: usize = 128 << 10;
/// Between two looks whether the process has other threads at all.
const LOOK_S: i64 = 20;

/// 1 while the thread exists.
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Held while the thread is at work; taken by fork.
static WORK: Mutex<()> = Mutex::new(());

/// Before fork: waits until the thread holds nothing, and keeps it there.
pub fn pause() {
    core::mem::forget(WORK.lock());
}

/// After fork, in both processes.
pub fn go_on() {
    // SAFETY: taken in `pause` by this thread and forgotten.
    unsafe { WORK.force_unlock() };
}

pub fn after_fork_in_child() {
    crate::lock::free_in_child(&WORK);
    RUNNING.store(0, Ordering::Release);
}

/// Whether the thread is there; starts it.
pub fn running() -> bool {
    if RUNNING.swap(1, Ordering::SeqCst) == 1 {
        return true;
    }
    let started = flusher::with_signals_blocked(|| {
        std::thread::Builder::new().name("convoy-agent".into()).stack_size(STACK_BYTES).spawn(run).is_ok()
    });
    if !started {
        RUNNING.store(0, Ordering::SeqCst);
    }
    started
}

fn run() {
    loop {
        let ways: Vec<_> = channel::all().filter_map(|channel| Some((channel, channel.way()?))).collect();
        let mut set: Vec<_> = ways
            .iter()
            .filter(|(_, way)| !way.lost.load(Ordering::Relaxed))
            .map(|(channel, way)| {
                // What is said to a parent is not for its child, which only learns that the agent is gone.
                let events = if is_own(channel) { libc::POLLIN } else { 0 };
                libc::pollfd { fd: way.socket.load(Ordering::Relaxed), events, revents: 0 }
            })
            .collect();
        if set.is_empty() {
            break;
        }
        let mut limit = libc::timespec { tv_sec: LOOK_S, tv_nsec: 0 };
        // SAFETY: the set is valid, a timeout, no mask.
        let ready = unsafe { sys::ppoll(set.as_mut_ptr(), set.len(), &mut limit, core::ptr::null()) };
        match ready {
            Ok(0) if alone() => break,
            Ok(0) | Err(_) => continue,
            Ok(_) => {}
        }
        let _work = WORK.lock();
        for entry in set.iter().filter(|entry| entry.revents != 0) {
            let way = ways.iter().find(|(_, way)| way.socket.load(Ordering::Relaxed) == entry.fd);
            if let Some((channel, _)) = way
                && !(is_own(channel) && hear_all(entry.fd))
            {
                channel.lose_agent();
            }
        }
    }
    RUNNING.store(0, Ordering::SeqCst);
}

/// Whether this process, and not its parent, has made the channel to the agent.
fn is_own(channel: &Channel) -> bool {
    super::current().is_some_and(|agent| core::ptr::eq(agent.channel, channel))
}

/// False when the agent is gone.
fn hear_all(socket: i32) -> bool {
    loop {
        let mut bytes = [0u8; BYTES];
        match sys::unix_receive(socket, &mut bytes) {
            Ok((0, _)) => return false,
            Ok((count, passed)) => match bytes.get(..count).and_then(Message::decode) {
                Some(message) => super::hear(message, passed),
                None => passed.into_iter().filter(|fd| *fd >= 0).for_each(super::drop_descriptor),
            },
            Err(libc::EAGAIN | libc::EINTR) => return true,
            Err(_) => return false,
        }
    }
}

/// Whether this is the process's last thread: it must not keep it alive.
fn alone() -> bool {
    let mut status = [0u8; 2048];
    let length = sys::read_file(c"/proc/self/status", &mut status).unwrap_or(0);
    let text = core::str::from_utf8(status.get(..length).unwrap_or_default()).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("Threads:").is_some_and(|count| count.trim() == "1"))
}
