//! What the agent says about itself: a snapshot that the engine's thread makes once per tick while somebody asks.
//!
//! Not here: who asks and how it is answered ([`super::serve`]), the text of metrics ([`super::metrics`]).

use super::engine::Engine;
use super::link::{Link, LinkState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a question snapshots are made.
const INTEREST: Duration = Duration::from_secs(10);
/// An engine that has not ticked for so long does not work.
const ALIVE: Duration = Duration::from_secs(5);

/// Where the engine's thread leaves what others ask for.
#[derive(Debug)]
pub(super) struct Board {
    start: Instant,
    /// When the engine last ticked, in milliseconds since the start.
    ticked: AtomicU64,
    /// When somebody last asked, likewise and one more; 0 for never.
    asked: AtomicU64,
    shown: Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Board {
    pub(super) fn new() -> Self {
        let (ticked, asked) = Default::default();
        Self { start: Instant::now(), ticked, asked, shown: Mutex::new(None) }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The engine's thread is at work.
    pub(super) fn beat(&self) {
        self.ticked.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn is_alive(&self) -> bool {
        self.now().saturating_sub(self.ticked.load(Ordering::Relaxed)) < ALIVE.as_millis() as u64
    }

    /// Somebody wants a snapshot.
    pub(super) fn ask(&self) {
        self.asked.store(self.now() + 1, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        asked > 0 && self.now().saturating_sub(asked - 1) < INTEREST.as_millis() as u64
    }

    fn show(&self, status: Status) {
        // The old one is dropped outside of the lock.
        let new = Some((Instant::now(), Arc::new(status)));
        let old = std::mem::replace(&mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner), new);
        drop(old);
    }

    /// The last snapshot, if it is not older than `age`.
    pub(super) fn latest(&self, age: Duration) -> Option<Arc<Status>> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().filter(|(made, _)| made.elapsed() <= age).map(|(_, status)| Arc::clone(status))
    }
}

/// Everything that is told. Older commands leave out what they do not know, newer ones take what is missing as nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) host: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) rails: Vec<RailStatus>,
    pub(crate) hosts: Vec<HostStatus>,
    pub(crate) links: Vec<LinkStatus>,
    pub(crate) programs: Vec<ProgramStatus>,
    /// Offers of programs of this host: all, those that wait for the other end, those that were declined.
    pub(crate) offers: u64,
    pub(crate) offers_waiting: u64,
    pub(crate) offers_declined: u64,
    pub(crate) links_lost: u64,
    /// Bytes that others may send ahead to programs of this host.
    pub(crate) memory_promised: u64,
    pub(crate) doorbells_rung: u64,
    pub(crate) sleeps: u64,
    pub(crate) control: ControlStatus,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RailStatus {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) address: Option<String>,
}

/// Another agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HostStatus {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
}

/// One link; counters are totals of its life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LinkStatus {
    /// The same for its life, and for no other link of this agent.
    pub(crate) id: u32,
    pub(crate) peer: String,
    pub(crate) rail: String,
    pub(crate) state: String,
    pub(crate) streams: u64,
    pub(crate) streams_opened: u64,
    pub(crate) batches_sent: u64,
    pub(crate) batches_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) payload_bytes_sent: u64,
    pub(crate) payload_bytes_received: u64,
    pub(crate) batch_bytes_sent: u64,
    pub(crate) batch_bytes_received: u64,
    pub(crate) acknowledgements_sent: u64,
    /// Payloads written beside the batches.
    #[serde(default)]
    pub(crate) large_sent: u64,
    /// Batches that were not answered yet.
    pub(crate) in_flight: u64,
    /// Bytes that this host has put on the wire, by model: batches, and the device's answers to batches received.
    /// Nothing for providers whose packets are not documented.
    pub(crate) wire_bytes_sent: Option<u64>,
    /// Messages per batch with messages in it.
    pub(crate) messages_per_batch: f64,
    /// Payload of all bytes on the wire.
    pub(crate) utilisation: Option<f64>,
}

/// A program of this host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProgramStatus {
    pub(crate) pid: i32,
    pub(crate) user: u32,
    pub(crate) name: String,
    pub(crate) streams: u64,
}

/// The connections over which agents talk to each other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ControlStatus {
    pub(crate) listening: String,
    pub(crate) keyed: bool,
    pub(crate) connections: Vec<ControlConnection>,
    pub(crate) half_open: u64,
    pub(crate) dials: u64,
    pub(crate) dials_failed: u64,
    pub(crate) unreachable: u64,
    /// Arriving connections refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) last_refused: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ControlConnection {
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_queued: u64,
}

impl LinkStatus {
    /// Messages in each batch that had any.
    pub(crate) fn per_batch(messages: f64, batches: f64, acknowledgements: f64) -> Option<f64> {
        let full = batches - acknowledgements;
        (full > 0.0).then(|| messages / full)
    }
}

impl Engine {
    /// Shows what there is to those who ask; true when nobody has needed the agent for as long as it waits.
    pub(super) fn report(&mut self, now: Instant) -> bool {
        self.board.beat();
        if self.board.is_wanted() {
            self.board.show(self.status());
        }
        if self.programs.iter().flatten().any(|program| program.port.is_some()) {
            self.occupied = now;
        }
        let idle = now.saturating_duration_since(self.occupied);
        self.idle_exit.is_some_and(|limit| idle >= limit)
    }

