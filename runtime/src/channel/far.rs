//! What is different about a channel that leads to another host: its other side is this host's agent, which passes on
//! what it finds. So lines must be pointed out to it, it sleeps by a doorbell of its own, bytes may still be on their
//! way when the kernel connection has ended already, and the peer cannot be looked into.

use super::Channel;
use super::sort::Wakes;
use crate::agent::failover;
use crate::shm::party::Recovery;
use crate::shm::segment::{JOINED, STAYS, SideLine, SlotState, WORTH};
use crate::{bell, position, sys, wait};
use convoy_aggregator::path::Path;
use core::sync::atomic::{Ordering, fence};

/// How long the other host may take to bring a stream back to the kernel.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Longer than it takes to notice that an agent is gone.
const GIVE_UP_NS: u64 = 6_000_000_000;

impl Channel {
    /// Whether what is sent may go through the kernel: the other end must know that it went through the channel before, or it
    /// would take the kernel's bytes first.
    pub fn may_use_kernel(&self, slot: u32) -> bool {
        let announced = self.own_line(slot).announced.load(Ordering::Relaxed);
        self.way.is_none()
            || announced & 1 == 0
            || self.peer_line(slot).kernel_senders.load(Ordering::Acquire) == announced
            || self.recovery(slot) != Recovery::None
            || !self.usable()
    }

    /// Waits until [`Self::may_use_kernel`]; that takes a round trip between the agents, and no longer than until they are
    /// given up.
    pub(super) fn await_kernel(&self, slot: u32) {
        wait::patiently(GIVE_UP_NS, || self.may_use_kernel(slot));
    }

    /// Whether a send would get on: there is room, or the kernel may be used.
    pub fn is_writable(&self, slot: u32) -> bool {
        self.way.is_none() || self.may_use_kernel(slot) || self.has_room(slot)
    }

    /// Whether a switch back to the kernel is reached now. Another thread may have taken the agent's news of it.
    #[inline]
    pub fn reaches_kernel(&self, slot: u32, generation: u8, fd: i32) -> bool {
        self.way.is_some()
            && self.own_line(slot).passed.load(Ordering::Relaxed) & 1 == 1
            && self.switch_pending(slot)
            && self.recovery(slot) == Recovery::None
            && self.receive_path(slot, generation, fd).is_ok_and(|path| path == Path::Kernel)
    }

    /// Whether this side's end of a slot is in use.
    pub fn is_open(&self, slot: u32) -> bool {
        self.party.stream(slot).open.load(Ordering::SeqCst) != 0
    }

    /// The program has sent a message of so many bytes, on whatever path; `lone` when something had come back for the one
    /// before.
    #[inline]
    pub fn note_sent(&self, slot: u32, lone: bool, bytes: usize) {
        if slot < self.party.slots() {
            self.segment.load(slot).add(lone, bytes);
        }
    }

    /// Frames of a stream are published: wakes whoever waits for them.
    #[inline]
    pub(super) fn ring_receiver(&self, slot: u32) {
        match &self.way {
            None if self.nobody_sleeps_there() => {}
            None => bell::ring_all(self.peer_line(slot).receive_waiters.snapshot()),
            Some(way) => {
                fence(Ordering::SeqCst);
                self.ring_agent(way);
            }
        }
    }

    /// This side's line of the slot has changed in a way that the other side must learn of by itself.
    #[inline]
    pub fn changed(&self, slot: u32) {
        if let Some(way) = &self.way {
            self.segment.changes(0).mark(slot);
            fence(Ordering::SeqCst);
            self.ring_agent(way);
        }
    }

