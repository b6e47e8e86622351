//! A snapshot of the service for humans and metrics. Not here: printing it.

use super::PeerId;
use super::shared::Shared;
use crate::lock::lock;
use crate::secure::Refusal;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

/// What the service has and has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The address listened on.
    pub listening: SocketAddr,
    /// Whether connections are encrypted and authenticated.
    pub keyed: bool,
    /// Peers that are up, then static peers that are not; by address.
    pub peers: Vec<PeerStatus>,
    /// Arriving connections that are shaking hands.
    pub half_open: usize,
    /// Addresses dialed.
    pub dials: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Addresses that are not probed again for now.
    pub unreachable: usize,
    /// Arriving connections that were refused, by [`Refusal::label`]. All labels are there.
    pub refused: Vec<(&'static str, u64)>,
    /// The last of them but duplicates: from where, and why.
    pub last_refused: Option<(IpAddr, String)>,
}

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Messages can be sent.
    Up,
    /// A static peer that is being dialed.
    Dialing,
    /// A static peer that will be dialed after a pause.
    Waiting,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// How far it is.
    pub state: PeerState,
    /// When that state began; for static peers that are not up, when they last were.
    pub since: SystemTime,
    /// More of a peer that is up.
    pub connection: Option<ConnectionStatus>,
}

/// One connection in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// Its name in events.
    pub peer: PeerId,
    /// What humans call the peer.
    pub name: String,
    /// The protocol version in use.
    pub protocol: u32,
    /// Whether this agent opened it.
    pub dialed: bool,
    /// Bytes received since it is up, with all that surrounds messages.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Messages waiting to be sent.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

impl Shared {
    pub(super) fn status(&self) -> Status {
        let table = lock(&self.table);
        let mut peers: Vec<PeerStatus> = Vec::with_capacity(table.up.len());
        for (peer, entry) in &table.up {
            let traffic = &entry.link.traffic;
            let (queued_messages, queued_bytes) = entry.link.queued();
            peers.push(PeerStatus {
                address: entry.pair.remote,
                state: PeerState::Up,
                since: entry.since,
                connection: Some(ConnectionStatus {
                    peer: *peer,
                    name: entry.name.clone(),
                    protocol: entry.protocol,
                    dialed: entry.dialed,
                    bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
                    bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
                    messages_in: traffic.messages_in.load(Ordering::Relaxed),
                    messages_out: traffic.messages_out.load(Ordering::Relaxed),
                    queued_messages,
                    queued_bytes,
                }),
            });
        }
        for (address, peer, dialing) in table.dials.statics() {
            if table.at(address).is_none() {
                let state = if dialing { PeerState::Dialing } else { PeerState::Waiting };
                peers.push(PeerStatus { address, state, since: peer.since, connection: None });
            }
        }
        peers.sort_by_key(|peer| (peer.connection.is_none(), peer.address));
        Status {
            listening: self.local,
            keyed: matches!(self.security, crate::secure::Security::Keyed(_)),
            peers,
            half_open: table.pending.values().filter(|pending| !pending.dialed).count(),
            dials: table.dials.begun,
            dials_failed: table.dials.failed,
            unreachable: table.dials.unreachable(Instant::now()),
            refused: Refusal::ALL.map(|refusal| (refusal.label(), self.refused.read(refusal))).to_vec(),
            last_refused: table.last_refused.clone(),
        }
    }
}
