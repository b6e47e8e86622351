//! What a program and its host's agent say to each other over their Unix socket (SOCK_SEQPACKET): one fixed-size
//! message at a time, some with descriptors. Everything that has to do with bytes of streams is in the segment instead.
//!
//! ```text
//!   program                                     agent
//!     Hello + segment, bells          ->
//!                                     <-          Welcome + doorbell
//!     Ask                             ->
//!                                     <-          Show
//!     Offer + the connection's socket ->
//!                                     <-          Opened, or Declined
//!     Bell + FIFO                     ->          (before the bell is put where the agent finds it)
//!     Withdraw                        ->
//!
//!   new agent                                   running agent
//!     TakeOver                        ->
//!                                     <-          Part + descriptor, several times; AllParts
//!                                                 or Refused
//!     Taken                           ->          (which ends: the end of the socket is the answer)
//! ```

/// Changes whenever messages or the layout of shared memory do; program and agent of different versions do not meet.
pub const VERSION: u32 = 2;
/// Changes whenever what an agent hands over to its successor does, or its meaning; agents of different versions do not
/// take over from each other.
pub const STATE: u32 = 1;
/// Bytes of a message.
pub const BYTES: usize = 32;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first one: version, and the hash of the segment's layout. With the segment and the page of bells.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// `Registry::LAYOUT` of the program.
        layout: u64,
        /// `Identity` of the program, as it stands in its segment.
        identity: u64,
    },
    /// The answer, with the event counter by which the agent is woken.
    Welcome {
        /// [`VERSION`].
        version: u32,
    },
    /// Whether a connection to another host may be offered. A copy of its socket that an agent does not take, because it is
    /// stopped, would keep the connection from ending: so it is sent to one that has just answered.
    Ask {
        /// The program's.
        id: u64,
    },
    /// It may.
    Show {
        /// Of the question.
        id: u64,
    },
    /// A connection to another host; comes with the socket. `id` is the program's.
    Offer {
        /// Comes back in the answer.
        id: u64,
    },
    /// The offer has found its other end: the stream is at this slot of the segment.
    Opened {
        /// Of the offer.
        id: u64,
        /// Slot.
        slot: u32,
        /// The slot's generation.
        generation: u8,
    },
    /// The connection stays with the kernel.
    Declined {
        /// Of the offer.
        id: u64,
        /// Why.
        reason: Reason,
    },
    /// The offer is not wanted any more, whether answered or not.
    Withdraw {
        /// Of the offer.
        id: u64,
    },
    /// A bell of the program, with the FIFO that is written to ring it.
    Bell {
        /// Its number.
        number: u16,
    },
    /// The way to the other host is gone: the stream has to return to the kernel.
    Lost {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u8,
    },
    /// Whether the agent is still there; answered with the same.
    Ping,
    /// The other end wants the stream on the kernel.
    Recall {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u8,
    },
    /// Not a program's: a new agent asks the running one to hand over.
    TakeOver(Versions),
    /// A part of what is handed over, with its descriptor.
    Part(Part),
    /// That was everything: the running agent goes on until it hears [`Message::Taken`].
    AllParts(Versions),
    /// The running agent does not hand over to one of these versions. Its own.
    Refused(Versions),
    /// The new agent has everything: the running one ends.
    Taken,
}

/// What two agents must agree upon when one takes over from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// [`VERSION`]: programs that run must be able to speak to the new agent.
    pub protocol: u32,
    /// [`STATE`].
    pub state: u32,
}

impl Versions {
    /// Those of this library.
    pub const OWN: Self = Self { protocol: VERSION, state: STATE };
}

/// What an agent hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The socket that programs connect to.
    Programs = 1,
    /// The socket that other agents connect to.
    Agents = 2,
    /// The Unix socket for questions.
    Status = 3,
    /// The TCP socket for questions.
    Metrics = 4,
    /// A file: what the agent knows.
    Knowledge = 5,
}

impl Part {
    const fn from_word(word: u32) -> Option<Self> {
        Some(match word {
            1 => Self::Programs,
            2 => Self::Agents,
            3 => Self::Status,
            4 => Self::Metrics,
            5 => Self::Knowledge,
            _ => return None,
        })
    }
}

