//! A sender's switches between the kernel and the channel (see `aggregator::path` for the rules).

use super::Channel;
use super::Trouble;
use crate::inside::Section;
use crate::position::{self, Opener};
use crate::shm::party::{KernelSend, Recovery, Sending};
use crate::shm::segment::{READY, STAYS, SlotState};
use crate::socket::{self, Socket};
use crate::{stats, sys};
use convoy_aggregator::path::{Path, PathError};
use core::sync::atomic::{Ordering, fence};

impl Channel {
    /// The stream leaves the kernel, if the receiver follows and nobody is sending through the kernel.
    #[cold]
    pub(super) fn switch_to_channel(&self, slot: u32, fd: i32, stream: &mut Sending) -> bool {
        let line = self.peer_line(slot);
        let busy = self.party.stream(slot).sends_in_kernel();
        if stream.stay || busy || line.state(stream.generation) != SlotState::Open {
            return false;
        }
        if line.flags.load(Ordering::Acquire) & READY == 0 {
            return false;
        }
        let socket = self.socket_of(slot).checked_sub(1).and_then(socket::at);
        let Some(sent) = position::sent(fd, socket.map_or(Opener::Unknown, Socket::opener)) else {
            return false;
        };
        let Ok(number) = stream.path.to_channel(line.passed.load(Ordering::Acquire)) else {
            return false;
        };
        self.announce(slot, stream.generation, number, sent);
        push(fd);
        stats::process().switches_to_channel.add(1);
        true
    }

    /// The stream goes back to the kernel at the byte it has reached. False when it is there already, or returns.
    fn switch_to_kernel(&self, slot: u32, stream: &mut Sending) -> bool {
        self.switch_to_kernel_at(slot, stream, stream.credit.sent())
    }

    pub(super) fn switch_to_kernel_at(&self, slot: u32, stream: &mut Sending, position: u64) -> bool {
        // What the other end is told of the switches at a return is the last: an agent that is late would tell it of this one, too.
        if self.recovery(slot) != Recovery::None {
            return false;
        }
        let passed = self.peer_line(slot).passed.load(Ordering::Acquire);
        let number = match stream.path.to_kernel(passed) {
            Ok(number) => number,
            Err(PathError::Already) => return false,
            Err(_) => {
                // Left alone, the sender would wait for room for ever.
                self.fail("impossible path switch");
                return false;
            }
        };
        self.announce(slot, stream.generation, number, position);
        stats::process().switches_to_kernel.add(1);
        true
    }

    fn announce(&self, slot: u32, generation: u8, number: u32, position: u64) {
        let own = self.own_line(slot);
        own.position[number as usize & 1].store(position, Ordering::Relaxed);
        own.announced.store(number, Ordering::Release);
        self.changed(slot);
        if self.is_traced() {
            self.trace_switch(true, slot, generation, number, position);
        }
    }

    /// The agent may find that the fabric is not worth it for this stream: it takes READY away.
    #[inline]
    pub(super) fn obey_agent(&self, slot: u32, stream: &mut Sending) {
        if self.leads_to_agent()
            && stream.path.path() == Path::Channel
            && self.peer_line(slot).flags.load(Ordering::Acquire) & READY == 0
            && self.may_use_kernel(slot)
        {
            self.switch_to_kernel(slot, stream);
        }
    }

    /// The receiver does not keep up: what follows goes into the kernel's buffers, as it would without Convoy, until
    /// the receiver has read everything before it. Bytes in the kernel wake it.
    pub fn spill(&self, slot: u32, generation: u8) {
        self.publish_held();
        if let Ok(guard) = self.lock_sending()
            && let Ok(stream) = guard.open_stream(slot, generation)
        {
            self.switch_to_kernel(slot, stream);
        }
    }

    /// What this side sends on the stream goes through the kernel from now on; wakes the receiver.
    pub fn send_through_kernel(&self, slot: u32, generation: u8) -> bool {
        self.publish_held();
        self.await_kernel(slot);
        let _section = Section::new();
        let Ok(guard) = self.lock_sending() else { return false };
        let Ok(stream) = guard.open_stream(slot, generation) else { return false };
        stream.stay = true;
        // Before the switch: who has heard of that has heard of both.
        self.own_line(slot).flags.fetch_or(STAYS, Ordering::Release);
        let switched = self.switch_to_kernel(slot, stream);
        self.changed(slot);
        drop(guard);
        self.ring_receiver(slot);
        switched
    }

    /// For a call that only the kernel can make (splice from a pipe): the stream goes back to the kernel, for as long
    /// as it takes the receiver to catch up. To be followed by [`Channel::end_kernel_send`]. Nothing while the stream returns to
    /// the kernel: no bytes may come between.
    pub fn begin_kernel_send(
        &self,
        slot: u32,
        generation: u8,
        fd: i32,
    ) -> Result<Option<KernelSend>, Trouble> {
        self.publish_held();
        self.await_kernel(slot);
        let _section = Section::new();
        let guard = self.lock_sending()?;
        let stream = guard.open_stream(slot, generation)?;
        if self.recovery(slot) == Recovery::Running {
            return Ok(None);
        }
        self.switch_to_kernel(slot, stream);
        let call = self.enter_kernel_send_unless_returning(slot, fd);
        drop(guard);
        self.ring_receiver(slot);
        Ok(call)
    }

    /// Nothing when the stream returns to the kernel: who brings it back looks for senders after it has begun.
    pub(super) fn enter_kernel_send_unless_returning(&self, slot: u32, fd: i32) -> Option<KernelSend> {
        let call = self.enter_kernel_send(slot);
        if self.recovery(slot) != Recovery::Running {
            self.shut_down_now(slot, fd);
            return Some(call);
        }
        self.end_kernel_send(slot, call);
        None
    }

    pub(super) fn enter_kernel_send(&self, slot: u32) -> KernelSend {
        let call = self.party.stream(slot).enter_kernel_send();
        self.own_line(slot).kernel_senders.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        call
    }

    /// A kernel call that [`Sent::Kernel`](super::send::Sent::Kernel) asked for has returned.
    pub fn end_kernel_send(&self, slot: u32, call: KernelSend) {
        if self.party.stream(slot).leave_kernel_send(call) {
            self.own_line(slot).kernel_senders.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Bytes that the kernel holds back because more was to follow them (MSG_MORE, TCP_CORK, Nagle): what follows goes by the
/// channel and must not be read before them, so they leave now. Setting TCP_NODELAY does that (tcp(7)).
fn push(fd: i32) {
    const SIOCOUTQNSD: u64 = 0x894b;
    let Ok(unsent @ 1..) = sys::ioctl_int(fd, SIOCOUTQNSD) else { return };
    // A whole segment waits for the receiver, not for more.
    if sys::option(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG).is_ok_and(|segment| unsent < segment) {
        let delays = sys::option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY) == Ok(0);
        let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
        if delays {
            let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &0i32);
        }
    }
}
