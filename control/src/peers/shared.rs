//! The state that all threads of the service share, and the steps that change it: a connection becomes a
//! peer, a peer goes down, a dial ends. All events are told under one lock, so their order is that of the
//! steps. Not here: waiting for anything.

use super::config::{Config, Error, Limits, Timings};
use super::dials::{Dials, Wanted};
use super::events::{Event, Events, Outlet};
use super::link::Link;
use super::{PeerId, Probe, SendError, net};
use crate::hello::{Agreement, Hello};
use crate::lock::{lock, wait_for};
use crate::secure::refusal::Counters;
use crate::secure::wire::MAX_MESSAGE;
use crate::secure::{Fault, Security};
use crate::threads;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

pub(super) struct Shared {
    pub(super) local: SocketAddr,
    pub(super) dial_port: u16,
    pub(super) insecure: bool,
    pub(super) security: Security,
    pub(super) hello: Hello,
    pub(super) timings: Timings,
    pub(super) limits: Limits,
    pub(super) table: Mutex<Table>,
    /// Something in the table changed that a thread may wait for.
    pub(super) changed: Condvar,
    /// Readable for ever once the service stops.
    pub(super) stop: OwnedFd,
    /// Readable when the manager shall look at the table.
    pub(super) nudge: OwnedFd,
    pub(super) refused: Counters,
    outlet: Outlet,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) stopping: bool,
    pub(super) up: HashMap<PeerId, Entry>,
    /// All links whose threads run, among them those that are down already.
    pub(super) links: HashMap<PeerId, Arc<Link>>,
    /// Connections that are not in use yet, by when they began.
    pub(super) pending: HashMap<u64, Pending>,
    /// Threads that shake hands with those who connected, also when theirs is no longer pending.
    pub(super) handshaking: usize,
    /// Connections proposed by this agent and not ended, by number. See `settle`.
    pub(super) claims: HashMap<u64, Pair>,
    pub(super) dials: Dials,
    /// Threads of connections that have not come to their end.
    pub(super) running: usize,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) last_refused: Option<(IpAddr, String)>,
    last_number: u64,
}

/// A connection that is not in use yet.
pub(super) struct Pending {
    pub(super) stream: Arc<TcpStream>,
    pub(super) address: IpAddr,
    pub(super) dialed: bool,
}

/// What two connections have in common of which one is too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) instance: u128,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
}

/// A peer that is up.
pub(super) struct Entry {
    pub(super) link: Arc<Link>,
    pub(super) pair: Pair,
    pub(super) name: String,
    pub(super) protocol: u32,
    pub(super) dialed: bool,
    pub(super) since: SystemTime,
    /// Orders the connections of a pair, see `settle`.
    pub(super) rank: u64,
    /// This agent's claim to the connection, if the other one decided.
    pub(super) claim: Option<u64>,
}

/// A connection that shall become a peer.
pub(super) struct Admission {
    pub(super) stream: Arc<TcpStream>,
    pub(super) pair: Pair,
    pub(super) hello: Hello,
    pub(super) agreement: Agreement,
    pub(super) dialed: bool,
    pub(super) rank: u64,
    pub(super) claim: Option<u64>,
}

impl Table {
    /// A number that was not given out before.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<PeerId> {
        self.up.iter().find(|(_, entry)| entry.pair.remote == address).map(|(peer, _)| *peer)
    }

    /// Ends all connections at once.
    pub(super) fn cut_all(&self) {
        for pending in self.pending.values() {
            // It may be gone already.
            let _ = pending.stream.shutdown(Shutdown::Both);
        }
        for link in self.links.values() {
            link.cut();
        }
    }
}

/// A socket that listens at `address`.
pub(super) fn listen_at(address: SocketAddr) -> Result<TcpListener, Error> {
    net::listening(address).map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(format!("control: cannot listen on {address}: {error}"))
}

