//! Where a debugger finds this process's state: [`ANCHOR`], one constant with the addresses of the tables and the offsets of their
//! fields. `convoy dump` looks for its first words in the memory of another process, or in a core file, and reads on from there.
//!
//! Offsets are published, not agreed upon, because most of these structs are laid out by the compiler. What the fields mean is
//! agreed upon: [`VERSION`] changes with that.

use crate::channel::{self, ChannelLayout};
use crate::process;
use crate::registry::layout::{BellLayout, ChannelRecordLayout, OfferLayout, RegistryLayout};
use crate::registry::{self, Registry};
use crate::session::{self, SessionLayout};
use crate::shm::blocks::BlocksLayout;
use crate::shm::line::LineLayout;
use crate::shm::party::{
    HeldLayout, LaneSendingLayout, PartyLayout, ReceivingLayout, SendingLayout, SharedLayout, StreamLayout,
};
use crate::shm::segment::{
    GeometryLayout, HeaderLayout, LaneLayout, SegmentLayout, SideHeaderLayout, layout as segment,
};
use crate::socket::{self, SocketLayout};
use core::ffi::c_void;

/// First words of an [`Anchor`].
pub const MAGIC: [u64; 2] = [u64::from_le_bytes(*b"convoyA1"), 0x1f6b_92d3_c84e_705a];
/// Changes with the meaning of what is published; the registry's layout is in it.
pub const VERSION: u64 = 1 ^ (Registry::LAYOUT as u64) << 8;
pub use crate::channel::AGENT_SERIAL;
pub use crate::shm::segment::{Geometry, READY, STAYS};

/// Declares a struct of the offsets of another's fields, all in bytes, and its size.
macro_rules! layout {
    ($(#[$about:meta])* $name:ident of $type:ty { $($field:ident),* $(,)? }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub struct $name { pub size: u64, $(pub $field: u64,)* }

        impl $name {
            pub(crate) const HERE: Self = Self {
                size: size_of::<$type>() as u64,
                $($field: core::mem::offset_of!($type, $field) as u64,)*
            };

            /// Out of the words of another process's.
            pub fn decode(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
                Some(Self { size: words.next()?, $($field: words.next()?,)* })
            }
        }
    };
}
pub(crate) use layout;

/// An address in the process that published it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Address(*const c_void);

// SAFETY: a number for others; nobody here follows it.
unsafe impl Sync for Address {}
// SAFETY: as above.
unsafe impl Send for Address {}

impl Address {
    const fn of<T>(place: &'static T) -> Self {
        Self((&raw const *place).cast())
    }
}

/// Declares the anchor, and the same as read from outside, where addresses are numbers.
macro_rules! anchor {
    (addresses { $($address:ident = $place:expr;)* }
     numbers { $($number:ident = $value:expr;)* }
     layouts { $($layout:ident: $type:ident;)* }) => {
        /// What a process publishes; all words of 8 bytes, in the order of [`Found`].
        #[repr(C)]
        pub struct Anchor {
            magic: [u64; 2],
            version: u64,
            /// Where it lies itself: a copy of it elsewhere is none.
            own: Address,
            $($address: Address,)*
            $($number: u64,)*
            $($layout: $type,)*
        }

        /// This process's.
        pub static ANCHOR: Anchor = Anchor {
            magic: MAGIC,
            version: VERSION,
            own: Address::of(&ANCHOR),
            $($address: Address::of($place),)*
            $($number: $value,)*
            $($layout: $type::HERE,)*
        };

        /// Another process's anchor.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub struct Found {
            $(pub $address: u64,)*
            $(pub $number: u64,)*
            $(pub $layout: $type,)*
        }

        impl Found {
            /// What this very build would publish, without addresses.
            pub const HERE: Self = Self {
                $($address: 0,)*
                $($number: $value,)*
                $($layout: $type::HERE,)*
            };

            /// Out of the words behind [`HEAD_WORDS`].
            pub fn decode(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
                Some(Self {
                    $($address: words.next()?,)*
                    $($number: words.next()?,)*
                    $($layout: $type::decode(words)?,)*
                })
            }
        }
    };
}

/// Words in front of those that [`Found`] has: magic, version, own address.
pub const HEAD_WORDS: usize = 4;
/// Bytes of an anchor.
pub const BYTES: usize = size_of::<Anchor>();

anchor! {
    addresses {
        // The process's identity: one word.
        identity = process::anchored();
        // The session: a pointer, null before the first connection.
        session = session::anchored();
        // Pointers to chunks of sockets.
        sockets = socket::anchored();
        // Pointers to channels.
        channels = channel::anchored();
    }
    numbers {
        socket_chunks = socket::CHUNKS as u64;
        sockets_of_chunk = socket::CHUNK as u64;
        most_channels = channel::MOST as u64;
        // Where the parts of a segment lie, in bytes from its beginning: two lanes, the lines of the slots, each a pair.
        lanes_offset = segment::LANES;
        lines_offset = segment::LINES;
        offers = registry::layout::OFFERS;
        bells = registry::layout::BELLS;
        registry_channels = registry::layout::CHANNELS;
    }
    layouts {
        in_session: SessionLayout;
        in_socket: SocketLayout;
        in_channel: ChannelLayout;
        in_segment: SegmentLayout;
        in_geometry: GeometryLayout;
        in_header: HeaderLayout;
        in_side: SideHeaderLayout;
        in_lane: LaneLayout;
        in_line: LineLayout;
        in_party: PartyLayout;
        in_shared: SharedLayout;
        in_lane_sending: LaneSendingLayout;
        in_held: HeldLayout;
        in_blocks: BlocksLayout;
        in_stream: StreamLayout;
        in_sending: SendingLayout;
        in_receiving: ReceivingLayout;
        in_registry: RegistryLayout;
        in_offer: OfferLayout;
        in_bell: BellLayout;
        in_record: ChannelRecordLayout;
    }
}

// Everything is words of 8 bytes, one behind the other.
const _: () = assert!(align_of::<Anchor>() == 8 && size_of::<Address>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use convoy_aggregator::credit::{ReceiveCredit, SendCredit};

    #[test]
    fn what_is_published_is_read_back() {
        // SAFETY: the anchor is plain words.
        let words: &[u64] =
            unsafe { core::slice::from_raw_parts((&raw const ANCHOR).cast(), BYTES / size_of::<u64>()) };
        assert_eq!(words[..2], MAGIC);
        assert_eq!(words[2], VERSION);
        assert_eq!(words[3], (&raw const ANCHOR) as u64);
        let mut rest = words[HEAD_WORDS..].iter().copied();
        let found = Found::decode(&mut rest).unwrap();
        assert_eq!(rest.next(), None, "nothing is left over");
        assert_eq!(found.in_line.size, 64);
        assert_eq!(found.socket_chunks, 4096);
    }

    /// The words of credit counts are read by their order.
    #[test]
    fn credit_counts_lie_in_order() {
        let mut sending = SendCredit::default();
        sending.grant(9).unwrap();
        sending.consume(4).unwrap();
        // SAFETY: two words.
        assert_eq!(unsafe { core::mem::transmute::<SendCredit, [u64; 2]>(sending) }, [4, 9]);
        let mut receiving = ReceiveCredit::new(100);
        receiving.grant_now();
        receiving.on_received(30).unwrap();
        let _ = receiving.on_consumed(10);
        // SAFETY: four words.
        let words = unsafe { core::mem::transmute::<ReceiveCredit, [u64; 4]>(receiving) };
        assert_eq!(words, [30, 10, 100, 100]);
    }
}
