//! A fabric inside one process, for tests: two rails that reach each other, and faults on demand.
//!
//! A write is carried out when it is posted, by the rule of the [`Faults`] of the side that posts it. Nothing depends
//! on time: with the same seed and the same calls, the same happens.

mod side;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use side::{Link, Side};

use crate::{
    Access, Error, Event, Fabric, Foreign, Limits, LinkId, MemoryId, PostError, RemoteMemory, Source, Write,
};

/// What goes wrong with the writes of one side. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Where the numbers come from that decide.
    pub seed: u64,
    /// One write in so many takes its link down; it and those posted after it are lost.
    pub drop: Option<NonZeroU32>,
    /// One write in so many takes its link down after a part of it is placed.
    pub short: Option<NonZeroU32>,
    /// One write in so many is reported twice to the peer.
    pub duplicate: Option<NonZeroU32>,
    /// Events come up to this many polls late.
    pub delay: u32,
    /// Arrivals are reported in another order. Only where [`Limits::ordered`] is false.
    pub reorder: bool,
}

/// Limits that ask little of a test: small, ordered, one-sided.
pub const LIMITS: Limits = Limits { write: 1 << 20, inject: 256, depth: 64, ordered: true, one_sided: true };

/// Two rails that reach each other, each with its faults.
///
/// # Errors
/// No descriptors.
pub fn pair(limits: Limits, faults: [Faults; 2]) -> Result<(Rail, Rail), Error> {
    let io = |error: std::io::Error| Error(format!("no descriptor to sleep on: {error}"));
    let (first, wakes_first) = UnixStream::pair().map_err(io)?;
    let (second, wakes_second) = UnixStream::pair().map_err(io)?;
    for stream in [&first, &wakes_first, &second, &wakes_second] {
        stream.set_nonblocking(true).map_err(io)?;
    }
    let sides = [wakes_first, wakes_second].map(|waker| Side {
        waker,
        gone: false,
        memories: HashMap::new(),
        links: HashMap::new(),
        happenings: VecDeque::new(),
        polls: 0,
    });
    let shared = Arc::new(Mutex::new(sides));
    let rail = |index, wake| Rail {
        shared: Arc::clone(&shared),
        index,
        wake,
        address: format!("memory:{index}"),
        limits,
        faults: faults[index],
        // Xorshift needs a state that is not zero.
        state: faults[index].seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1,
        sources: HashMap::new(),
        next: 0,
    };
    Ok((rail(0, first), rail(1, second)))
}

/// Where the bytes of writes come from.
enum Bytes {
    Own(Vec<u8>),
    Foreign(Arc<dyn Foreign>),
}

/// One of the two rails.
pub struct Rail {
    shared: Arc<Mutex<[Side; 2]>>,
    index: usize,
    wake: UnixStream,
    address: String,
    limits: Limits,
    faults: Faults,
    state: u64,
    sources: HashMap<MemoryId, Bytes>,
    next: u32,
}

/// What becomes of a write.
enum Fate {
    Whole { times: usize },
    Part(usize),
    Lost,
}

