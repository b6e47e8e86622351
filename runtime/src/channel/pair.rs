//! Both ends of a channel in one process, in no list: for tests and fuzz targets. May contain `unsafe`: it ends channels.

use super::queue::Mode;
use super::receive::Received;
use super::send::Sent;
use super::{Channel, Trouble};
use crate::iov::{Cursor, single};
use crate::process;
use crate::shm::party::Party;
use crate::shm::segment::{Geometry, READY, Segment, SideLine};
use crate::sys;
use core::sync::atomic::Ordering;

/// The smallest ring there is, so that it wraps, fills and runs empty all the time.
pub const GEOMETRY: Geometry = Geometry { ring_bytes: 4096, slots: 64, block_bytes: 4096, blocks: 4 };
/// Enough for all windows of a few streams.
const QUEUE_BYTES: usize = 4 << 20;

/// The two ends.
pub struct Pair {
    pub ends: [&'static Channel; 2],
    /// The segment's file, for whoever wants to map it beside them.
    pub file: i32,
}

impl Pair {
    /// A new channel of this process with itself.
    ///
    /// # Panics
    /// There is no memory.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// The same, with something that is different about its ends.
    #[allow(clippy::expect_used)]
    pub(super) fn with(change: impl Fn(&mut Channel)) -> Self {
        let own = process::remember();
        let (first, file) = Segment::create(GEOMETRY, 1, [own, own]).expect("a segment");
        let second = Segment::attach(file, 1, [own, own]).expect("the same again");
        let end = |segment, side| {
            let party = Party::create(GEOMETRY.slots, QUEUE_BYTES).expect("memory of a side");
            let mut channel = Box::new(Channel::new(segment, party, side, 1, own).expect("memory of an end"));
            change(&mut channel);
            channel.lend_all_blocks();
            &*Box::leak(channel)
        };
        Self { ends: [end(first, 0), end(second, 1)], file }
    }

    /// A stream between the two, as promotion leaves it, over the descriptors of a connection's ends, which stay the caller's.
    /// Nothing when there is no slot, or no memory, or an end has lied about it.
    pub fn open(&self, fds: [i32; 2]) -> Option<Stream> {
        let mark = u64::from(fds[0].cast_unsigned());
        let (slot, generation) = self.ends[0].open_slot(mark).ok()?;
        if !self.ends[1].open_end(slot, generation, Some(mark)) {
            self.ends[0].close_end(slot, generation);
            return None;
        }
        for end in &self.ends {
            end.own_line(slot).flags.fetch_or(READY, Ordering::Release);
        }
        Some(Stream { ends: self.ends, fds, slot, generation })
    }

    /// Bytes that one side has received and nobody has read.
    pub fn queued(&self, side: usize) -> u64 {
        let queued = |slot| self.ends[side].party.stream(slot).queued.load(Ordering::Relaxed);
        (0..GEOMETRY.slots).map(queued).fold(0, u64::saturating_add)
    }

    /// Unmaps everything.
    ///
    /// # Safety
    /// No stream of it is left, and nobody uses the ends any more.
    pub unsafe fn end(self) {
        for end in self.ends {
            // SAFETY: the ends were leaked in `new`, and the caller promises that nobody uses them.
            unsafe {
                end.segment.unmap();
                end.party.unmap();
                drop(Box::from_raw(core::ptr::from_ref(end).cast_mut()));
            }
        }
        let _ = sys::close(self.file);
    }
}

/// A stream between the ends of a [`Pair`].
pub struct Stream {
    ends: [&'static Channel; 2],
    fds: [i32; 2],
    pub slot: u32,
    pub generation: u8,
}

impl Stream {
    /// Sends on one side what there is room for.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn send(&self, side: usize, bytes: &[u8]) -> Result<Sent, Trouble> {
        let part = single(bytes.as_ptr().cast_mut(), bytes.len());
        // SAFETY: the part lives as long as the cursor; sending only reads it.
        let Ok(mut cursor) = (unsafe { Cursor::new(&part, 1, true) }) else { unreachable!("own memory") };
        let sent = self.ends[side].send(self.slot, self.generation, self.fds[side], &mut cursor)?;
        if let Sent::Kernel(call) = sent {
            // Nothing is sent there.
            self.ends[side].end_kernel_send(self.slot, call);
        }
        Ok(sent)
    }

    /// Receives on one side what is there.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn receive(&self, side: usize, target: &mut [u8], mode: Mode) -> Result<Received, Trouble> {
        let part = single(target.as_mut_ptr(), target.len());
        // SAFETY: the part lives as long as the cursor.
        let Ok(mut cursor) = (unsafe { Cursor::new(&part, 1, true) }) else { unreachable!("own memory") };
        self.ends[side].receive(self.slot, self.generation, self.fds[side], &mut cursor, mode)
    }

    /// Goes over to the kernel, as for a receiver that does not keep up.
    pub fn spill(&self, side: usize) {
        self.ends[side].spill(self.slot, self.generation);
    }

    /// Waits for the end of a recall by the other side, for so many nanoseconds.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn obey_recall(&self, side: usize, patience: u64) -> Result<usize, Trouble> {
        self.ends[side].obey_recall_within(self.slot, self.generation, self.fds[side], patience)
    }

    /// The line of one side.
    pub fn line(&self, side: usize) -> &'static SideLine {
        self.ends[side].own_line(self.slot)
    }

    /// Ends both sides.
    pub fn close(&self) {
        for end in self.ends {
            end.close_end(self.slot, self.generation);
        }
    }
}
