//! The memory of one side of a channel: what its process and the children it forks share, and nobody else can
//! write. Everything here is trusted; the locks say who may touch what.

mod layout;

use super::blocks::Blocks;
use super::lock::SharedLock;
use super::ring::{Consumer, Producer};
use super::segment::BLOCK_WORDS;
use crate::sys::{self, Answer};
use convoy_aggregator::credit::{ReceiveCredit, SendCredit};
use convoy_aggregator::gather::Gather;
use convoy_aggregator::path::{ReceivePath, SendPath};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use layout::{
    HeldLayout, LaneSendingLayout, PartyLayout, ReceivingLayout, SendingLayout, SharedLayout, StreamLayout,
};

/// Bytes of one chunk of queued data, with its header.
pub const CHUNK_BYTES: usize = 2048;
/// Payload of one chunk.
pub const CHUNK_ROOM: usize = CHUNK_BYTES - size_of::<Chunk>();
/// No chunk.
pub const NONE: u32 = u32::MAX;

/// Head of a side's memory.
#[repr(C, align(64))]
pub struct Shared {
    /// Guards `sending`, every stream's [`Sending`] and the free slots.
    pub send_lock: SharedLock,
    sending: UnsafeCell<LaneSending>,
    /// Guards `receiving`, every stream's [`Receiving`] and the chunks.
    pub receive_lock: Aligned<SharedLock>,
    receiving: UnsafeCell<LaneReceiving>,
    /// Bytes of the lane taken so far, for those who look without the lock. Written under the receive lock with Release after what was
    /// taken is queued; pairs with the Acquire load in `Channel::has_frames`.
    pub taken: AtomicU64,
    /// When held frames leave at the latest, in microseconds; 0 when there are none. Written under the send lock.
    pub held_until: AtomicU64,
    /// Times in a row that something was found without a sleep. Written under the receive lock, and by sleepers; a hint.
    pub finds: AtomicU32,
    /// Set when the channel can no longer be used.
    pub broken: AtomicBool,
}

/// On a cache line of its own.
#[repr(C, align(64))]
pub struct Aligned<T>(pub T);

/// Sending half of the lane; guarded by the send lock.
#[repr(C)]
pub struct LaneSending {
    pub ring: Producer,
    pub blocks: Blocks,
    /// Oldest and newest closed slot of this side, and the first that was never used.
    pub first_free: u32,
    pub last_free: u32,
    pub fresh_slot: u32,
    pub held: Held,
}

/// The batch that is not published yet; see `channel::hold`.
#[repr(C)]
pub struct Held {
    /// Frames are held at all.
    pub on: bool,
    /// The batch is published, its receivers are not told yet.
    pub due: bool,
    /// Newest stream with frames in the batch, as slot + 1; `u32::MAX` = none.
    pub first: u32,
    pub gather: Gather,
}

/// Receiving half of the lane; guarded by the receive lock.
#[repr(C)]
pub struct LaneReceiving {
    pub ring: Consumer,
    /// When the lane was last looked at, in ticks.
    pub sorted: u64,
    pub batch: Batch,
    pub free_chunk: u32,
    pub fresh_chunk: u32,
    /// The peer's blocks, a bit each, that are in a queue.
    pub queued_blocks: [u64; BLOCK_WORDS],
    /// How many bits of them are set.
    pub queued_count: u32,
}

/// The batch that frames are taken from at the moment: what was visible when its first frame was taken, within the
/// user's thresholds.
#[repr(C)]
pub struct Batch {
    /// Cursor of its end; where it is not beyond the ring's head, the next frame begins another batch.
    pub end: u64,
    /// Frames and bytes of payload taken.
    pub frames: u32,
    pub bytes: u32,
}

/// One side's view of a stream.
#[repr(C, align(64))]
pub struct Stream {
    sending: UnsafeCell<Sending>,
    receiving: UnsafeCell<Receiving>,
    /// Bytes in `Receiving`'s queue, for those who look without the lock.
    pub queued: AtomicU64,
    /// Bytes of the connection read from the kernel, by this side's own count.
    pub kernel_read: AtomicU64,
    /// Calls that send through the kernel at this moment, in any process that holds the stream (low 16 bits), and how often
    /// the slot was opened, counted round: a call that returns after the end of its stream is none of the next one's.
    kernel_senders: AtomicU32,
    /// In how many processes of the family the stream is open.
    pub holders: AtomicU32,
    /// 1 while this side's end of the slot is in use; Release after initialisation.
    pub open: AtomicU32,
    /// [`Recovery`]: how the return to the kernel stands when the way to another host is gone.
    recovery: AtomicU32,
    /// What was shut down and is to be done later, after a return to the kernel or when the other end has read on: a bit each for
    /// SHUT_RD and SHUT_WR.
    pub shut_after: AtomicU32,
    /// How many switches this side has passed, plus 1, while nothing else says from where the stream is read; 0 = ask under the lock.
    /// Written under the receive lock, Relaxed: it is one word and stands for itself.
    steady: AtomicU32,
}

