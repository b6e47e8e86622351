//! Agents on addresses of their own, waiting for what they tell, and a proxy that can fail.
#![allow(dead_code)] // Each test file uses its part of it.
#![allow(clippy::unwrap_used, clippy::panic)] // Only tests call it, but it is no test itself.

use convoy_control::peers::{Config, Event, Events, PeerId, Peers, Timings};
use convoy_control::{Hello, Key, Versions};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// A loopback address that no other test process uses.
pub fn address(host: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, high, low, host])
}

pub fn hello(name: &str) -> Hello {
    Hello::new(name, Versions { min: 1, max: 1 }).unwrap()
}

/// A key that is the same for the same `seed`.
pub fn key(seed: u8) -> Key {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(format!("{:064x}\n", u128::from(seed) + 1).as_bytes()).unwrap();
    Key::read(&path).unwrap()
}

/// A configuration on the address of `host`, with a key.
pub fn config(host: u8, port: u16) -> Config {
    let mut config = Config::new(hello(&format!("host{host}")));
    config.listen = SocketAddr::new(address(host), port);
    config.key = Some(key(0));
    config
}

/// Times that make tests short where they have to wait.
pub fn short() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(50),
        dead: Duration::from_secs(2),
        negative: Duration::from_millis(200),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        ..Timings::default()
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + WATCHDOG;
    while !condition() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub struct Agent {
    pub peers: Peers,
    events: Events,
    seen: RefCell<VecDeque<Event>>,
}

impl Agent {
    pub fn start(config: Config) -> Agent {
        let (peers, events) = Peers::start(config).unwrap();
        Agent { peers, events, seen: RefCell::default() }
    }

    pub fn address(&self) -> IpAddr {
        self.peers.local_addr().ip()
    }

    pub fn port(&self) -> u16 {
        self.peers.local_addr().port()
    }

    /// The first event not taken yet that `wanted` makes something of; earlier ones stay.
    pub fn wait<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let mut seen = self.seen.borrow_mut();
        let mut from = 0;
        let until = Instant::now() + WATCHDOG;
        loop {
            if let Some((at, found)) = seen
                .iter()
                .enumerate()
                .skip(from)
                .find_map(|(at, event)| wanted(event).map(|found| (at, found)))
            {
                seen.remove(at);
                return found;
            }
            from = seen.len();
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => seen.push_back(event),
                Err(error) => panic!("{what}: {error}; seen {:?}", brief(&seen)),
            }
        }
    }

    /// All events there are and were not taken.
    pub fn pending(&self) -> Vec<Event> {
        let mut seen = self.seen.borrow_mut();
        while let Ok(event) = self.events.try_recv() {
            seen.push_back(event);
        }
        seen.iter().cloned().collect()
    }

    pub fn up(&self) -> PeerId {
        self.wait("up", |event| match event {
            Event::Up { peer, .. } => Some(*peer),
            _ => None,
        })
    }

    pub fn up_from(&self, from: IpAddr) -> PeerId {
        self.wait("up", |event| match event {
            Event::Up { peer, address, .. } if *address == from => Some(*peer),
            _ => None,
        })
    }

    pub fn down(&self, which: PeerId) -> String {
        self.wait("down", |event| match event {
            Event::Down { peer, reason } if *peer == which => Some(reason.clone()),
            _ => None,
        })
    }

    pub fn unreachable(&self) -> (IpAddr, String) {
        self.wait("unreachable", |event| match event {
            Event::Unreachable { address, reason } => Some((*address, reason.clone())),
            _ => None,
        })
    }

    pub fn message(&self, from: PeerId) -> Vec<u8> {
        self.wait("message", |event| match event {
            Event::Message { peer, bytes } if *peer == from => Some(bytes.clone()),
            _ => None,
        })
    }

    /// How often arriving connections were refused for the reason with that label.
    pub fn refused(&self, label: &str) -> u64 {
        let refused = self.peers.status().refused;
        refused.iter().find(|(name, _)| *name == label).unwrap().1
    }
}

fn brief(events: &VecDeque<Event>) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}").chars().take(120).collect()).collect()
}

/// Connects two agents by a probe of the first; the peers as each sees the other.
pub fn connect(one: &Agent, other: &Agent) -> (PeerId, PeerId) {
    one.peers.probe(other.address());
    (one.up(), other.up())
}

/// Both send and receive.
pub fn talk(one: &Agent, to_other: PeerId, other: &Agent, to_one: PeerId) {
    one.peers.send(to_other, b"there".to_vec()).unwrap();
    other.peers.send(to_one, b"back".to_vec()).unwrap();
    assert_eq!(other.message(to_one), b"there");
    assert_eq!(one.message(to_other), b"back");
}

/// Stands between an agent that dials it and the agent at `target`.
pub struct Proxy {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Forwarded>>>,
}

/// Of a connection: whether nothing is forwarded, and its ends.
type Forwarded = (Arc<AtomicBool>, [TcpStream; 2]);

impl Proxy {
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(listen).unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Forwarded>>> = Arc::default();
        let held = Arc::clone(&connections);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(target).unwrap();
                let silent = Arc::new(AtomicBool::new(false));
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let quiet = Arc::clone(&silent);
                    std::thread::spawn(move || forward(from, to, &quiet));
                }
                held.lock().unwrap().push((silent, [near, far]));
            }
        });
        Proxy { address, connections }
    }

    /// Forwards nothing more on the connections there are, and leaves them open.
    pub fn fall_silent(&self) {
        for (silent, _) in self.connections.lock().unwrap().iter() {
            silent.store(true, Ordering::SeqCst);
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.connections.lock().unwrap().drain(..).flat_map(|(_, ends)| ends) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if !silent.load(Ordering::SeqCst) && to.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
}
