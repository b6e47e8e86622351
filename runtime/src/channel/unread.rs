//! What of a stream could be read, without reading it.

use super::Channel;
use crate::position;
use crate::shm::party::Recovery;
use crate::shm::segment::SlotState;
use convoy_aggregator::path::Path;
use core::sync::atomic::Ordering;

impl Channel {
    /// Whether bytes of a stream wait in its queue or, not yet sorted, in the lane; needs no lock.
    #[inline]
    pub fn has_bytes(&self, slot: u32) -> bool {
        self.queued_bytes(slot) > 0
    }

    /// Whether bytes of a stream between two processes wait in its queue; nothing when it takes a closer look to say so, because
    /// they may be on either path.
    #[inline]
    pub fn glance(&self, slot: u32) -> Option<bool> {
        let announced = self.peer_line(slot).announced.load(Ordering::Acquire);
        let stream = self.party.stream(slot);
        let plain = announced & 1 == 1 && stream.is_steady(announced) && self.usable();
        plain.then(|| stream.queued.load(Ordering::Acquire) > 0)
    }

    /// Whether a stream between two processes has nothing in its queue and the lane is empty, without the lock. The queue is looked at
    /// again after the lane, because what another thread takes out of that is queued before; and before it, because that costs less.
    #[inline]
    pub(super) fn shows_nothing(&self, slot: u32) -> bool {
        let closer = || !self.leads_to_agent() && self.is_lane_empty() && self.glance(slot) == Some(false);
        self.queued_bytes(slot) == 0 && closer()
    }

    /// Whether queued bytes can be read at once: they may belong behind some that the kernel has not brought yet.
    #[inline]
    pub fn can_read(&self, slot: u32, generation: u8, fd: i32) -> bool {
        self.has_bytes(slot)
            && self.recovery(slot) != Recovery::Running
            && self.receive_path(slot, generation, fd).is_ok_and(|path| path == Path::Channel)
    }

    /// Whether this end has gone back to the kernel for good, with all that it receives.
    pub fn reads_kernel_for_good(&self, slot: u32, generation: u8, fd: i32) -> bool {
        if self.own_line(slot).state(generation) != SlotState::WantsKernel {
            return false;
        }
        let Ok(guard) = self.lock_receiving() else { return false };
        let Ok(stream) = guard.open_stream(slot, generation) else { return false };
        if self.leads_to_agent() {
            self.path_beneath(slot, fd, stream) == Ok((Path::Kernel, u64::MAX))
        } else {
            stream.recalled && !self.has_bytes(slot)
        }
    }

    /// Bytes of a stream that can be read at once, on both paths.
    pub fn readable(&self, slot: u32, generation: u8, fd: i32) -> u64 {
        let _ = self.sort();
        let Ok(guard) = self.lock_receiving() else { return 0 };
        let Ok(stream) = guard.open_stream(slot, generation) else { return 0 };
        let kernel = position::readable(fd);
        let queued = self.queued_bytes(slot);
        match self.recovery(slot) {
            Recovery::None => {}
            Recovery::Running => return 0,
            Recovery::Done | Recovery::Failed | Recovery::Quiet => return queued + kernel,
        }
        match self.path_beneath(slot, fd, stream) {
            // What follows on the other path may be followed by more on this one: none may be left out, because programs
            // stop reading after so many bytes and wait for news.
            Ok((Path::Kernel, limit)) if kernel >= limit => kernel + queued,
            Ok((Path::Kernel, _)) => kernel,
            Ok((Path::Channel, limit)) if queued >= limit => queued + kernel,
            Ok((Path::Channel, _)) if self.leads_to_agent() => queued,
            Ok((Path::Channel, _)) => queued + kernel,
            Err(_) => 0,
        }
    }

    /// Bytes of a stream in its queue.
    #[inline]
    pub fn queued_bytes(&self, slot: u32) -> u64 {
        self.party.stream(slot).queued.load(Ordering::Acquire)
    }

    /// Bytes the program has read and all that it could read so far, of this stream's channel part.
    pub fn received_bytes(&self, slot: u32) -> u64 {
        self.lock_receiving().map_or(0, |guard| guard.stream(slot).credit.received())
    }
}