/// Guarded by the send lock.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sending {
    pub credit: SendCredit,
    pub path: SendPath,
    pub next_free: u32,
    /// The stream after this one in the list that starts at [`Held::first`]; 0 = not in it.
    pub next_held: u32,
    pub generation: u8,
    /// No more switches to the channel.
    pub stay: bool,
}

/// Guarded by the receive lock.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Receiving {
    pub credit: ReceiveCredit,
    /// Bytes of memory reserved for this stream: all that its sender may have outstanding.
    pub window: u32,
    /// When credit was granted last, in ticks of [`Receiving::GRANT_SHIFT`].
    pub granted_at: u32,
    pub path: ReceivePath,
    /// Queue of chunks not yet read.
    pub first: u32,
    pub last: u32,
    pub generation: u8,
    pub open: bool,
    /// Brought back to the kernel: frames that still come are sent again there.
    pub recalled: bool,
}

impl Receiving {
    /// Ticks by 2 to the power of this are the unit of `granted_at`: some 26 us, which wrap after a day.
    pub const GRANT_SHIFT: u32 = 16;
    /// About as many microseconds.
    pub const GRANT_US: u64 = 26;
}

/// Head of a queued piece: bytes that follow it, or a block of the sender's area.
#[repr(C)]
pub struct Chunk {
    pub next: u32,
    pub start: u32,
    pub end: u32,
    /// Block of the segment that holds the bytes, or [`NONE`].
    pub block: u32,
}

/// The mapping. Copies refer to the same memory, which is never unmapped under a reader.
#[derive(Clone, Copy)]
pub struct Party {
    base: *mut u8,
    /// Where the chunks begin.
    first_chunk: *mut u8,
    slots: u32,
    chunks: u32,
}

// SAFETY: the memory is accessed through atomics or under its locks.
unsafe impl Send for Party {}
// SAFETY: as above.
unsafe impl Sync for Party {}

impl Party {
    /// Reserves memory for `slots` streams and `queue_bytes` of queued data; pages appear as they are used.
    pub fn create(slots: u32, queue_bytes: usize) -> Answer<Self> {
        let chunks = (queue_bytes / CHUNK_BYTES).clamp(16, u32::MAX as usize / 2) as u32;
        let base = sys::map_guarded(-1, Self::bytes(slots, chunks))?;
        let party = Self { base, first_chunk: base.wrapping_add(Self::chunk_offset(slots)), slots, chunks };
        // Gigabytes of payload at most, mostly never used: not for core files.
        // SAFETY: a part of the mapping, of whole pages; nothing is invalidated.
        let _ =
            unsafe { sys::madvise(party.first_chunk, chunks as usize * CHUNK_BYTES, libc::MADV_DONTDUMP) };
        // SAFETY: the memory is new, nobody else knows it.
        unsafe {
            let sending = &mut *party.shared().sending.get();
            (sending.first_free, sending.last_free) = (NONE, NONE);
            (*party.shared().receiving.get()).free_chunk = NONE;
        }
        Ok(party)
    }

    fn bytes(slots: u32, chunks: u32) -> usize {
        Self::chunk_offset(slots) + chunks as usize * CHUNK_BYTES
    }

    fn chunk_offset(slots: u32) -> usize {
        (size_of::<Shared>() + slots as usize * size_of::<Stream>()).next_multiple_of(4096)
    }

    #[inline]
    pub fn shared(&self) -> &'static Shared {
        // SAFETY: start of the mapping, which outlives all users; interior mutability only.
        unsafe { &*self.base.cast::<Shared>() }
    }

    #[inline]
    pub fn stream(&self, slot: u32) -> &'static Stream {
        let slot = slot.min(self.slots - 1) as usize;
        // SAFETY: inside the stream table by the bound above; interior mutability only.
        unsafe { &*self.base.add(size_of::<Shared>()).cast::<Stream>().add(slot) }
    }

    /// A chunk and its payload.
    #[inline]
    pub fn chunk(&self, chunk: u32) -> (*mut Chunk, *mut u8) {
        let chunk = chunk.min(self.chunks - 1) as usize;
        // SAFETY: inside the chunk area by the bound above.
        let head = unsafe { self.first_chunk.add(chunk * CHUNK_BYTES) };
        // SAFETY: the payload follows the head inside the same chunk.
        (head.cast(), unsafe { head.add(size_of::<Chunk>()) })
    }

    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Gives the pages back; the memory reads as zeros afterwards.
    pub fn release_pages(&self) {
        // SAFETY: the caller has ended the channel; racing readers see zeros, which are valid values here.
        let _ = unsafe { sys::madvise(self.base, Self::bytes(self.slots, self.chunks), libc::MADV_REMOVE) };
    }

    /// # Safety
    /// No thread may use this memory any more.
    pub unsafe fn unmap(self) {
        // SAFETY: the caller's promise.
        unsafe { sys::unmap_guarded(self.base, Self::bytes(self.slots, self.chunks)) };
    }
}

