//! What a provider gives between two rails of this process, each with its own thread: writes with an immediate a second,
//! and how long a ping-pong takes, with both sides polling and with both sleeping on the wait descriptor.
//!
//! `cargo run --release --example rate -- PROVIDER [ADDRESS-OR-DEVICE]`; the provider may also be `shm`, or end in
//! `+messages`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use convoy_fabric::libfabric::{self, Local, Placement};
use convoy_fabric::{Access, Event, Fabric, LinkId, MemoryId, PostError, RemoteMemory, Source, Write, shm};

const LINK: LinkId = LinkId(1);
const BYTES: usize = 64 << 10;

/// One side.
struct Side {
    fabric: Box<dyn Fabric>,
    source: MemoryId,
    target: RemoteMemory,
    sleeps: bool,
    events: Vec<Event>,
}

impl Side {
    /// Something that has happened, waited for as the side does.
    fn wait(&mut self) {
        self.events.clear();
        self.fabric.poll(&mut self.events);
        if self.events.is_empty() && self.sleeps && self.fabric.may_sleep() {
            let fd = self.fabric.wait_descriptor().expect("a descriptor to sleep on");
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry.
            unsafe { libc::poll(&mut entry, 1, 10_000) };
        }
    }

    fn post(&mut self, length: usize, immediate: u32) -> bool {
        let source = Source::Memory { memory: self.source, offset: 0, length };
        let immediate = Some(immediate);
        let write = Write { source, target: self.target, offset: 0, immediate, context: 0, more: false };
        match self.fabric.post(LINK, &write) {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn arrived(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Arrived { .. })).count()
    }

    fn written(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Written { .. })).count()
    }

    /// Posts this many writes, and waits until they are done.
    fn send(&mut self, length: usize, count: usize) {
        let (mut posted, mut done) = (0, 0);
        while done < count {
            while posted < count && self.post(length, 1) {
                posted += 1;
            }
            self.wait();
            done += self.written();
        }
    }

    /// Waits until this many have arrived.
    fn receive(&mut self, count: usize) {
        let mut got = 0;
        while got < count {
            self.wait();
            got += self.arrived();
        }
    }

    fn ping(&mut self, length: usize, rounds: usize) {
        for _ in 0..rounds {
            while !self.post(length, 1) {
                self.wait();
            }
            self.receive(1);
        }
    }

    fn pong(&mut self, length: usize, rounds: usize) {
        for _ in 0..rounds {
            self.receive(1);
            while !self.post(length, 1) {
                self.wait();
            }
        }
    }
}

/// Runs both at the same time.
fn both(
    a: &mut Side,
    b: &mut Side,
    first: impl Fn(&mut Side),
    second: impl Fn(&mut Side) + Send,
) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || second(b));
        first(a);
    });
    start.elapsed()
}

fn open(provider: &str, local: Option<&Local>) -> Box<dyn Fabric> {
    match provider.strip_suffix("+messages") {
        _ if provider == "shm" => shm::open().unwrap(),
        Some(provider) => libfabric::open(provider, local, Placement::Messages).unwrap(),
        None => libfabric::open(provider, local, Placement::Best).unwrap(),
    }
}

fn connected(provider: &str, local: Option<&Local>) -> (Side, Side) {
    let (mut a, mut b) = (open(provider, local), open(provider, local));
    b.accept(LINK, a.address(), 1).unwrap();
    let address = b.address().to_vec();
    a.connect(LINK, &address, 1).unwrap();
    let mut events = Vec::new();
    while events.iter().filter(|event| matches!(event, Event::Connected(_))).count() < 2 {
        a.poll(&mut events);
        b.poll(&mut events);
    }
    let (for_a, for_b) = (exported(&mut b), exported(&mut a));
    (side(a, for_a), side(b, for_b))
}

fn exported(fabric: &mut Box<dyn Fabric>) -> RemoteMemory {
    let memory = fabric.allocate(BYTES, Access::Remote).unwrap();
    fabric.remote(memory).unwrap()
}

fn side(mut fabric: Box<dyn Fabric>, target: RemoteMemory) -> Side {
    let source = fabric.allocate(BYTES, Access::Local).unwrap();
    Side { fabric, source, target, sleeps: false, events: Vec::new() }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let provider = arguments.next().unwrap_or_else(|| String::from("tcp"));
    let local = arguments.next().unwrap_or_else(|| String::from("127.0.0.1"));
    let (mut a, mut b) = connected(&provider, Some(&Local::from(local.as_str())));
    println!("{}: {:?}", a.fabric.name(), a.fabric.limits());
    for sleeps in [false, true] {
        if sleeps && a.fabric.wait_descriptor().is_none() {
            println!("cannot sleep");
            continue;
        }
        (a.sleeps, b.sleeps) = (sleeps, sleeps);
        let how = if sleeps { "sleeping" } else { "polling" };
        for (length, count) in [(64, 200_000), (4096, 100_000), (BYTES, 10_000)] {
            let took = both(&mut a, &mut b, |side| side.send(length, count), |side| side.receive(count));
            let rate = count as f64 / took.as_secs_f64();
            let bandwidth = rate * length as f64 * 8.0 / 1e9;
            println!("{how}: {length} B: {rate:.0} writes/s, {bandwidth:.2} Gbit/s");
        }
        for length in [64, 4096] {
            const ROUNDS: usize = 10_000;
            let took =
                both(&mut a, &mut b, |side| side.ping(length, ROUNDS), |side| side.pong(length, ROUNDS));
            println!("{how}: {length} B: round trip {:.1} us", took.as_secs_f64() * 1e6 / ROUNDS as f64);
        }
    }
}