impl Rail {
    fn lock(shared: &Mutex<[Side; 2]>, index: usize) -> Both<'_> {
        Both { sides: shared.lock().unwrap_or_else(PoisonError::into_inner), index }
    }

    fn both(&self) -> Both<'_> {
        Self::lock(&self.shared, self.index)
    }

    fn below(&mut self, end: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        u32::try_from((self.state >> 16) % u64::from(end.max(1))).unwrap_or(0)
    }

    fn strikes(&mut self, one_in: Option<NonZeroU32>) -> bool {
        one_in.is_some_and(|one_in| self.below(one_in.get()) == 0)
    }

    fn fate(&mut self, length: usize) -> Fate {
        let Faults { drop, short, duplicate, .. } = self.faults;
        if self.strikes(drop) {
            return Fate::Lost;
        }
        if self.strikes(short) {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            return Fate::Part(self.below(length) as usize);
        }
        Fate::Whole { times: if self.strikes(duplicate) { 2 } else { 1 } }
    }

    fn late(&mut self) -> u32 {
        self.below(self.faults.delay.saturating_add(1))
    }

    fn add(&mut self, bytes: Option<Bytes>, access: Access, length: usize) -> MemoryId {
        let memory = MemoryId(self.next);
        self.next += 1;
        match (access, bytes) {
            (_, Some(bytes)) => drop(self.sources.insert(memory, bytes)),
            (Access::Local, None) => drop(self.sources.insert(memory, Bytes::Own(vec![0; length]))),
            (Access::Remote, None) => drop(self.both().own().memories.insert(memory, vec![0; length])),
        }
        memory
    }

    /// The bytes of a write; nothing when they are not inside the memory.
    fn bytes(&self, source: &Source<'_>) -> Option<Vec<u8>> {
        let (memory, offset, length) = match *source {
            Source::Bytes(bytes) => return Some(bytes.to_vec()),
            Source::Memory { memory, offset, length } => (memory, offset, length),
        };
        let end = offset.checked_add(length)?;
        match self.sources.get(&memory) {
            Some(Bytes::Own(bytes)) => bytes.get(offset..end).map(<[u8]>::to_vec),
            Some(Bytes::Foreign(memory)) => {
                let (base, bytes) = memory.range();
                // Through the file, a range that is gone is an error and not a crash.
                let mut copy = vec![0; length];
                let file = File::open("/proc/self/mem").ok().filter(|_| end <= bytes)?;
                file.read_exact_at(&mut copy, (base as usize + offset) as u64).ok().map(|()| copy)
            }
            None => self.both().own().memories.get(&memory)?.get(offset..end).map(<[u8]>::to_vec),
        }
    }

    fn new_link(&self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        if address != format!("memory:{}", 1 - self.index).as_bytes() {
            return Err(Error(String::from("the address is not that of the other rail")));
        }
        let mut both = self.both();
        if both.own().links.contains_key(&link) {
            return Err(Error(format!("link {} is in use", link.0)));
        }
        both.own().links.insert(link, Link { token, peer: None, outstanding: 0, lost: false });
        Ok(())
    }
}

/// Both sides, while nobody else sees them.
struct Both<'a> {
    sides: MutexGuard<'a, [Side; 2]>,
    index: usize,
}

impl Both<'_> {
    fn own(&mut self) -> &mut Side {
        &mut self.sides[self.index]
    }

    fn peer(&mut self) -> &mut Side {
        &mut self.sides[1 - self.index]
    }
}