/// Why an offer is declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// No agent at the other host, or none that may be talked to.
    NoPeer = 1,
    /// The other end never came.
    Unmatched = 2,
    /// The policy of one of the hosts.
    Policy = 3,
    /// A limit of the policy, or memory.
    Limit = 4,
    /// The socket is not what the offer says.
    Invalid = 5,
}

impl Reason {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoPeer,
            2 => Self::Unmatched,
            3 => Self::Policy,
            4 => Self::Limit,
            5 => Self::Invalid,
            _ => return None,
        })
    }
}

impl Message {
    /// The message as bytes.
    #[must_use]
    pub fn encode(self) -> [u8; BYTES] {
        let (kind, small, one, two) = match self {
            Self::Hello { version, layout, identity } => (1, version, layout, identity),
            Self::Welcome { version } => (2, version, 0, 0),
            Self::Offer { id } => (3, 0, id, 0),
            Self::Opened { id, slot, generation } => (4, slot, id, u64::from(generation)),
            Self::Declined { id, reason } => (5, reason as u32, id, 0),
            Self::Withdraw { id } => (6, 0, id, 0),
            Self::Bell { number } => (7, u32::from(number), 0, 0),
            Self::Recall { slot, generation } => (8, slot, 0, u64::from(generation)),
            Self::Lost { slot, generation } => (9, slot, 0, u64::from(generation)),
            Self::Ping => (10, 0, 0, 0),
            Self::TakeOver(versions) => (11, versions.protocol, u64::from(versions.state), 0),
            Self::Part(part) => (12, part as u32, 0, 0),
            Self::AllParts(versions) => (13, versions.protocol, u64::from(versions.state), 0),
            Self::Refused(versions) => (14, versions.protocol, u64::from(versions.state), 0),
            Self::Taken => (15, 0, 0, 0),
            Self::Ask { id } => (16, 0, id, 0),
            Self::Show { id } => (17, 0, id, 0),
        };
        let mut bytes = [0; BYTES];
        bytes[0..4].copy_from_slice(&u32::to_le_bytes(kind));
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(small));
        bytes[8..16].copy_from_slice(&u64::to_le_bytes(one));
        bytes[16..24].copy_from_slice(&u64::to_le_bytes(two));
        bytes
    }

    /// The message that the bytes hold, if they hold one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes.len() != BYTES {
            return None;
        }
        let (small, one, two) = (word(4)?, long(8)?, long(16)?);
        let generation = two as u8;
        let versions = Versions { protocol: small, state: one as u32 };
        Some(match word(0)? {
            1 => Self::Hello { version: small, layout: one, identity: two },
            2 => Self::Welcome { version: small },
            3 => Self::Offer { id: one },
            4 => Self::Opened { id: one, slot: small, generation },
            5 => Self::Declined { id: one, reason: Reason::from_byte(small as u8)? },
            6 => Self::Withdraw { id: one },
            7 => Self::Bell { number: small as u16 },
            8 => Self::Recall { slot: small, generation },
            9 => Self::Lost { slot: small, generation },
            10 => Self::Ping,
            11 => Self::TakeOver(versions),
            12 => Self::Part(Part::from_word(small)?),
            13 => Self::AllParts(versions),
            14 => Self::Refused(versions),
            15 => Self::Taken,
            16 => Self::Ask { id: one },
            17 => Self::Show { id: one },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_bytes() {
        let messages = [
            Message::Hello { version: VERSION, layout: 77, identity: u64::MAX },
            Message::Welcome { version: 3 },
            Message::Ask { id: u64::MAX },
            Message::Show { id: 1 },
            Message::Offer { id: 1 << 40 },
            Message::Opened { id: 9, slot: 12345, generation: 255 },
            Message::Declined { id: 9, reason: Reason::Policy },
            Message::Withdraw { id: 2 },
            Message::Bell { number: 4095 },
            Message::Recall { slot: 1, generation: 2 },
            Message::Lost { slot: 3, generation: 4 },
            Message::Ping,
            Message::TakeOver(Versions { protocol: 7, state: u32::MAX }),
            Message::Part(Part::Knowledge),
            Message::AllParts(Versions::OWN),
            Message::Refused(Versions::OWN),
            Message::Taken,
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode()), Some(message));
            assert_eq!(Message::decode(&message.encode()[1..]), None);
        }
        assert_eq!(Message::decode(&[0; BYTES]), None);
        assert_eq!(Message::decode(&[0xff; BYTES]), None);
    }
}
