//! Two rails and what has happened on them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use convoy_fabric::{Access, Event, Fabric, LinkId, MemoryId, PostError, RemoteMemory, Source, Write};

/// How long a condition may take.
const WATCHDOG: Duration = Duration::from_secs(60);

/// One rail, and its events sorted by kind.
pub struct Side {
    pub fabric: Box<dyn Fabric>,
    pub connected: Vec<LinkId>,
    pub written: HashMap<LinkId, Vec<u64>>,
    pub arrived: HashMap<LinkId, Vec<u32>>,
    pub down: HashMap<LinkId, Vec<String>>,
}

impl Side {
    fn new(fabric: Box<dyn Fabric>) -> Side {
        let (connected, written, arrived, down) = Default::default();
        Side { fabric, connected, written, arrived, down }
    }

    pub fn poll(&mut self) {
        let mut events = Vec::new();
        self.fabric.poll(&mut events);
        for event in events {
            match event {
                Event::Connected(link) => self.connected.push(link),
                Event::Written { link, context } => self.written.entry(link).or_default().push(context),
                Event::Arrived { link, immediate } => {
                    assert!(self.connected.contains(&link), "a write before the connection");
                    self.arrived.entry(link).or_default().push(immediate);
                }
                Event::Down { link, reason } => self.down.entry(link).or_default().push(reason),
            }
        }
    }

    pub fn written(&self, link: LinkId) -> usize {
        self.written.get(&link).map_or(0, Vec::len)
    }

    pub fn arrived(&self, link: LinkId) -> &[u32] {
        self.arrived.get(&link).map_or(&[], Vec::as_slice)
    }

    pub fn is_down(&self, link: LinkId) -> bool {
        self.down.contains_key(&link)
    }

    /// Memory for the peer, and how it is named.
    pub fn exported(&mut self, bytes: usize) -> (MemoryId, RemoteMemory) {
        let memory = self.fabric.allocate(bytes, Access::Remote).unwrap();
        (memory, self.fabric.remote(memory).unwrap())
    }

    /// Memory with these contents to write from.
    pub fn source(&mut self, contents: &[u8]) -> MemoryId {
        let memory = self.fabric.allocate(contents.len(), Access::Local).unwrap();
        self.fabric.local(memory).unwrap().copy_from_slice(contents);
        memory
    }

    pub fn contents(&self, memory: MemoryId, bytes: usize) -> Vec<u8> {
        let mut contents = vec![0xee; bytes];
        assert!(self.fabric.read(memory, 0, &mut contents));
        contents
    }
}

/// Both ends.
pub struct Pair {
    pub a: Side,
    pub b: Side,
    next: u32,
}

impl Pair {
    pub fn new(a: Box<dyn Fabric>, b: Box<dyn Fabric>) -> Pair {
        Pair { a: Side::new(a), b: Side::new(b), next: 1 }
    }

    /// Whether the provider tells soon of what cannot be delivered. ofi_rxd repeats it for minutes.
    pub fn tells_soon(&self) -> bool {
        !self.a.fabric.name().starts_with("udp;ofi_rxd")
    }

    pub fn swapped(&mut self) {
        std::mem::swap(&mut self.a, &mut self.b);
    }

    /// Polls both until something holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Pair) -> bool) {
        let end = Instant::now() + WATCHDOG;
        loop {
            self.a.poll();
            self.b.poll();
            if holds(self) {
                return;
            }
            assert!(
                Instant::now() < end,
                "never: {what}; down: {:?} and {:?}; written: {:?}",
                self.a.down,
                self.b.down,
                self.a.written
            );
            std::thread::yield_now();
        }
    }

    /// A link that `a` has made to `b`, under the same number.
    pub fn link(&mut self) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        self.begin(link, link);
        self.until("the link is connected", |pair| {
            pair.a.connected.contains(&link) && pair.b.connected.contains(&link)
        });
        link
    }

    /// Lets `a` connect to `b`.
    pub fn begin(&mut self, from: LinkId, to: LinkId) {
        let token = 0x1234_5678_9abc_def0 ^ u64::from(from.0) << 32 ^ u64::from(to.0);
        let (here, there) = (self.a.fabric.address().to_vec(), self.b.fabric.address().to_vec());
        self.b.fabric.accept(to, &here, token).unwrap();
        self.a.fabric.connect(from, &there, token).unwrap();
    }

    /// Posts from `a`, polling while there is no room.
    pub fn post(&mut self, link: LinkId, write: &Write<'_>) {
        self.until("there is room for a write", |pair| match pair.a.fabric.post(link, write) {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("{error:?}; down: {:?}", pair.a.down),
        });
    }
}

/// A write of a part of registered memory.
pub fn write(
    memory: MemoryId,
    from: std::ops::Range<usize>,
    target: RemoteMemory,
    offset: usize,
    immediate: Option<u32>,
) -> Write<'static> {
    let source = Source::Memory { memory, offset: from.start, length: from.len() };
    Write { source, target, offset: offset as u64, immediate, context: from.start as u64, more: false }
}

/// Numbers that look random, the same every time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