impl Fabric for Rail {
    fn name(&self) -> &str {
        &self.address
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn address(&self) -> &[u8] {
        self.address.as_bytes()
    }

    fn allocate(&mut self, bytes: usize, access: Access) -> Result<MemoryId, Error> {
        if bytes == 0 {
            return Err(Error(String::from("memory of 0 bytes makes no sense")));
        }
        Ok(self.add(None, access, bytes))
    }

    fn register(&mut self, memory: Arc<dyn Foreign>) -> Result<MemoryId, Error> {
        let (_, bytes) = memory.range();
        Ok(self.add(Some(Bytes::Foreign(memory)), Access::Local, bytes))
    }

    fn release(&mut self, memory: MemoryId) {
        self.sources.remove(&memory);
        self.both().own().memories.remove(&memory);
    }

    fn remote(&self, memory: MemoryId) -> Option<RemoteMemory> {
        let bytes = self.both().own().memories.get(&memory)?.len() as u64;
        Some(RemoteMemory { key: u64::from(memory.0), base: 0, bytes })
    }

    fn read(&self, memory: MemoryId, offset: usize, into: &mut [u8]) -> bool {
        let source = Source::Memory { memory, offset, length: into.len() };
        let Some(bytes) = self.bytes(&source) else { return false };
        into.copy_from_slice(&bytes);
        true
    }

    fn local(&mut self, memory: MemoryId) -> Option<&mut [u8]> {
        match self.sources.get_mut(&memory)? {
            Bytes::Own(bytes) => Some(bytes),
            Bytes::Foreign(_) => None,
        }
    }

    fn connect(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        self.new_link(link, address, token)?;
        let mut both = self.both();
        let waits = |state: &Link| state.peer.is_none() && state.token == token && !state.lost;
        let found = both.peer().links.iter().find(|(_, state)| waits(state)).map(|(id, _)| *id);
        let Some(peer) = found.filter(|_| !both.peer().gone) else {
            both.own().lose(link, "the peer has refused");
            return Ok(());
        };
        if let Some(state) = both.own().links.get_mut(&link) {
            state.peer = Some(peer);
        }
        if let Some(state) = both.peer().links.get_mut(&peer) {
            state.peer = Some(link);
        }
        both.own().push(link, false, Some(Event::Connected(link)), 0, 0);
        both.peer().push(peer, false, Some(Event::Connected(peer)), 0, 0);
        Ok(())
    }

    fn accept(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        self.new_link(link, address, token)
    }

    fn disconnect(&mut self, link: LinkId) {
        let mut both = self.both();
        both.own().happenings.retain(|happening| happening.link != link);
        if let Some(Link { peer: Some(peer), lost: false, .. }) = both.own().links.remove(&link) {
            both.peer().lose(peer, "the peer has ended the link");
        }
    }

    fn post(&mut self, link: LinkId, write: &Write<'_>) -> Result<(), PostError> {
        let Limits { write: most, inject, depth, .. } = self.limits;
        let Some(bytes) = self.bytes(&write.source) else {
            return Err(PostError::Invalid("a source outside of its memory"));
        };
        let reported = matches!(write.source, Source::Memory { .. });
        if bytes.len() > if reported { most } else { inject } {
            return Err(PostError::Invalid("larger than a write can be"));
        }
        let end = write.offset.checked_add(bytes.len() as u64);
        let Some(end) = end.filter(|end| *end <= write.target.bytes) else {
            return Err(PostError::Invalid("a target outside of the peer's memory"));
        };
        let shared = Arc::clone(&self.shared);
        let mut both = Self::lock(&shared, self.index);
        let Some(state) = both.own().links.get_mut(&link) else { return Err(PostError::Down) };
        let Some(peer) = state.peer else { return Err(PostError::Down) };
        if state.outstanding >= depth {
            return Err(PostError::Full);
        }
        state.outstanding += 1;
        if state.lost {
            return Ok(());
        }
        let fate = self.fate(bytes.len());
        let range = usize::try_from(write.offset).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(0);
        let key = u32::try_from(write.target.key).map(MemoryId);
        let target = key.ok().and_then(|key| both.peer().memories.get_mut(&key));
        let Some(target) = target.and_then(|target| target.get_mut(range)) else {
            both.own().lose(link, "the peer does not know the target");
            both.peer().lose(peer, "the peer has written where it may not");
            return Ok(());
        };
        let (placed, times) = match fate {
            Fate::Whole { times } => (bytes.len(), times),
            Fate::Part(length) => (length, 0),
            Fate::Lost => (0, 0),
        };
        target[..placed].copy_from_slice(&bytes[..placed]);
        if times == 0 {
            both.own().lose(link, "a fault");
            both.peer().lose(peer, "a fault");
            return Ok(());
        }
        for immediate in std::iter::repeat_n(write.immediate, times).flatten() {
            let late = self.late();
            let back = match self.faults.reorder && !self.limits.ordered {
                true => self.below(both.peer().trailing_arrivals(peer).saturating_add(1)),
                false => 0,
            };
            let event = Event::Arrived { link: peer, immediate };
            both.peer().push(peer, false, Some(event), late, back as usize);
        }
        let late = self.late();
        let event = reported.then_some(Event::Written { link, context: write.context });
        both.own().push(link, true, event, late, 0);
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<Event>) {
        let mut both = self.both();
        let own = both.own();
        own.polls += 1;
        while own.happenings.front().is_some_and(|first| first.due <= own.polls) {
            let Some(happening) = own.happenings.pop_front() else { break };
            if let (true, Some(link)) = (happening.done, own.links.get_mut(&happening.link)) {
                link.outstanding = link.outstanding.saturating_sub(1);
            }
            if let Some(Event::Down { link, .. }) = &happening.event {
                own.links.remove(link);
            }
            events.extend(happening.event);
        }
    }

    fn wait_descriptor(&self) -> Option<RawFd> {
        Some(self.wake.as_raw_fd())
    }

    fn may_sleep(&mut self) -> bool {
        let mut drained = [0; 256];
        while self.wake.read(&mut drained).is_ok_and(|count| count > 0) {}
        self.both().own().happenings.is_empty()
    }
}

impl Drop for Rail {
    fn drop(&mut self) {
        let mut both = self.both();
        both.own().gone = true;
        let peers: Vec<_> = both.own().links.drain().filter_map(|(_, link)| link.peer).collect();
        for peer in peers {
            both.peer().lose(peer, "the peer is gone");
        }
    }
}
