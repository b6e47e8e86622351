//! How the offer of a connection to the agent stands, as a word of the socket.

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
    pub(super) fn to_word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Waiting => 1,
            Self::Declined => 2,
            Self::Opened { slot, generation } => {
                3 | u64::from(generation) << 2 | u64::from(slot & FAR_SLOTS) << 10
            }
        }
    }

    pub(super) fn from_word(word: u64) -> Self {
        match word & 3 {
            0 => Self::None,
            1 => Self::Waiting,
            2 => Self::Declined,
            _ => Self::Opened { slot: (word >> 10) as u32 & FAR_SLOTS, generation: (word >> 2) as u8 },
        }
    }
}

/// Slots that fit into a word of [`Far`].
const FAR_SLOTS: u32 = (1 << 22) - 1;
