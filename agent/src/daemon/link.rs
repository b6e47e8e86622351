//! A link to another agent: its memory and how far it is. What waits to be sent and what was sent is in its queue, of the
//! aggregator.

use super::program::Payload;
use super::wire::Wire;
use super::worth::Worth;
use convoy_aggregator::gather::Thresholds;
use convoy_aggregator::link::{BUFFERS, RING_BYTES};
use convoy_aggregator::queue::Queue;
use convoy_fabric::{LinkId, MemoryId, RemoteMemory};
use std::time::Instant;

/// One link.
pub(crate) struct Link {
    /// The other agent, by its instance.
    pub(crate) host: u128,
    pub(crate) rail: usize,
    pub(crate) id: LinkId,
    pub(crate) token: u64,
    pub(crate) state: LinkState,
    /// Of the present state.
    pub(crate) since: Instant,
    /// Streams, what waits to be sent, what was sent and not delivered.
    pub(crate) queue: Queue<Payload>,
    /// The peer's ring.
    pub(crate) target: RemoteMemory,
    /// The ring of this side.
    pub(crate) ring: MemoryId,
    pub(crate) buffers: MemoryId,
    pub(crate) free_buffers: Vec<u32>,
    /// Where the peer puts large payloads, and where this side does; see [`super::large`].
    pub(super) places_here: Option<MemoryId>,
    pub(super) places_there: RemoteMemory,
    /// Registrations of writes that are not done.
    pub(super) writing: Vec<u32>,
    pub(crate) counters: LinkCounters,
    pub(super) worth: Worth,
    /// How bytes on the wire are counted.
    pub(crate) wire: Wire,
}

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The peer's rail is not known yet.
    Proposed,
    Connecting,
    Up,
    Down,
}

/// Counters of a link, both directions from this side's view.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) batches_sent: u64,
    pub(crate) batches_received: u64,
    pub(crate) messages_sent: u64,
    /// Payloads that were written beside the batches.
    pub(crate) large_sent: u64,
    pub(crate) payload_sent: u64,
    pub(crate) payload_received: u64,
    /// Bytes of batches, with their heads and records.
    pub(crate) batch_bytes_sent: u64,
    pub(crate) batch_bytes_received: u64,
    /// Bytes of the packets that carried batches, by model.
    pub(crate) wire_bytes_sent: u64,
    /// Batches that carried cursors only.
    pub(crate) acknowledgements_sent: u64,
    pub(crate) streams_opened: u64,
}

impl Link {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        host: u128,
        rail: usize,
        id: LinkId,
        token: u64,
        odd: bool,
        ring: MemoryId,
        buffers: MemoryId,
        thresholds: Thresholds,
    ) -> Self {
        Self {
            host,
            rail,
            id,
            token,
            state: LinkState::Proposed,
            since: Instant::now(),
            queue: Queue::new(RING_BYTES, odd, thresholds),
            target: RemoteMemory::default(),
            ring,
            buffers,
            free_buffers: (0..BUFFERS).collect(),
            places_here: None,
            places_there: RemoteMemory::default(),
            writing: Vec::new(),
            counters: LinkCounters::default(),
            worth: Worth::default(),
            wire: Wire::default(),
        }
    }
}