impl Shared {
    /// # Safety
    /// The caller holds `send_lock` and keeps no other reference from here.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn sending(&self) -> &mut LaneSending {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.sending.get() }
    }

    /// # Safety
    /// The caller holds `receive_lock` and keeps no other reference from here.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn receiving(&self) -> &mut LaneReceiving {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.receiving.get() }
    }
}

/// How the return of a stream to the kernel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Recovery {
    /// Nothing of that kind has happened.
    None = 0,
    /// Calls wait.
    Running = 1,
    /// What was received is queued, everything else is the kernel's.
    Done = 2,
    /// Bytes are lost: the connection is reset.
    Failed = 3,
    /// Nothing has ever gone past the kernel as far as this end knows, so it has nothing to settle; the other end, which
    /// may know more, can still begin.
    Quiet = 4,
}

/// A call that sends through the kernel: how often the slot had been opened then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSend(u32);

/// Bits of the count in [`Stream::kernel_senders`].
const COUNT_BITS: u32 = 16;

impl Stream {
    #[inline]
    pub fn recovery(&self) -> Recovery {
        match self.recovery.load(Ordering::Acquire) {
            0 => Recovery::None,
            1 => Recovery::Running,
            2 => Recovery::Done,
            4 => Recovery::Quiet,
            _ => Recovery::Failed,
        }
    }

    /// The stream is read from where that many switches lead.
    #[inline]
    pub fn note_steady(&self, passed: u32) {
        let word = passed.wrapping_add(1);
        if self.steady.load(Ordering::Relaxed) != word {
            self.steady.store(word, Ordering::Relaxed);
        }
    }

    /// That is not certain any more.
    pub fn unsettle(&self) {
        self.steady.store(0, Ordering::Relaxed);
    }

    /// Whether the stream is read from where `announced` switches of the other end lead, and nothing else is to be asked.
    #[inline]
    pub fn is_steady(&self, announced: u32) -> bool {
        let word = self.steady.load(Ordering::Relaxed);
        word != 0 && word == announced.wrapping_add(1) && self.recovery() == Recovery::None
    }

    /// The stream has to return; false when it was not in that state before.
    pub fn begin_recovery(&self, before: Recovery) -> bool {
        let (before, running) = (before as u32, Recovery::Running as u32);
        self.recovery.compare_exchange(before, running, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub fn end_recovery(&self, outcome: Recovery) {
        self.recovery.store(outcome as u32, Ordering::Release);
    }

    /// The slot is opened: nobody sends through the kernel.
    pub fn forget_kernel_sends(&self) {
        let opened = (self.kernel_senders.load(Ordering::Relaxed) >> COUNT_BITS).wrapping_add(1);
        self.kernel_senders.store(opened << COUNT_BITS, Ordering::SeqCst);
    }

    /// A call is about to send through the kernel: what to give [`Self::leave_kernel_send`].
    pub fn enter_kernel_send(&self) -> KernelSend {
        KernelSend(self.kernel_senders.fetch_add(1, Ordering::SeqCst) >> COUNT_BITS)
    }

    /// Whether the stream of that call is still there.
    pub fn leave_kernel_send(&self, call: KernelSend) -> bool {
        let leave = |word: u32| (word >> COUNT_BITS == call.0).then(|| word - 1);
        self.kernel_senders.fetch_update(Ordering::Release, Ordering::Relaxed, leave).is_ok()
    }

    pub fn sends_in_kernel(&self) -> bool {
        self.kernel_senders.load(Ordering::Acquire) & ((1 << COUNT_BITS) - 1) != 0
    }

    /// # Safety
    /// The caller holds the side's `send_lock` and keeps no other reference from here.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn sending(&self) -> &mut Sending {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.sending.get() }
    }

    /// # Safety
    /// The caller holds the side's `receive_lock` and keeps no other reference from here.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn receiving(&self) -> &mut Receiving {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.receiving.get() }
    }
}

const _: () = assert!(size_of::<Stream>() == 128 && size_of::<Shared>().is_multiple_of(64));
