//! Recall: a receiver wants its stream through the kernel, because something that is not Convoy is going to read it
//! (another program image after exec or SCM_RIGHTS, stdio). What it has received and not read must get there too.
//!
//! The receiver says so in its line. The sender looks at that line before and after it publishes; once it sees the
//! recall it waits for the receiver to finish and goes on through the kernel. The receiver does not depend on the
//! sender, which may be busy elsewhere: it takes everything unread off the channel, puts it into the kernel
//! connection through a copy of the sender's own socket (pidfd_getfd(2)), and says up to which byte.

use super::queue::Mode;
use super::receive::Received;
use super::{Channel, Rest, Trouble};
use crate::iov::{self, Cursor};
use crate::shm::party::Sending;
use crate::shm::segment::{SideLine, SlotState};
use crate::wait::{self, kernel_state};
use crate::{position, stats, sys};
use core::sync::atomic::Ordering;

/// Bytes taken at a time.
const PIECE: usize = 16384;
/// What poll says of a connection that has ended.
const ENDS: i16 = libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP;
/// How long one side waits for the other.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How long it usually takes at most; afterwards the sender asks whether the receiver is still there.
const SOON_NS: u64 = 2_000_000;
/// How long one side waits for something in a recall that must come: longer than any that goes on.
const RECALL_NS: u64 = 10_000_000_000;
/// How long it waits where it cannot have the other's processor pass a barrier.
const UNSURE_NS: u64 = 1_000_000;

impl Channel {
    /// The receiver's part. False when unread bytes cannot be moved; the stream then stays as it is.
    pub fn recall(&self, slot: u32, generation: u8, fd: i32) -> bool {
        let own = self.own_line(slot);
        own.change_state(generation, SlotState::Open, SlotState::WantsKernel);
        // The sender looks at that after it has published, like a waker.
        let seen = Rest::begin(core::iter::once(self));
        if !seen.is_sure() {
            // A processor's stores do not wait that long.
            sys::sleep_ns(UNSURE_NS);
        }
        let _ = self.sort();
        self.reveal();
        let hand = sys::hand();
        let carrier = self.peer_socket(slot, fd);
        let unread = self.has_bytes(slot) || self.switch_pending(slot);
        if unread && carrier.is_none() {
            own.change_state(generation, SlotState::WantsKernel, SlotState::Open);
            return false;
        }
        let moved = carrier.is_none_or(|carrier| {
            let moved =
                self.take_unread(slot, generation, fd, carrier).is_some_and(|bytes| put_all(carrier, &bytes));
            if !moved {
                // Bytes are lost: better the end of the connection than a gap.
                let _ = sys::shutdown(fd, libc::SHUT_RDWR);
            }
            let _ = sys::close(carrier);
            moved
        });
        drop(hand);
        if let Ok(guard) = self.lock_receiving() {
            let stream = guard.stream(slot);
            // What came after the last look is sent again.
            self.drop_queue(slot, guard.lane(), stream);
            self.release_window(slot);
            stream.recalled = true;
            self.party.stream(slot).unsettle();
            own.recalled.store(stream.credit.consumed() + 1, Ordering::Release);
        }
        moved
    }

    /// Everything unread on the channel, and kernel bytes that come before or after it. Nothing when the channel
    /// broke.
    fn take_unread(&self, slot: u32, generation: u8, fd: i32, carrier: i32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = [0u8; PIECE];
        let mut progress = sys::now_ns();
        loop {
            // A sender inside the kernel's send may have more: its bytes come before what is put back.
            let sending = self.peer_line(slot).kernel_senders.load(Ordering::SeqCst) != 0;
            // Before the path: see aggregator::path on why the order matters.
            let queued = position::readable(fd);
            let part = iov::single(piece.as_mut_ptr(), PIECE);
            // SAFETY: one part that lives long enough.
            let mut target = unsafe { Cursor::new(&part, 1, true) }.ok()?;
            match self.receive(slot, generation, fd, &mut target, Mode::Take).ok()? {
                Received::Bytes(count) => bytes.extend_from_slice(piece.get(..count)?),
                Received::Empty => return Some(bytes),
                Received::Kernel(u64::MAX) if bytes.is_empty() => return Some(bytes),
                Received::Kernel(limit) => {
                    let most = limit.min(queued).min(PIECE as u64) as usize;
                    let part = iov::single(piece.as_mut_ptr(), most);
                    // SAFETY: the piece is writable.
                    let count = unsafe { sys::recvmsg(fd, &part, 1, libc::MSG_DONTWAIT) }.unwrap_or(0);
                    self.count_kernel_read(slot, count as u64);
                    bytes.extend_from_slice(piece.get(..count)?);
                    let on_its_way = sys::ioctl_int(carrier, libc::TIOCOUTQ).unwrap_or(0) > 0;
                    let over = limit == u64::MAX && !on_its_way && position::readable(fd) == 0;
                    let idle = sys::now_ns() - progress;
                    if count > 0 {
                        progress = sys::now_ns();
                    } else if over && (!sending || idle > PATIENCE_NS) {
                        return Some(bytes);
                    } else if idle > RECALL_NS {
                        // A switch is announced at bytes that do not come.
                        return None;
                    } else {
                        sys::sched_yield();
                    }
                }
            }
        }
    }

