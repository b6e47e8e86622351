//! The way from a channel to the agent behind it: the Unix socket by which each learns that the other is gone, the doorbell, and
//! what becomes of them. What is said over it is in `agent`.

use super::Channel;
use crate::agent::protocol::Message;
use crate::agent::{failover, listener};
use crate::registry::BELLS;
use crate::{stats, sys, table};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};

/// The way to the agent.
pub struct Way {
    /// Tells it from all others that this process has had.
    pub number: u32,
    /// The Unix socket to it: closed at its end when it is gone.
    pub socket: AtomicI32,
    /// Event counter by which it sleeps; -1 until it has sent it.
    doorbell: AtomicI32,
    /// It is gone.
    pub lost: AtomicBool,
    /// Bells that it knows, a bit each.
    bells: [AtomicU64; BELLS / 64],
}

impl Way {
    /// The way behind a connected socket.
    pub fn new(socket: i32) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            socket: AtomicI32::new(socket),
            doorbell: AtomicI32::new(-1),
            lost: AtomicBool::new(false),
            bells: [const { AtomicU64::new(0) }; BELLS / 64],
        }
    }

    /// A thread is going to wait by this bell: the agent must be able to ring it.
    /// False when the agent could not be told.
    fn introduce(&self, number: u16, fifo: i32) -> bool {
        let Some(word) = self.bells.get(number as usize / 64) else { return false };
        let bit = 1 << (number % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            let message = Message::Bell { number }.encode();
            if sys::unix_send(self.socket.load(Ordering::Relaxed), &message, &[fifo]).is_err() {
                return false;
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        true
    }
}

impl Channel {
    #[inline]
    pub fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// Whether the other ends of the streams are on other hosts.
    #[inline]
    pub fn leads_to_agent(&self) -> bool {
        self.way.is_some()
    }

    /// A thread is going to wait for a stream by this bell.
    /// False when it cannot: then the thread must look by itself now and then.
    #[inline]
    pub fn introduce(&self, number: u16, fifo: i32) -> bool {
        match &self.way {
            None => true,
            // Its streams return, or have returned: whoever brings them back is of this process, and finds sleepers by their lines.
            Some(way) if way.lost.load(Ordering::SeqCst) => true,
            Some(way) => {
                // A forked child hears only by a listener of its own that the agent is gone.
                listener::running();
                way.introduce(number, fifo)
            }
        }
    }

    pub(super) fn peer_alive(&self) -> bool {
        match &self.way {
            Some(way) => !way.lost.load(Ordering::Relaxed),
            None => self.peer.alive(),
        }
    }

    /// The caller has published its change and passed a SeqCst fence.
    #[inline]
    pub(super) fn ring_agent(&self, way: &Way) {
        let asleep = &self.segment.side(1).asleep;
        if asleep.load(Ordering::Relaxed) != 0 {
            let doorbell = way.doorbell.load(Ordering::Relaxed);
            // Without one yet, whoever gets it rings.
            if doorbell >= 0 && asleep.swap(0, Ordering::SeqCst) != 0 {
                stats::process().doorbells_rung.add(1);
                sys::ring_eventfd(doorbell);
            }
        }
    }

    /// The agent's doorbell has come: rung for what was published before.
    pub fn set_doorbell(&self, fd: i32) {
        if let Some(way) = &self.way {
            way.doorbell.store(fd, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            self.ring_agent(way);
        }
    }

    /// The agent is gone: no new streams, and those that are there return to the kernel.
    pub fn lose_agent(&self) {
        if let Some(way) = &self.way {
            way.lost.store(true, Ordering::SeqCst);
            self.own_side().gave_up.store(1, Ordering::Relaxed);
            // Before the last look at what the agent has published: see there.
            fence(Ordering::SeqCst);
            // An agent that was only slow learns of it, too.
            let _ = sys::shutdown(way.socket.load(Ordering::Relaxed), libc::SHUT_RDWR);
            let open = |slot: &u32| {
                let socket = self.socket_of(*slot).checked_sub(1).and_then(crate::socket::at);
                // Of one whose other end has closed everything is here.
                socket.is_some_and(|socket| !self.may_end(*slot, socket.generation()))
            };
            (0..self.party.slots()).filter(open).for_each(|slot| failover::note(self, slot));
            // Whoever offers from now on finds the socket shut.
            crate::agent::forget_offers(self);
        }
    }

    /// Whether the agent is gone and the descriptors of the way to it are still open.
    pub fn is_to_be_closed(&self) -> bool {
        let open = |way: &Way| way.lost.load(Ordering::Relaxed) && way.socket.load(Ordering::Relaxed) >= 0;
        self.way.as_ref().is_some_and(open)
    }

    /// Closes them; no thread uses them any more.
    pub fn close_way(&self) {
        let Some(way) = &self.way else { return };
        for fd in [&way.socket, &way.doorbell] {
            let fd = fd.swap(-1, Ordering::SeqCst);
            if fd >= 0 {
                table::abandon(fd);
            }
        }
    }

    /// A descriptor of the way is wanted by the program: it moves elsewhere.
    pub fn move_way(&self, fd: i32) -> bool {
        let Some(way) = &self.way else { return false };
        [&way.socket, &way.doorbell].into_iter().any(|known| {
            if known.load(Ordering::Relaxed) != fd {
                return false;
            }
            let Ok(moved) = table::copy_behind(fd) else { return false };
            known.store(moved, Ordering::SeqCst);
            sys::close(fd).is_ok()
        })
    }
}