    fn status(&self) -> Status {
        let program = |program: &super::program::Program| ProgramStatus {
            pid: program.session.pid,
            user: program.session.uid,
            name: program.name.clone(),
            streams: program.streams().count() as u64,
        };
        let mut hosts: Vec<HostStatus> = self.broker.hosts.values().map(host).collect();
        hosts.sort_by(|one, two| (&one.name, &one.addresses).cmp(&(&two.name, &two.addresses)));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: super::setup::host_name(),
            uptime_seconds: self.board.start.elapsed().as_secs_f64(),
            rails: self.rails.iter().map(rail).collect(),
            hosts,
            links: self.links.iter().flatten().map(|link| self.link_status(link)).collect(),
            programs: self.programs.iter().flatten().filter(|p| p.port.is_some()).map(program).collect(),
            offers: self.counters.offers,
            offers_waiting: self.broker.waiting(),
            offers_declined: self.counters.offers_declined,
            links_lost: self.counters.links_lost,
            memory_promised: self.memory.promised(),
            doorbells_rung: self.counters.doorbells_rung,
            sleeps: self.counters.sleeps,
            control: self.control_status(),
        }
    }

    fn link_status(&self, link: &Link) -> LinkStatus {
        let counters = &link.counters;
        let answers = link.wire.acknowledgement().map(|bytes| bytes * counters.batches_received);
        let wire = answers.map(|answers| counters.wire_bytes_sent + answers);
        let (messages, batches) = (counters.messages_sent as f64, counters.batches_sent as f64);
        let per_batch = LinkStatus::per_batch(messages, batches, counters.acknowledgements_sent as f64);
        let state = match link.state {
            LinkState::Proposed => "proposed",
            LinkState::Connecting => "connecting",
            LinkState::Up => "up",
            LinkState::Down => "down",
        };
        LinkStatus {
            id: link.id.0,
            peer: self.broker.hosts.get(&link.host).map(|host| host.name.clone()).unwrap_or_default(),
            rail: self.rails[link.rail].fabric.name().to_owned(),
            state: state.to_owned(),
            streams: link.queue.streams().count() as u64,
            streams_opened: counters.streams_opened,
            batches_sent: counters.batches_sent,
            batches_received: counters.batches_received,
            messages_sent: counters.messages_sent,
            payload_bytes_sent: counters.payload_sent,
            payload_bytes_received: counters.payload_received,
            batch_bytes_sent: counters.batch_bytes_sent,
            batch_bytes_received: counters.batch_bytes_received,
            acknowledgements_sent: counters.acknowledgements_sent,
            large_sent: counters.large_sent,
            in_flight: link.queue.send.in_flight() as u64,
            wire_bytes_sent: wire,
            messages_per_batch: per_batch.unwrap_or(0.0),
            utilisation: wire.filter(|wire| *wire > 0).map(|wire| counters.payload_sent as f64 / wire as f64),
        }
    }

    fn control_status(&self) -> ControlStatus {
        let status = self.peers.status();
        let connection = |peer: &convoy_control::peers::PeerStatus| {
            let (state, about) = (format!("{:?}", peer.state).to_lowercase(), peer.connection.as_ref());
            ControlConnection {
                address: peer.address.to_string(),
                state,
                name: about.map(|about| about.name.clone()).unwrap_or_default(),
                bytes_sent: about.map_or(0, |about| about.bytes_out),
                bytes_received: about.map_or(0, |about| about.bytes_in),
                messages_queued: about.map_or(0, |about| about.queued_messages as u64),
            }
        };
        ControlStatus {
            listening: status.listening.to_string(),
            keyed: status.keyed,
            connections: status.peers.iter().map(connection).collect(),
            half_open: status.half_open as u64,
            dials: status.dials,
            dials_failed: status.dials_failed,
            unreachable: status.unreachable as u64,
            refused: status.refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
            last_refused: status.last_refused.map(|(from, why)| format!("{from}: {why}")),
        }
    }
}

fn rail(rail: &super::engine::Rail) -> RailStatus {
    RailStatus {
        name: rail.fabric.name().to_owned(),
        provider: rail.provider.clone(),
        address: rail.at.map(|address| address.to_string()),
    }
}

fn host(host: &super::broker::Host) -> HostStatus {
    let mut addresses: Vec<String> = host.sessions.iter().map(|(_, address)| address.to_string()).collect();
    addresses.sort();
    HostStatus { name: host.name.clone(), addresses }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn snapshots_are_made_for_those_who_ask() {
        let board = Board::new();
        assert!(!board.is_wanted() && board.latest(INTEREST).is_none());
        board.ask();
        assert!(board.is_wanted());
        board.show(Status { pid: 7, ..Status::default() });
        assert_eq!(board.latest(INTEREST).unwrap().pid, 7);
        board.asked.store(1, Ordering::Relaxed);
        let later = Board { start: board.start.checked_sub(INTEREST).unwrap(), ..board };
        assert!(!later.is_wanted());
    }

    #[test]
    fn an_engine_that_does_not_tick_is_found_out() {
        let board = Board::new();
        board.beat();
        assert!(board.is_alive());
        let late = Board { start: board.start.checked_sub(ALIVE).unwrap(), ..board };
        assert!(!late.is_alive());
        late.beat();
        assert!(late.is_alive());
    }

    #[test]
    fn agents_of_another_age_are_understood() {
        let status: Status = serde_json::from_str(r#"{"pid":3,"links":[{"peer":"b","new":1}]}"#).unwrap();
        assert_eq!((status.pid, &*status.links[0].peer), (3, "b"));
    }

    #[test]
    fn answers_do_not_count_as_batches_of_messages() {
        assert_eq!(LinkStatus::per_batch(30.0, 20.0, 10.0), Some(3.0));
        assert_eq!(LinkStatus::per_batch(0.0, 10.0, 10.0), None);
    }
}
