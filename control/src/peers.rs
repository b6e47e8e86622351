//! The service that keeps one connection per peer agent. Lives here: what the agent calls.
//!
//! - [`config`]: what the service is started with.
//! - [`events`]: what it tells.
//! - [`status`]: what humans and metrics see of it.
//! - `shared`: the state that all threads share, and how connections become peers and end.
//! - `manager`: the thread that accepts connections and starts dials when they are due.
//! - `dials`: which addresses are to be dialed when.
//! - `connection`: one connection's thread, from its first byte to its last.
//! - `settle`: from a secure connection to the decision that it is used.
//! - `link`: the two directions of a connection in use.
//! - `net`: sockets with their options.
//!
//! Not here: keys and records ([`crate::secure`]) and what messages mean.
//!
//! **Threads.** One accepts and looks at the clock. Each connection has one that shakes hands and then
//! reads, and in use a second one that writes. Names begin with `cv-`, and all signals are blocked in them.
//!
//! **Several connections between two agents.** They arise when both dial at once. Of two agents, the one
//! with the smaller instance decides: it accepts one connection per pair of addresses, and an [`Event::Up`]
//! is told only for an accepted one, on both sides. So a connection that is dropped has never carried a
//! message, and each side sees exactly one. See `settle` for how a dead connection is told from a second.

pub mod config;
mod connection;
mod dials;
pub mod events;
mod link;
mod manager;
mod net;
mod settle;
mod shared;
pub mod status;

use crate::lock::{lock, wait_for};
use crate::threads;
pub use config::{Config, Error, Limits, Timings};
pub use events::{Event, Events};
use serde::Serialize;
use shared::Shared;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use status::{ConnectionStatus, PeerState, PeerStatus, Status};

/// How long [`Peers::shutdown`] waits for goodbyes to be delivered before it cuts connections.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection in use, from its [`Event::Up`] to its [`Event::Down`]. Never used again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PeerId(pub(crate) u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What [`Peers::probe`] found at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// There is a connection to that address; no event follows.
    Known(PeerId),
    /// The address is being dialed: [`Event::Up`] or [`Event::Unreachable`] follows.
    Dialing,
    /// It was not reachable a short while ago; no event follows.
    Unreachable,
    /// Too many addresses are waiting to be dialed, or the service is shut down; no event follows.
    Busy,
}

/// Why [`Peers::send`] did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The peer is down, or never was up.
    Down,
    /// The message is longer than [`crate::secure::wire::MAX_MESSAGE`].
    TooLong,
    /// Too much is waiting to be sent to the peer, which has been closed for it.
    Overflow,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Down => "the peer is down",
            SendError::TooLong => "the message is too long",
            SendError::Overflow => "the peer takes messages too slowly and was closed",
        })
    }
}

impl std::error::Error for SendError {}

/// A socket for [`Config::listener`] that listens at `address`: for those who keep a copy, to hand it over.
///
/// # Errors
/// The address cannot be listened on.
pub fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    shared::listen_at(address)
}

/// The running service. Dropping it is [`Peers::shutdown`].
pub struct Peers {
    shared: Arc<Shared>,
    manager: Mutex<Option<JoinHandle<()>>>,
}

impl Peers {
    /// Starts listening, and dialing the static peers.
    ///
    /// # Errors
    /// Neither a key nor permission to do without; a hello that cannot be sent; the address cannot be
    /// listened on; no descriptors or threads.
    pub fn start(config: Config) -> Result<(Peers, Events), Error> {
        let (shared, events, listener) = shared::start(config)?;
        let shared = Arc::new(shared);
        let mine = Arc::clone(&shared);
        let manager = threads::spawn("cv-control", move || manager::run(&mine, &listener))
            .map_err(|error| Error::new(format!("control: no thread: {error}")))?;
        Ok((Peers { shared, manager: Mutex::new(Some(manager)) }, events))
    }

    /// The address listened on, with the port that the kernel chose if it was to choose one.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Finds out whether an agent answers at `address`. Any number of probes of one address while it is
    /// being dialed are one dial and one event.
    pub fn probe(&self, address: IpAddr) -> Probe {
        self.shared.probe(address.to_canonical())
    }

    /// Queues `message` to `peer`; never waits for the network. That the message arrives is known only
    /// from what the peer answers.
    ///
    /// # Errors
    /// The message is not sent. See [`SendError`].
    pub fn send(&self, peer: PeerId, message: Vec<u8>) -> Result<(), SendError> {
        self.shared.send(peer, message)
    }

    /// Ends the connection after what is queued; the peer is told `reason`. [`Event::Down`] follows here,
    /// unless the peer is down already.
    pub fn close(&self, peer: PeerId, reason: &str) {
        self.shared.close(peer, reason);
    }

    /// Forgets that `address` was unreachable.
    pub fn forget(&self, address: IpAddr) {
        self.shared.forget(address.to_canonical());
    }

    /// Replaces the static peers. New ones are dialed at once; connections to those that are no longer
    /// among them stay until they end.
    pub fn reload(&self, peers: &[SocketAddr]) {
        self.shared.reload(peers);
    }

    /// A snapshot for humans and metrics.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Says goodbye to all peers, ends all threads and closes all sockets, within 2 s. Once is enough.
    pub fn shutdown(&self) {
        self.shared.stop();
        let manager = lock(&self.manager).take();
        if let Some(manager) = manager {
            // Joined first: it is the one who starts threads.
            let _ = manager.join();
        }
        let until = Instant::now() + FAREWELL;
        let mut table = lock(&self.shared.table);
        while table.running > 0 && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            table = wait_for(&self.shared.changed, table, left);
        }
        table.cut_all();
        let threads = std::mem::take(&mut table.threads);
        drop(table);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.shutdown();
    }
}