/// Checks `config` and makes what the threads need.
pub(super) fn start(config: Config) -> Result<(Shared, Events, TcpListener), Error> {
    config.check()?;
    let Config { listen, dial_port, key, insecure, hello, peers, timings, limits, wake, listener } = config;
    let failed = |error| cannot_listen(listen, &error);
    let listener = listener.map_or_else(|| listen_at(listen), Ok)?;
    let local = listener.local_addr().map_err(failed)?;
    let (outlet, events) = Outlet::new(wake);
    let mut table = Table::default();
    table.dials.reload(&peers, Instant::now(), |_| false);
    let shared = Shared {
        local,
        dial_port: if dial_port == 0 { local.port() } else { dial_port },
        insecure,
        security: key.map_or(Security::Plain, Security::Keyed),
        hello,
        timings,
        limits,
        table: Mutex::new(table),
        changed: Condvar::new(),
        stop: net::event().map_err(failed)?,
        nudge: net::event().map_err(failed)?,
        refused: Counters::default(),
        outlet,
    };
    Ok((shared, events, listener))
}

impl Shared {
    pub(super) fn probe(&self, address: IpAddr) -> Probe {
        let mut table = lock(&self.table);
        if table.stopping {
            return Probe::Busy;
        }
        if let Some(peer) = table.at(address) {
            return Probe::Known(peer);
        }
        match table.dials.probe(address, Instant::now(), &self.limits) {
            Wanted::Dialing => {
                net::signal(&self.nudge);
                Probe::Dialing
            }
            Wanted::Unreachable => Probe::Unreachable,
            Wanted::Busy => Probe::Busy,
        }
    }

