//! The end of a channel that cannot be used any more: its connections are shut down, so that both ends hear of it.

use super::{Channel, Trouble};
use crate::inside::Section;
use crate::{socket, stats, sys, wait};
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Threads of this process that shut down the connections of a channel at this moment. Counted up before they look which those
/// are; who closes a connection takes it off its channel and then looks at this.
static RESETTING: AtomicU32 = AtomicU32::new(0);
/// The longest wait for them, in nanoseconds: they make one call for each connection.
const RESET_NS: u64 = 1_000_000_000;

/// Returns when nobody shuts down a connection that was taken off its channel before this call: its number and its socket may
/// be another connection's afterwards.
pub fn await_resets() {
    fence(Ordering::SeqCst);
    if RESETTING.load(Ordering::SeqCst) != 0 {
        wait::patiently(RESET_NS, || RESETTING.load(Ordering::SeqCst) == 0);
    }
}

/// The threads that were counted are the parent's.
pub fn after_fork_in_child() {
    RESETTING.store(0, Ordering::Relaxed);
}

impl Channel {
    /// The channel cannot be used any more; its streams notice at their next call.
    #[cold]
    pub fn fail(&self, why: &str) -> Trouble {
        if !self.party.shared().broken.swap(true, Ordering::Relaxed) {
            stats::process().channels_broken.add(1);
            stats::process().demotions_broken.add(u64::from(self.streams.load(Ordering::Relaxed)));
            let (peer, streams) = (self.peer.pid(), self.streams.load(Ordering::Relaxed));
            crate::log_warn!("channel to process {peer} ended, its streams ({streams}) are reset: {why}");
            if self.is_traced() {
                self.trace_reset(crate::trace::wire::Place::NO_SLOT, 0, why);
            }
            self.reset_streams(why);
        }
        Trouble::Broken
    }

    /// The connections of a failed channel are shut down, which wakes whoever sleeps on them.
    fn reset_streams(&self, why: &str) {
        let _section = Section::new();
        RESETTING.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        for index in self.sockets.iter().filter_map(|word| word.load(Ordering::Relaxed).checked_sub(1)) {
            if let Some(socket) = socket::at(index) {
                crate::log_info!("{socket} to process {} is reset: {why}", self.peer.pid());
                socket.hint.store(true, Ordering::Relaxed);
                let _ = sys::shutdown(socket.fd.load(Ordering::Relaxed), libc::SHUT_RDWR);
            }
        }
        RESETTING.fetch_sub(1, Ordering::SeqCst);
    }

    /// The socket leaves its stream, and is nobody's to shut down any more.
    pub(super) fn forget_socket(&self, slot: u32) {
        self.set_socket(slot, None);
        await_resets();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::pair::Pair;
    use super::*;

    #[test]
    fn a_stream_is_not_left_while_its_connection_may_be_shut_down() {
        let pair = Pair::new();
        pair.ends[0].set_socket(3, Some(7));
        RESETTING.fetch_add(1, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let leaver = scope.spawn(|| {
                pair.ends[0].forget_socket(3);
                RESETTING.load(Ordering::SeqCst)
            });
            while pair.ends[0].socket_of(3) != 0 {
                std::thread::yield_now();
            }
            RESETTING.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(leaver.join().unwrap(), 0, "it has not waited");
        });
    }
}
