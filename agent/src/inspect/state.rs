//! What a process under Convoy holds: its channels, and its connections that are on no channel. Read at one moment after the
//! other, while the process goes on: numbers that belong together may be of different moments.
//!
//! Not here: streams ([`super::streams`]), lanes ([`super::lane`]), what all processes share ([`super::registry`]).

use super::lane::{self, Lane};
use super::memory::{Fields, Memory};
use super::registry::{self, Registry, Who};
use super::streams::{self, Stream};
use convoy_runtime::anchor::{AGENT_SERIAL, Found, Geometry};
use serde::Serialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A process's memory and the way through it.
pub(crate) struct View<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) found: Found,
}

/// All of it.
#[derive(Serialize)]
pub(crate) struct State {
    /// Who it is; 0 before it has joined anything.
    pub(crate) process: Who,
    pub(crate) registry: Option<Registry>,
    pub(crate) channels: Vec<Channel>,
    /// TCP connections that are on the kernel, and followed.
    pub(crate) candidates: Vec<Candidate>,
    /// What could not be seen, in words.
    pub(crate) unseen: Vec<String>,
}

/// A channel, seen from this process.
#[derive(Serialize)]
pub(crate) struct Channel {
    pub(crate) index: u32,
    pub(crate) serial: u64,
    pub(crate) peer: Who,
    /// The other side is this host's agent.
    pub(crate) agent: bool,
    /// Which side of the segment this process has; the other has the other one.
    pub(crate) side: u64,
    pub(crate) broken: bool,
    pub(crate) retired: bool,
    /// Descriptor of the segment, until the other side has attached.
    pub(crate) descriptor: Option<i32>,
    pub(crate) slots: u32,
    pub(crate) ring_bytes: u32,
    /// Process that holds the lock for sending; another one's is a fork of this.
    pub(crate) send_lock: Option<u32>,
    pub(crate) receive_lock: Option<u32>,
    /// Threads that sleep or are about to, of this side and of the other.
    pub(crate) sleepers: [u32; 2],
    pub(crate) sending: Option<Lane>,
    pub(crate) receiving: Option<Lane>,
    /// Blocks for large payloads of this side: how many there are, and those the other side has.
    pub(crate) blocks: u32,
    pub(crate) blocks_lent: u32,
    /// Frames wait to be sent together (CONVOY_BATCH_DELAY_US).
    pub(crate) held: bool,
    pub(crate) streams: Vec<Stream>,
}

/// A connection on the kernel.
#[derive(Serialize)]
pub(crate) struct Candidate {
    pub(crate) descriptor: i32,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    /// Calls so far: it is worth a closer look after CONVOY_PROMOTE_AFTER.
    pub(crate) calls: u32,
    /// It waits in the registry for its other end.
    pub(crate) offered: bool,
    /// What the agent says: nothing, waiting, declined, opened.
    pub(crate) agent: &'static str,
    /// Threads inside a kernel call on it.
    pub(crate) in_kernel: u32,
}

