//! What an offer of a provider means for a rail: which endpoints, which keys, which promises.

use super::bindings::*;
use super::info::{Info, Offer, family};
use super::wire::Header;
use crate::Limits;

/// How a write's arrival tells its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identify {
    /// The immediate data has room for a tag besides the caller's 32 bits.
    Tag,
    /// It takes a receive buffer of the link's endpoint (FI_RX_CQ_DATA), or is a message.
    Receive,
    /// The completion queue is of that link only.
    Queue,
}

/// Most writes outstanding on a link.
const DEPTH: usize = 256;
/// The same for writes that are messages: each has a buffer on either side.
const MESSAGES: usize = 64;
/// The largest write that is a message, in bytes.
const MESSAGE: usize = 64 << 10;
/// The largest write from unregistered memory that is a message, in bytes.
const MESSAGE_INJECT: usize = 4096;
/// The largest message of the handshake, in bytes: a header and an address.
const CONTROL: usize = 512;
/// Messages of the handshake under way on an endpoint, each way.
const CONTROLS: usize = 8;
/// The largest one-sided write, in bytes.
const WRITE: usize = 1 << 30;

/// What a rail goes by.
#[derive(Clone, Debug)]
pub struct Profile {
    pub provider: String,
    /// Endpoints are connected by the provider (FI_EP_MSG); else by messages (FI_EP_RDM).
    pub connected: bool,
    /// Writes are messages.
    pub messages: bool,
    pub identify: Identify,
    pub limits: Limits,
    /// Sources of writes and buffers must be registered.
    pub local_keys: bool,
    /// Peers count from the memory's virtual address.
    pub virtual_addresses: bool,
    /// Registrations belong to an endpoint.
    pub endpoint_keys: bool,
    /// Bits that a key may have.
    pub key_mask: u64,
    /// Nothing is retransmitted unless this side polls.
    pub timed: bool,
    /// Receive buffers of an endpoint.
    pub receives: usize,
    /// Send buffers of an endpoint.
    pub sends: usize,
    /// Bytes of each buffer.
    pub stride: usize,
    /// The library's number of the address format.
    pub format: u32,
    /// Bytes of an address.
    pub address_bytes: usize,
    /// What a socket address begins with.
    pub family: Option<u16>,
}

impl Profile {
    /// Reads an offer; `messages` says that writes shall be messages.
    pub fn of(offer: Offer<'_>, messages: bool) -> Profile {
        let domain = offer.domain();
        let has = |bit| domain.mr_mode & bit != 0;
        let connected = offer.endpoint().type_ == FI_EP_MSG;
        let takes_receive = (offer.raw().mode | offer.receive().mode) & FI_RX_CQ_DATA != 0;
        let identify = match () {
            () if messages || takes_receive => Identify::Receive,
            () if domain.cq_data_size >= 8 => Identify::Tag,
            () => Identify::Queue,
        };
        let depth = offer.transmit().size.clamp(1, if messages { MESSAGES } else { DEPTH });
        let receive_room = offer.receive().size.max(1);
        let (receives, sends, stride) = match () {
            () if messages => (MESSAGES.min(receive_room), depth + CONTROLS, Header::BYTES + MESSAGE),
            () if takes_receive => ((2 * DEPTH).min(receive_room), CONTROLS, CONTROL),
            () if connected => (0, 0, 0),
            () => (CONTROLS.min(receive_room), CONTROLS, CONTROL),
        };
        Profile {
            provider: offer.provider(),
            connected,
            messages,
            identify,
            limits: limits(offer, messages, depth),
            local_keys: has(FI_MR_LOCAL),
            virtual_addresses: has(FI_MR_VIRT_ADDR),
            endpoint_keys: has(FI_MR_ENDPOINT),
            key_mask: match domain.mr_key_size {
                bytes @ 1..8 => (1 << (8 * bytes)) - 1,
                _ => u64::MAX,
            },
            timed: domain.control_progress == FI_PROGRESS_MANUAL,
            receives,
            sends,
            stride,
            format: offer.raw().addr_format,
            address_bytes: offer.source().len(),
            family: family(offer.source()),
        }
    }

    /// Entries that an endpoint can have in its completion queue.
    pub fn completions(&self) -> usize {
        self.limits.depth + self.receives + self.sends
    }

    /// Sets the sizes of endpoints made from `info`.
    pub fn apply(&self, info: &mut Info) {
        let transmit = info.get().transmit().size.min((self.limits.depth + self.sends).max(1));
        let receive = info.get().receive().size.min(self.receives.max(1));
        // A provider that takes a receive for every write has its own idea of how many there are at least.
        info.set_sizes(transmit, receive);
    }

    /// Whether bytes from a peer are an address that the provider can read.
    pub fn is_address(&self, name: &[u8]) -> bool {
        // Formats 1 to 4 are socket addresses; the library reads as many bytes of one as its family says.
        let family_fits = !(1..=4).contains(&self.format) || family(name) == self.family;
        name.len() == self.address_bytes && family_fits
    }
}

fn limits(offer: Offer<'_>, messages: bool, depth: usize) -> Limits {
    let (transmit, receive) = (offer.transmit(), offer.receive());
    let order = transmit.msg_order & receive.msg_order;
    // The order of messages is that in which they are placed. That they are also told in this order is promised apart:
    // ofi_rxm for one tells small messages before a large one that it is still fetching.
    let told_in_order = receive.comp_order & FI_ORDER_STRICT == FI_ORDER_STRICT;
    if messages {
        let ordered = told_in_order && order & FI_ORDER_SAS != 0;
        return Limits { write: MESSAGE, inject: MESSAGE_INJECT, depth, ordered, one_sided: false };
    }
    let write = offer.endpoint().max_msg_size.min(WRITE);
    let placed_in_order =
        order & (FI_ORDER_WAW | FI_ORDER_RMA_WAW) != 0 && offer.endpoint().max_order_waw_size >= write;
    let ordered = told_in_order && placed_in_order;
    Limits { write, inject: transmit.inject_size.min(write), depth, ordered, one_sided: true }
}
