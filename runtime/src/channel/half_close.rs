//! shutdown(2) of what an end sends, on a stream to another host. After the kernel's FIN nothing can be put into the connection any
//! more, so it must not come before what is still on its way through the agents: these may be lost. `agent::failover` sends it when
//! it has to wait.

use super::Channel;
use crate::shm::party::Recovery;
use crate::shm::segment::SlotState;
use crate::{sys, wait};
use core::sync::atomic::{Ordering, fence};

/// How long a call that may wait does so for the other end: some round trips between hosts, in nanoseconds.
const SOON_NS: u64 = 1_000_000;

impl Channel {
    /// The program is about to end what this end sends. On the way to another host the other direction is brought back to the
    /// kernel as well, because an end that cannot send any more cannot settle a loss.
    pub fn settle_before_shutdown(&self, slot: u32, generation: u8) {
        self.send_through_kernel(slot, generation);
        if self.leads_to_agent() && self.recovery(slot) == Recovery::None {
            self.own_line(slot).change_state(generation, SlotState::Open, SlotState::WantsKernel);
            self.changed(slot);
        }
    }

    /// A shutdown(2) while the stream returns to the kernel, which would cut the return off: it is done after it. False when the
    /// stream does not return.
    pub fn defer_shutdown(&self, slot: u32, how: i32) -> bool {
        if self.recovery(slot) != Recovery::Running {
            return false;
        }
        self.note_shutdown(slot, how);
        // Whoever takes it does it: the thread that has brought the stream back, or this one.
        self.recovery(slot) == Recovery::Running || self.take_shutdown(slot).is_none()
    }

    /// What is to be shut down now that the stream has returned, as shutdown(2) wants it.
    pub fn take_shutdown(&self, slot: u32) -> Option<i32> {
        fence(Ordering::SeqCst);
        self.party.stream(slot).shut_after.swap(0, Ordering::SeqCst).checked_sub(1).map(|how| how as i32)
    }

    /// [`Self::may_shut_down`]; on a blocking socket waits a little for it.
    pub fn may_shut_down_soon(&self, slot: u32, generation: u8, fd: i32) -> bool {
        if !self.leads_to_agent() {
            return true;
        }
        let nonblocking = sys::fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0);
        let limit = if nonblocking { 0 } else { SOON_NS };
        wait::patiently(limit, || self.may_shut_down(slot, generation, fd))
    }

    /// Whether the FIN may be sent: nothing of either direction is with the agents any more.
    pub fn may_shut_down(&self, slot: u32, generation: u8, fd: i32) -> bool {
        let _ = self.sort();
        // Passes the other end's switch once all before it is read.
        let _ = self.receive_path(slot, generation, fd);
        self.has_arrived(slot, generation)
            || !self.is_joined(slot)
            || self.recovery(slot) != Recovery::None
            || self.peer_line(slot).state(generation) == SlotState::Closed
    }

    /// A step of bringing the stream back to the kernel before this process leaves it; whether nothing of it is with the agents any
    /// more, or that cannot be waited for.
    pub fn settles_before_leaving(&self, slot: u32, generation: u8, fd: i32) -> bool {
        if !self.stays(slot) && self.may_use_kernel(slot) {
            self.settle_before_shutdown(slot, generation);
        }
        // What the program has not read it never will, and the other end cannot settle before it is.
        self.recovery(slot) != Recovery::Running
            && (self.may_shut_down(slot, generation, fd) || self.has_bytes(slot))
    }

    /// What is to be shut down is noted, to be done by who [takes](Self::take_shutdown) it.
    pub fn note_shutdown(&self, slot: u32, how: i32) {
        self.party.stream(slot).shut_after.fetch_or(how as u32 + 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether anything is noted.
    #[inline]
    pub fn notes_shutdown(&self, slot: u32) -> bool {
        self.party.stream(slot).shut_after.load(Ordering::Relaxed) != 0
    }

    /// What was noted is done: its time has come, or the program sends on, closes, or gives the connection away.
    #[inline]
    pub fn shut_down_now(&self, slot: u32, fd: i32) {
        if self.notes_shutdown(slot)
            && self.recovery(slot) != Recovery::Running
            && let Some(how) = self.take_shutdown(slot)
        {
            let _ = sys::shutdown(fd, how);
        }
    }
}