impl View<'_> {
    /// Reads everything; with `peer`, only channels to that process.
    pub(crate) fn state(&self, peer: Option<u32>) -> State {
        let mut unseen = Vec::new();
        let process = Who::of(self.memory.word(self.found.identity).unwrap_or_default());
        let registry = self.registry(process, &mut unseen);
        let bells = registry.as_ref().map(|registry| &registry.bells[..]).unwrap_or_default();
        let channels = self.channels(bells, peer, &mut unseen);
        let candidates = if peer.is_none() { self.candidates() } else { Vec::new() };
        let registry = registry.map(|registry| registry.only_of(process.pid));
        State { process, registry, channels, candidates, unseen }
    }

    fn registry(&self, process: Who, unseen: &mut Vec<String>) -> Option<Registry> {
        let session = self.memory.word(self.found.session)?;
        if session == 0 {
            if process.pid != 0 {
                unseen.push("the process has left its registry, or has not joined one yet".to_owned());
            }
            return None;
        }
        let layout = self.found.in_session;
        let fields = Fields::read(self.memory, session, layout.size);
        let found = fields.and_then(|fields| registry::read(self, fields.u64(layout.registry)?));
        if found.is_none() {
            unseen.push("the registry: it is not in what can be read (core files leave it out)".to_owned());
        }
        found
    }

    fn channels(
        &self,
        bells: &[registry::Bell],
        peer: Option<u32>,
        unseen: &mut Vec<String>,
    ) -> Vec<Channel> {
        let most = self.found.most_channels.min(Found::HERE.most_channels);
        let Some(table) = self.memory.read(self.found.channels, most as usize * 8) else {
            unseen.push("the table of channels".to_owned());
            return Vec::new();
        };
        let addresses = (0..most as usize).filter_map(|index| super::memory::word(&table, index * 8));
        let mut channels = Vec::new();
        for address in addresses.filter(|address| *address != 0) {
            match self.channel(address, bells, peer) {
                Some(channel) => channels.extend(channel),
                None => unseen.push(format!("a channel at {address:#x}: what is there makes no sense")),
            }
        }
        channels
    }

    /// A channel that makes sense, unless it leads elsewhere than to `wanted`.
    fn channel(
        &self,
        address: u64,
        bells: &[registry::Bell],
        wanted: Option<u32>,
    ) -> Option<Option<Channel>> {
        let layout = self.found.in_channel;
        let fields = Fields::read(self.memory, address, layout.size)?;
        let peer = Who::of(fields.u64(layout.peer)?);
        if wanted.is_some_and(|wanted| wanted != peer.pid) {
            return Some(None);
        }
        let geometry = self.geometry(&fields)?;
        let side = fields.u64(layout.side).filter(|side| *side < 2)?;
        let base = fields.u64(layout.segment.checked_add(self.found.in_segment.base)?)?;
        let party = fields.u64(layout.party.checked_add(self.found.in_party.base)?)?;
        let place = Place { base, party, side, geometry };
        let serial = fields.u64(layout.serial)?;
        let sockets = self.sockets(&fields, geometry)?;
        let sending = lane::sending(self, place);
        let receiving = lane::receiving(self, place);
        let shared = self.found.in_shared;
        let head = Fields::read(self.memory, party, shared.size);
        let head_word = |offset: u64| head.as_ref().and_then(|head| head.u64(offset));
        let streams = sockets.into_iter().map(|(slot, socket)| {
            let lanes = [sending.as_ref(), receiving.as_ref()];
            streams::read(self, place, slot, socket, lanes, bells)
        });
        let (blocks, held) = self.sending_half(head.as_ref());
        Some(Some(Channel {
            index: fields.u32(layout.index)?,
            serial,
            peer,
            agent: serial == AGENT_SERIAL,
            side,
            broken: head.as_ref().and_then(|head| head.flag(shared.broken)).unwrap_or(false),
            retired: fields.flag(layout.retired)?,
            descriptor: fields.u32(layout.descriptor).map(|fd| fd as i32).filter(|fd| *fd >= 0),
            slots: geometry.slots,
            ring_bytes: geometry.ring_bytes,
            send_lock: head_word(shared.send_lock).and_then(holder),
            receive_lock: head_word(shared.receive_lock).and_then(holder),
            sleepers: [side, side ^ 1].map(|side| self.sleepers(base, side).unwrap_or(0)),
            blocks: geometry.blocks,
            blocks_lent: blocks,
            held,
            streams: streams.collect(),
            sending,
            receiving,
        }))
    }

    fn geometry(&self, channel: &Fields) -> Option<Geometry> {
        let layout = self.found.in_geometry;
        let start = self.found.in_channel.segment.checked_add(self.found.in_segment.geometry)?;
        let number = |offset: u64| channel.u32(start.checked_add(offset)?);
        let geometry = Geometry {
            ring_bytes: number(layout.ring_bytes)?,
            slots: number(layout.slots)?,
            block_bytes: number(layout.block_bytes)?,
            blocks: number(layout.blocks)?,
        };
        geometry.sane().then_some(geometry)
    }

    /// Slots in use by this process, each with the index of its socket.
    fn sockets(&self, channel: &Fields, geometry: Geometry) -> Option<Vec<(u32, u32)>> {
        let offset = self.found.in_channel.sockets;
        let (address, count) = (channel.u64(offset)?, channel.u64(offset.checked_add(8)?)?);
        (count == u64::from(geometry.slots)).then_some(())?;
        let bytes = self.memory.read(address, count as usize * 4)?;
        let words =
            bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        Some((0..).zip(words).filter_map(|(slot, word)| Some((slot, word.checked_sub(1)?))).collect())
    }

    fn sleepers(&self, segment: u64, side: u64) -> Option<u32> {
        /// Not a sleeper, but that wakers fence (`convoy_runtime::shm::sleep_word`).
        const FENCED: u32 = 1 << 31;
        let layout = self.found.in_side;
        let start = self.found.in_header.sides.checked_add(side.checked_mul(layout.size)?)?;
        let fields = Fields::read(self.memory, segment.checked_add(start)?, layout.size)?;
        fields.u32(layout.sleepers).map(|word| word & !FENCED)
    }

    /// Blocks that the other side has, and whether a batch is held.
    fn sending_half(&self, head: Option<&Fields>) -> (u32, bool) {
        let (lane, blocks, held) = (self.found.in_lane_sending, self.found.in_blocks, self.found.in_held);
        let start = self.found.in_shared.sending;
        let ones = |index: u64| {
            let offset = start.checked_add(lane.blocks)?.checked_add(blocks.lent)?.checked_add(index * 8)?;
            head?.u64(offset).map(u64::count_ones)
        };
        let lent = (0..4).filter_map(ones).sum();
        let until = head.and_then(|head| head.u64(self.found.in_shared.held_until)).unwrap_or(0);
        let on = start.checked_add(lane.held).and_then(|start| head?.flag(start.checked_add(held.on)?));
        (lent, until != 0 && on.unwrap_or(false))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut found = Vec::new();
        let chunks = self.found.socket_chunks.min(Found::HERE.socket_chunks);
        let layout = self.found.in_socket;
        let each = self.found.sockets_of_chunk.min(Found::HERE.sockets_of_chunk);
        let table = self.memory.read(self.found.sockets, chunks as usize * 8).unwrap_or_default();
        let addresses = (0..chunks as usize).map_while(|index| super::memory::word(&table, index * 8));
        for chunk in addresses.take_while(|address| *address != 0) {
            for index in 0..each {
                let address = index.checked_mul(layout.size).and_then(|offset| chunk.checked_add(offset));
                found.extend(address.and_then(|address| self.candidate(address)));
            }
        }
        found
    }

    fn candidate(&self, address: u64) -> Option<Candidate> {
        const CANDIDATE: u32 = 1;
        let layout = self.found.in_socket;
        let fields = Fields::read(self.memory, address, layout.size)?;
        (fields.u32(layout.state)? == CANDIDATE).then_some(())?;
        let (local, peer) = ends(&fields, layout.ends);
        Some(Candidate {
            descriptor: fields.u32(layout.fd)? as i32,
            local,
            peer,
            calls: fields.u32(layout.calls)?,
            offered: fields.u64(layout.offer)? != 0,
            agent: match fields.u64(layout.far)? & 3 {
                0 => "not asked",
                1 => "waiting",
                2 => "declined",
                _ => "opened",
            },
            in_kernel: fields.u64(layout.kernel_users)? as u32,
        })
    }

    /// The struct of a socket.
    pub(super) fn socket(&self, index: u32) -> Option<Fields> {
        let each = self.found.sockets_of_chunk.clamp(1, 1 << 12);
        let chunk = u64::from(index) / each;
        (chunk < self.found.socket_chunks).then_some(())?;
        let chunk = self.memory.word(self.found.sockets.checked_add(chunk * 8)?)?;
        let size = self.found.in_socket.size;
        let offset = (u64::from(index) % each).checked_mul(size)?;
        Fields::read(self.memory, chunk.checked_add(offset)?, size)
    }
}

/// Where a channel's memory is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(super) base: u64,
    pub(super) party: u64,
    pub(super) side: u64,
    pub(super) geometry: Geometry,
}

/// The process in a lock's word.
fn holder(word: u64) -> Option<u32> {
    (word != 0).then_some((word >> 40) as u32)
}

/// Both ends of a connection in a socket's words; nothing before they are known.
pub(super) fn ends(socket: &Fields, offset: u64) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let word = |index: u64| socket.u64(offset.checked_add(index * 8)?);
    let address = |first: u64, shift: u32| {
        let bits = u128::from(word(first)?) << 64 | u128::from(word(first + 1)?);
        let port = (word(4)? >> shift) as u16;
        let address = IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical();
        (port != 0).then(|| SocketAddr::new(address, port))
    };
    (address(0, 16), address(2, 0))
}