    /// Whether the agent has changed lines that nobody here has looked at yet.
    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        self.way.is_some() && self.segment.changes(1).any()
    }

    /// Tells those who wait for a stream that its agent has changed a line. The caller holds the receive lock.
    pub(super) fn take_changes(&self, wakes: &mut Wakes<'_>) {
        if self.has_changes() {
            self.segment.changes(1).take(|slot| {
                wakes.add(slot);
                let socket = self.socket_of(slot);
                if let Some(socket) = socket.checked_sub(1).and_then(crate::socket::at) {
                    socket.hint.store(true, Ordering::Relaxed);
                }
            });
        }
    }

    /// Whether the end that the kernel reports is the stream's: everything that came before it is here. To be asked
    /// before the last look for bytes.
    #[inline]
    pub fn may_end(&self, slot: u32, generation: u8) -> bool {
        if self.way.is_none() {
            return true;
        }
        match self.recovery(slot) {
            Recovery::None => {}
            Recovery::Running => return false,
            Recovery::Done | Recovery::Failed | Recovery::Quiet => return !self.has_bytes(slot),
        }
        self.other_stays(slot) && !self.switch_pending(slot)
            || self.peer_line(slot).state(generation) == SlotState::Closed
            || !self.usable()
    }

    /// Whether the end that the kernel reports is this end's own shutdown(2) of what it receives, which does not wait for anything.
    #[cold]
    pub fn reads_no_more(&self, slot: u32, fd: i32) -> bool {
        self.recovery(slot) == Recovery::None && position::reads_no_more(fd)
    }

    /// Whether the end that the kernel reports may be told beside bytes that the program has not read: it is the stream's, and
    /// what comes before it is here.
    pub fn may_tell_end(&self, slot: u32, generation: u8) -> bool {
        match self.recovery(slot) {
            Recovery::Running => false,
            Recovery::Done | Recovery::Failed | Recovery::Quiet => true,
            Recovery::None => {
                self.may_end(slot, generation) || self.other_stays(slot) && self.has_bytes(slot)
            }
        }
    }

    /// Which of these events a sleeper may watch the kernel connection for, if at all: not for news that mean nothing yet. It is known
    /// whether the kernel's connection is `over`.
    #[inline]
    pub fn watches_kernel(&self, slot: u32, generation: u8, over: bool, events: i16) -> Option<i16> {
        if self.way.is_none() {
            return Some(events);
        }
        match self.recovery(slot) {
            Recovery::None => {}
            Recovery::Running => return None,
            Recovery::Done | Recovery::Failed | Recovery::Quiet => return Some(events),
        }
        let reads_kernel = self.own_line(slot).passed.load(Ordering::Relaxed) & 1 == 0;
        if reads_kernel && !over || self.may_tell_end(slot, generation) {
            return Some(events);
        }
        // Bytes are of a switch that is on its way. Of the end the agent may never tell.
        (!over).then_some(events & libc::POLLRDHUP)
    }

    /// Waits until a stream that returns to the kernel has done so; one that takes too long is ended, so that nothing comes
    /// between its bytes.
    pub fn await_return(&self, slot: u32, fd: i32) {
        if !wait::patiently(GIVE_UP_NS, || self.recovery(slot) != Recovery::Running) {
            let _ = sys::shutdown(fd, libc::SHUT_RDWR);
        }
    }

    /// Whether what the other end sends is on the kernel for good, as far as this one knows.
    #[inline]
    pub fn other_stays(&self, slot: u32) -> bool {
        stays(self.peer_line(slot))
    }

    /// The same of what this end sends.
    #[inline]
    pub fn stays(&self, slot: u32) -> bool {
        stays(self.own_line(slot))
    }

    /// Whether both directions are on the kernel for good, and both ends know it and have read what came before.
    pub fn is_settled(&self, slot: u32) -> bool {
        let (own, peer) = (self.own_line(slot), self.peer_line(slot));
        let followed = |sender: &SideLine, receiver: &SideLine| {
            sender.announced.load(Ordering::Acquire) == receiver.passed.load(Ordering::Acquire)
        };
        stays(own) && stays(peer) && followed(own, peer) && followed(peer, own)
    }

    /// Whether both directions are on the kernel for good and nothing is with the agents any more: what came before is with the
    /// processes of both ends, read or not, and the other end has heard where this one has left the channel.
    pub fn has_arrived(&self, slot: u32, generation: u8) -> bool {
        let heard = || {
            let announced = self.own_line(slot).announced.load(Ordering::Acquire);
            self.peer_line(slot).kernel_senders.load(Ordering::Acquire) == announced
        };
        let both_stay = self.stays(slot) && self.other_stays(slot);
        both_stay && heard() && self.is_next(slot) && self.has_delivered(slot, generation)
    }

    /// Whether what is queued of a stream comes before all that the kernel has: only the last switch of the other end, to the
    /// kernel, is not passed yet, or none.
    pub fn is_next(&self, slot: u32) -> bool {
        let passed = self.own_line(slot).passed.load(Ordering::Acquire);
        let ahead = self.peer_line(slot).announced.load(Ordering::Acquire).wrapping_sub(passed);
        ahead == 0 || ahead == 1 && passed & 1 == 1
    }

    /// Whether the program has shut down what it sends, after which nothing could be sent again and nothing has to be.
    pub fn has_arrived_and_ended(&self, slot: u32, generation: u8, fd: i32) -> bool {
        self.has_arrived(slot, generation) && position::sends_no_more(fd)
    }

    /// Whether the other end has ever joined the stream, as far as this one knows.
    pub fn is_joined(&self, slot: u32) -> bool {
        self.peer_line(slot).flags.load(Ordering::Acquire) & JOINED != 0
    }

    /// Whether the agent finds the fabric worth it for a stream, or the other end already uses it.
    pub fn is_worth(&self, slot: u32) -> bool {
        slot >= self.party.slots() || self.peer_line(slot).flags.load(Ordering::Acquire) & WORTH != 0
    }

    /// Whether the agent says that the way of a stream is gone.
    pub fn is_lost(&self, slot: u32, generation: u8) -> bool {
        slot < self.party.slots() && self.peer_line(slot).state(generation) == SlotState::Lost
    }

    /// Whether the other end has begun to return to the kernel: so does this one then.
    #[cold]
    pub fn note_mark(&self, slot: u32, fd: i32) -> bool {
        let undecided = matches!(self.recovery(slot), Recovery::None | Recovery::Quiet);
        let marked = undecided && failover::is_marked(fd);
        if marked {
            failover::answer(self, slot);
        }
        marked
    }

    /// Whether the urgent byte that is next on the connection is of a return, and not the program's to read over: it may have come
    /// since the kernel was asked for news.
    #[cold]
    pub fn meets_mark(&self, slot: u32, fd: i32) -> bool {
        let marked = failover::may_be_marked(fd);
        self.note_mark(slot, fd);
        // Looked at last: who brings the stream back takes the byte.
        marked || self.recovery(slot) == Recovery::Running
    }

    /// Brings what this side receives back to the kernel: the other end is asked to switch there. False when unread
    /// bytes are left, which cannot be put back, or the other host does not answer.
    pub fn recall_far(&self, slot: u32, generation: u8, fd: i32) -> bool {
        self.own_line(slot).change_state(generation, SlotState::Open, SlotState::WantsKernel);
        self.changed(slot);
        let mut recalled = false;
        wait::patiently(PATIENCE_NS, || {
            let _ = self.sort();
            let kernel = self.receive_path(slot, generation, fd).is_ok_and(|path| path == Path::Kernel);
            recalled = kernel && self.other_stays(slot);
            recalled || self.has_bytes(slot) || !self.usable()
        });
        if !recalled {
            self.own_line(slot).change_state(generation, SlotState::WantsKernel, SlotState::Open);
        }
        recalled
    }

    /// The other end wants the stream on the kernel.
    pub fn obey_far_recall(&self, slot: u32, generation: u8) {
        if slot < self.party.slots() && self.peer_line(slot).state(generation) == SlotState::WantsKernel {
            self.send_through_kernel(slot, generation);
            self.note_asked(slot, generation);
        }
    }
}

/// Whether the sender of this line is on the kernel for good: it says so before it announces the switch there.
fn stays(line: &SideLine) -> bool {
    line.flags.load(Ordering::Acquire) & STAYS != 0 && line.announced.load(Ordering::Acquire) & 1 == 0
}
