//! How the offer of a connection to the agent stands, as a word of the socket.

use super::Socket;
use core::sync::atomic::Ordering;

/// How an offer to the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// There is none.
    None,
    Waiting,
    /// The connection stays with the kernel.
    Declined,
    /// The stream is there.
    Opened {
        slot: u32,
        generation: u8,
    },
}

impl Far {
    /// In the lower half of a word: a kind, the generation, the slot.
    fn to_word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Waiting => 1,
            Self::Declined => 2,
            Self::Opened { slot, generation } => {
                3 | u64::from(generation) << 2 | u64::from(slot & FAR_SLOTS) << 10
            }
        }
    }

    fn from_word(word: u64) -> Self {
        match word & 3 {
            0 => Self::None,
            1 => Self::Waiting,
            2 => Self::Declined,
            _ => Self::Opened { slot: (word >> 10) as u32 & FAR_SLOTS, generation: (word >> 2) as u8 },
        }
    }
}

impl Socket {
    /// How the offer to the agent stands.
    #[inline]
    pub fn far(&self) -> Far {
        Far::from_word(self.far.load(Ordering::Acquire))
    }

    pub fn set_far(&self, far: Far) {
        let keep = |word: u64| Some(word & !0xffff_ffff | far.to_word());
        let _ = self.far.fetch_update(Ordering::AcqRel, Ordering::Relaxed, keep);
    }

    /// Ends the offer: what it was.
    pub fn take_far(&self) -> Far {
        Far::from_word(self.far.fetch_and(!0xffff_ffff, Ordering::AcqRel))
    }

    /// Begins an offer: its id, which no other offer of this process has for a long time.
    pub fn begin_far(&self, index: u32) -> u64 {
        let number = (self.far.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.far.store(number << 32 | Far::Waiting.to_word(), Ordering::Release);
        self.far_id(index)
    }

    /// The id of the present or last offer.
    pub fn far_id(&self, index: u32) -> u64 {
        u64::from(index) << 32 | self.far.load(Ordering::Relaxed) >> 32
    }

    /// The agent's answer to the offer `id`; nothing happens when that is not waiting any more.
    pub fn answer_far(&self, id: u64, far: Far) {
        let waiting = id << 32 | Far::Waiting.to_word();
        let answered = id << 32 | far.to_word();
        let _ = self.far.compare_exchange(waiting, answered, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Slots that fit into a word of [`Far`].
const FAR_SLOTS: u32 = (1 << 22) - 1;
