//! Programs that confine themselves (seccomp(2)): from then on they may make only the system calls they have thought of,
//! and any other may end them. So Convoy takes its leave before that, for good: streams go back to the kernel, nothing is
//! followed any more, and hooks make the real call and nothing else.

use crate::socket::{self, State};
use crate::table::{self, Entry};
use crate::{channel, epoll, fork, process, session, stats};
use core::sync::atomic::{AtomicBool, Ordering};

/// Never reset: a filter cannot be taken away.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Whether the process has confined itself, or a process it is a fork of has.
#[inline]
pub fn confined() -> bool {
    CONFINED.load(Ordering::Relaxed)
}

/// Before the filter is there. Where it is refused, Convoy has gone all the same.
pub fn before() {
    if CONFINED.swap(true, Ordering::SeqCst) {
        return;
    }
    let joined = process::own() != process::Identity::NOBODY;
    let staying = if joined { leave_channels() } else { Vec::new() };
    let mut given_up = Vec::new();
    for (fd, entry) in table::tracked_in(0, u32::MAX) {
        if is_kernels(entry, &staying) {
            table::take(fd);
            given_up.extend(match entry {
                Entry::Socket(index) if !given_up.contains(&index) => Some(index),
                _ => None,
            });
        }
    }
    // Candidates stay counted: their other holders must not move what this process reads.
    let streams =
        given_up.into_iter().filter_map(socket::at).filter(|socket| socket.state() == State::Promoted);
    streams.for_each(|socket| fork::change_holders(socket, false));
}

/// Gives the sockets that could not go back, because unread bytes are in a channel.
fn leave_channels() -> Vec<u32> {
    let mut staying = Vec::new();
    stats::dump();
    channel::hold::release_all();
    session::leave_streams(|index| staying.push(index));
    stats::withdraw();
    staying
}

/// Whether the kernel alone can serve a descriptor now. What an epoll instance waits for in Convoy's own way goes on so: the
/// program's registrations are not with the kernel.
fn is_kernels(entry: Entry, staying: &[u32]) -> bool {
    match entry {
        Entry::Socket(index) => {
            !staying.contains(&index)
                && socket::at(index).is_some_and(|socket| socket.watch.load(Ordering::Relaxed) == 0)
        }
        Entry::Epoll(index) => epoll::at(index).is_some_and(|instance| instance.lock().is_kernels()),
        Entry::Private | Entry::None => false,
    }
}