    /// The other end wants the stream on the kernel, and gets it there.
    pub(super) fn note_asked(&self, slot: u32, generation: u8) {
        stats::process().demotions_peer_asked.add(1);
        if self.is_traced() {
            self.trace_demote(slot, generation, "the other end asked for it");
        }
    }

    /// A copy of the peer's descriptor of this connection, checked to be its other end.
    fn peer_socket(&self, slot: u32, fd: i32) -> Option<i32> {
        let number = self.peer_line(slot).descriptor.load(Ordering::Acquire) as i32;
        let copy = sys::descriptor_of(self.peer.pid(), number).ok()?;
        if crate::promote::are_ends(fd, copy) {
            Some(copy)
        } else {
            let _ = sys::close(copy);
            None
        }
    }

    /// The sender's part, before anything is sent: whether the receiver has recalled the stream.
    #[inline]
    pub(super) fn recalled(&self, slot: u32, stream: &Sending) -> bool {
        !stream.stay && self.asks_for_kernel(slot, stream.generation)
    }

    /// Whether the receiver wants the kernel, or wanted it and has closed since (others may hold the connection).
    #[inline]
    pub(super) fn asks_for_kernel(&self, slot: u32, generation: u8) -> bool {
        let line = self.peer_line(slot);
        !line.is_open(generation) && Self::is_recalling(line, generation)
    }

    #[cold]
    fn is_recalling(line: &SideLine, generation: u8) -> bool {
        match line.state(generation) {
            SlotState::WantsKernel => true,
            SlotState::Closed => line.recalled.load(Ordering::Acquire) != 0,
            _ => false,
        }
    }

    /// The sender has seen a recall: waits until the receiver has finished, then switches at the byte that was
    /// reached there. The answer is how many bytes beyond that were sent and have to be sent again.
    ///
    /// A receiver that died in the middle takes its unread bytes with it, and the kernel says the rest. One that lives and
    /// does not finish ends the channel: nobody knows which byte comes next.
    #[cold]
    pub fn obey_recall(&self, slot: u32, generation: u8, fd: i32) -> Result<usize, Trouble> {
        self.obey_recall_within(slot, generation, fd, RECALL_NS)
    }

    pub(super) fn obey_recall_within(
        &self,
        slot: u32,
        generation: u8,
        fd: i32,
        patience: u64,
    ) -> Result<usize, Trouble> {
        if self.leads_to_agent() {
            self.obey_far_recall(slot, generation);
            return Ok(0);
        }
        let line = self.peer_line(slot);
        let reached = || line.recalled.load(Ordering::Acquire).checked_sub(1);
        let is_over = || line.state(generation) != SlotState::WantsKernel || !self.usable();
        let has_died = || kernel_state(fd, ENDS) & ENDS != 0 && !self.peer_alive();
        let ended = wait::patiently(SOON_NS, || reached().is_some() || is_over())
            || wait::patiently(patience, || reached().is_some() || is_over() || has_died());
        if !ended {
            return Err(self.fail("a recall that does not end"));
        }
        let reached = reached();
        if reached.is_none() && is_over() {
            return Ok(0);
        }
        let guard = self.lock_sending()?;
        let stream = guard.open_stream(slot, generation)?;
        let sent = stream.credit.sent();
        let reached = reached.map_or(sent, |reached| reached.min(sent));
        let beyond = sent - reached;
        self.switch_to_kernel_at(slot, stream, reached);
        stream.stay = true;
        self.note_asked(slot, generation);
        Ok(beyond as usize)
    }
}

/// Writes all to a socket that somebody else may have made nonblocking.
fn put_all(socket: i32, bytes: &[u8]) -> bool {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let part = iov::single(rest.as_ptr().cast_mut(), rest.len());
        // SAFETY: one readable part.
        match unsafe { sys::sendmsg(socket, &part, 1, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) } {
            Ok(sent) => done += sent,
            Err(libc::EAGAIN)
                if wait::patiently(PATIENCE_NS, || kernel_state(socket, libc::POLLOUT) != 0) => {}
            Err(libc::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}