    pub(super) fn send(&self, peer: PeerId, message: Vec<u8>) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong);
        }
        let mut table = lock(&self.table);
        let link = table.up.get(&peer).map(|entry| Arc::clone(&entry.link)).ok_or(SendError::Down)?;
        let queued = link.queue(message, self.limits.queue_messages, self.limits.queue_bytes);
        if queued == Err(SendError::Overflow) {
            self.down(&mut table, peer, "too much was waiting to be sent to it");
            link.cut();
        }
        queued
    }

    pub(super) fn close(&self, peer: PeerId, reason: &str) {
        let mut table = lock(&self.table);
        if let Some(entry) = table.up.get(&peer) {
            entry.link.close(reason);
            self.down(&mut table, peer, &format!("closed by this agent: {reason}"));
        }
    }

    pub(super) fn forget(&self, address: IpAddr) {
        lock(&self.table).dials.forget(address, Instant::now());
        net::signal(&self.nudge);
    }

    pub(super) fn reload(&self, peers: &[SocketAddr]) {
        let mut table = lock(&self.table);
        let connected: Vec<IpAddr> = table.up.values().map(|entry| entry.pair.remote).collect();
        table.dials.reload(peers, Instant::now(), |address| connected.contains(&address));
        net::signal(&self.nudge);
    }

    /// Begins to stop: nothing new, goodbye to all peers.
    pub(super) fn stop(&self) {
        let mut table = lock(&self.table);
        table.stopping = true;
        let peers: Vec<PeerId> = table.up.keys().copied().collect();
        for peer in peers {
            if let Some(entry) = table.up.get(&peer) {
                entry.link.close("the agent is shutting down");
            }
            self.down(&mut table, peer, "this agent is shutting down");
        }
        for pending in table.pending.values() {
            // It may be gone already.
            let _ = pending.stream.shutdown(Shutdown::Both);
        }
        net::signal(&self.stop);
        net::signal(&self.nudge);
        self.changed.notify_all();
    }

    /// Makes a connection a peer, in place of those that it replaces. The caller has found under the same
    /// lock that it is the right one.
    pub(super) fn admit(&self, table: &mut Table, admission: Admission) -> Arc<Link> {
        let Admission { stream, pair, hello, agreement, dialed, rank, claim } = admission;
        let replaced = |entry: &Entry| {
            entry.pair == pair || entry.pair.remote == pair.remote && entry.pair.instance != pair.instance
        };
        let old: Vec<PeerId> =
            table.up.iter().filter(|(_, entry)| replaced(entry)).map(|(peer, _)| *peer).collect();
        for peer in old {
            if let Some(entry) = table.up.get(&peer) {
                entry.link.cut();
                let restarted = entry.pair.instance != pair.instance;
                let reason =
                    if restarted { "the peer was started again" } else { "the peer connected again" };
                self.down(table, peer, reason);
            }
        }
        let peer = PeerId(table.number());
        let link = Arc::new(Link::new(peer, stream));
        table.links.insert(peer, Arc::clone(&link));
        table.dials.connected(pair.remote);
        if dialed {
            table.dials.succeeded(pair.remote);
        }
        table.up.insert(
            peer,
            Entry {
                link: Arc::clone(&link),
                pair,
                name: hello.name.clone(),
                protocol: agreement.protocol,
                dialed,
                since: SystemTime::now(),
                rank,
                claim,
            },
        );
        tracing::info!(%peer, address = %pair.remote, name = hello.name, dialed, "peer up");
        let event = Event::Up {
            peer,
            address: pair.remote,
            instance: pair.instance,
            protocol: agreement.protocol,
            features: agreement.features,
            name: hello.name,
            addresses: hello.addresses,
            payload: hello.payload,
            dialed,
        };
        self.outlet.tell(event, None);
        self.changed.notify_all();
        link
    }

    /// Tells that a peer is down, unless that was told.
    pub(super) fn down(&self, table: &mut Table, peer: PeerId, reason: &str) {
        let Some(entry) = table.up.remove(&peer) else { return };
        if let Some(claim) = entry.claim {
            table.claims.remove(&claim);
        }
        let address = entry.pair.remote;
        if table.at(address).is_none() {
            table.dials.lost(address, Instant::now(), &self.timings);
            net::signal(&self.nudge);
        }
        tracing::info!(%peer, %address, reason, "peer down");
        self.outlet.tell(Event::Down { peer, reason: reason.to_owned() }, None);
    }

    /// A link's own thread found that it cannot go on.
    pub(super) fn fail(&self, link: &Link, reason: &str) {
        self.down(&mut lock(&self.table), link.peer, reason);
    }

    /// Tells a message that has room in the link's inbox, or drops it when the peer is down.
    pub(super) fn deliver(&self, link: &Link, bytes: Vec<u8>) {
        let table = lock(&self.table);
        if table.up.contains_key(&link.peer) {
            let event = Event::Message { peer: link.peer, bytes };
            self.outlet.tell(event, Some(Arc::clone(&link.inbox)));
        }
    }

    /// A dial came to nothing. No failure if there is a connection to the address all the same.
    pub(super) fn dial_failed(&self, address: IpAddr, fault: &Fault) {
        let mut table = lock(&self.table);
        if table.at(address).is_some() {
            table.dials.succeeded(address);
        } else if !table.stopping {
            tracing::debug!(%address, reason = fault.reason, "dial failed");
            if table.dials.failed(address, Instant::now(), &self.timings) {
                self.outlet.tell(Event::Unreachable { address, reason: fault.reason.clone() }, None);
            }
        }
        net::signal(&self.nudge);
    }

    /// Waits until there is a connection to `address`, at most for `limit`.
    pub(super) fn await_up(&self, address: IpAddr, limit: Duration) {
        let until = Instant::now() + limit;
        let mut table = lock(&self.table);
        while !table.stopping && table.at(address).is_none() && Instant::now() < until {
            table = wait_for(&self.changed, table, until.saturating_duration_since(Instant::now()));
        }
    }

    /// Starts a connection's thread. Only the manager does, so that none begins after it was joined.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce(&Arc<Shared>) + Send + 'static,
    ) -> bool {
        lock(&self.table).running += 1;
        let mine = Arc::clone(self);
        let started = threads::spawn(name, move || {
            body(&mine);
            ended(&mine, lock(&mine.table));
        });
        match started {
            Ok(thread) => {
                lock(&self.table).threads.push(thread);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "no thread for a connection");
                ended(self, lock(&self.table));
                false
            }
        }
    }
}

fn ended(shared: &Shared, mut table: MutexGuard<'_, Table>) {
    table.running -= 1;
    drop(table);
    shared.changed.notify_all();
    net::signal(&shared.nudge);
}
