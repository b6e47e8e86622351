//! One side's line of a stream in the segment: which path it sends on, how far it has followed the other side, its credit for the
//! other side, and how it stands.

use super::waiters::Waiters;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// One side's line of a stream. The side's lock holders write it, the other side reads it; all accesses are
/// ordered by the Acquire/Release noted at each word.
#[repr(C, align(64))]
pub struct SideLine {
    /// How often this side, as a sender, has switched path; Release after `position`, read with Acquire.
    pub announced: AtomicU32,
    /// [`READY`] and [`STAYS`]: Release, read with Acquire.
    pub flags: AtomicU32,
    /// Byte position of switch number i at index i & 1: kernel bytes for a switch to the channel, channel bytes
    /// for one to the kernel. Between two processes index 0 holds the connection's mark until the second switch, so that an end
    /// opens the stream of its own connection: Release with `state`.
    pub position: [AtomicU64; 2],
    /// How many of the other side's switches this side has passed.
    pub passed: AtomicU32,
    /// Generation and [`SlotState`]: Release after the line is initialised.
    state: AtomicU32,
    /// Up to which channel byte the other side may send (its credit): Release, read with Acquire.
    pub limit: AtomicU64,
    /// Channel bytes this side had taken when its recall of the stream ended, plus 1; 0 before. Release, Acquire by
    /// the sender.
    pub recalled: AtomicU64,
    /// This side's descriptor of the connection, for a recall.
    pub descriptor: AtomicU32,
    /// In an agent's line: how many of the program's switches the other host knows of; Release, read with Acquire. In a
    /// program's: threads of this side inside a kernel send on the connection: SeqCst, as is the other side's state, so that either a
    /// sender sees a recall or the recall sees the sender.
    pub kernel_senders: AtomicU32,
    /// Bells of this side's threads that wait for bytes of this stream.
    pub receive_waiters: Waiters,
}

crate::anchor::layout! {
    /// Where a line's words lie.
    LineLayout of SideLine { announced, flags, position, passed, state, limit, receive_waiters }
}

/// Flag of a line: this side, as a receiver, follows switches of the other.
pub const READY: u32 = 1;
/// Flag of a line: this side, as a sender, has switched to the kernel for the last time.
pub const STAYS: u32 = 2;

/// Flag of a program's line, for its agent: the stream has returned to the kernel, its frames are not needed any more.
pub const RECOVERED: u32 = 4;

/// Flag of an agent's line: the other end has joined the stream, also while [`READY`] is withheld.
pub const JOINED: u32 = 8;

/// Flag of an agent's line: the stream is worth the fabric, or the other end already uses it; before, the program leaves its
/// connection to the kernel.
pub const WORTH: u32 = 16;

/// What a side says about its end of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    Free = 0,
    Open = 1,
    /// Wants what it receives to come through the kernel from now on.
    WantsKernel = 2,
    Closed = 3,
    /// Said by an agent only: the way to the other host is gone.
    Lost = 4,
}

impl SlotState {
    /// As it stands in a line, with the generation of the slot's stream.
    const fn word(self, generation: u8) -> u32 {
        (generation as u32) << 8 | self as u32
    }
}

impl SideLine {
    /// Where the last two switches lie: number `i` at `i & 1`. To be read after the number of the last.
    #[inline]
    pub fn positions(&self) -> [u64; 2] {
        [0, 1].map(|index: usize| self.position[index].load(Ordering::Relaxed))
    }

    pub fn set_state(&self, generation: u8, state: SlotState) {
        self.state.store(state.word(generation), Ordering::Release);
    }

    /// From one state to another, if it is in the first and of this generation: the line may be another stream's already.
    pub fn change_state(&self, generation: u8, from: SlotState, to: SlotState) {
        let (from, to) = (from.word(generation), to.word(generation));
        let _ = self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Says of which connection the stream is, by its mark: before the side says that it is open.
    pub fn set_mark(&self, mark: u64) {
        self.position[0].store(mark, Ordering::Relaxed);
    }

    /// Whether this side has opened the stream of the connection with that mark, and has not closed it.
    pub fn is_open_for(&self, generation: u8, mark: u64) -> bool {
        self.is_open(generation) && self.has_mark(mark)
    }

    /// Whether the stream is, or was, of the connection with that mark; only before it has switched twice.
    pub fn has_mark(&self, mark: u64) -> bool {
        self.position[0].load(Ordering::Relaxed) == mark
    }

    /// [`SlotState::Open`], and of this generation.
    #[inline]
    pub fn is_open(&self, generation: u8) -> bool {
        self.state.load(Ordering::Acquire) == SlotState::Open.word(generation)
    }

    /// The state if it is of this generation; a line of another generation counts as free.
    #[inline]
    pub fn state(&self, generation: u8) -> SlotState {
        let word = self.state.load(Ordering::Acquire);
        match (word >> 8 == u32::from(generation), word & 0xff) {
            (true, 1) => SlotState::Open,
            (true, 2) => SlotState::WantsKernel,
            (true, 3) => SlotState::Closed,
            (true, 4) => SlotState::Lost,
            _ => SlotState::Free,
        }
    }

    /// Back to the state before a stream opens.
    pub fn reset(&self) {
        let halves = [&self.announced, &self.flags, &self.passed, &self.state, &self.descriptor];
        for word in halves.into_iter().chain([&self.kernel_senders]) {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.position[0], &self.position[1], &self.limit, &self.recalled] {
            word.store(0, Ordering::Relaxed);
        }
        self.receive_waiters.clear();
    }
}

const _: () = assert!(size_of::<SideLine>() == 64);
