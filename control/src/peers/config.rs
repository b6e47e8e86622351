//! What the service is started with, and why it does not start. Not here: starting it.

use crate::hello::Hello;
use crate::key::Key;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The port of agents.
pub const DEFAULT_PORT: u16 = 4792;

/// Where agents listen unless they are told: at all addresses, IPv4 too.
pub const ANYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What the service is started with.
#[derive(Debug)]
pub struct Config {
    /// Where to listen. Unless it is the unspecified address, dials come from it too, so that peers see
    /// one address. Port 0: the kernel chooses.
    pub listen: SocketAddr,
    /// The port at which probed addresses are dialed. 0: the one listened on.
    pub dial_port: u16,
    /// The shared key. Without it, connections are neither encrypted nor authenticated.
    pub key: Option<Key>,
    /// Permits doing without a key on other addresses than loopback.
    pub insecure: bool,
    /// What to tell peers.
    pub hello: Hello,
    /// Peers to be connected to at all times. Port 0: `dial_port`.
    pub peers: Vec<SocketAddr>,
    /// Times.
    pub timings: Timings,
    /// Limits.
    pub limits: Limits,
    /// An eventfd that is written to whenever an event is queued. It should not block; the one who waits
    /// for it resets it.
    pub wake: Option<OwnedFd>,
    /// A socket that listens at `listen` already, from [`super::listen`] or from another process. None: one is made.
    pub listener: Option<TcpListener>,
}

impl Config {
    /// The defaults: listening everywhere at [`DEFAULT_PORT`], no key, no static peers, no eventfd.
    pub fn new(hello: Hello) -> Config {
        Config {
            listen: SocketAddr::new(ANYWHERE, DEFAULT_PORT),
            dial_port: 0,
            key: None,
            insecure: false,
            hello,
            peers: Vec::new(),
            timings: Timings::default(),
            limits: Limits::default(),
            wake: None,
            listener: None,
        }
    }

    /// Whether the service can be started with this, as far as that is to be known without trying.
    ///
    /// # Errors
    /// Neither a key nor permission to do without; a hello that cannot be sent.
    pub fn check(&self) -> Result<(), Error> {
        let listen = self.listen;
        if self.key.is_none() && !self.insecure && !listen.ip().to_canonical().is_loopback() {
            return Err(Error::new(format!(
                "control: listening on {listen} needs a key file: make one, listen on loopback, or permit insecure"
            )));
        }
        self.hello.encode().map_err(|fault| Error::new(format!("control: {fault}")))?;
        Ok(())
    }
}

/// The service's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// For a TCP connection to be made. 1 s.
    pub dial: Duration,
    /// From the TCP connection to its use or refusal. 5 s.
    pub handshake: Duration,
    /// Silence of this length is filled with a heartbeat. 1 s.
    pub heartbeat: Duration,
    /// A peer from which nothing arrives, or that takes nothing, for so long is down. 4 s.
    pub dead: Duration,
    /// The longest time that an unreachable address is not probed again; it begins with `backoff_min` and doubles. 60 s.
    pub negative: Duration,
    /// The pause before a static peer is dialed again, at first. 1 s. Each failure doubles it; between
    /// half of it and all of it is waited, at random.
    pub backoff_min: Duration,
    /// The longest pause. 30 s.
    pub backoff_max: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            dial: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            dead: Duration::from_secs(4),
            negative: Duration::from_secs(60),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// The service's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes of arriving connections at one time. Beyond it, the oldest of the address that has most
    /// of them gives way. 64.
    pub half_open: usize,
    /// Dials at one time. 64.
    pub dials: usize,
    /// Addresses that wait to be dialed. 1024.
    pub waiting: usize,
    /// Messages queued to one peer. 16 384.
    pub queue_messages: usize,
    /// Bytes of messages queued to one peer. 16 MiB.
    pub queue_bytes: usize,
    /// Bytes of messages from one peer that were not taken out of [`super::Events`] yet; beyond it, no
    /// more is read from that peer. 8 MiB.
    pub unread_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            half_open: 64,
            dials: 64,
            waiting: 1024,
            queue_messages: 16_384,
            queue_bytes: 16 << 20,
            unread_bytes: 8 << 20,
        }
    }
}

/// Why the service does not start: one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(line: impl Into<String>) -> Error {
        Error(line.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
