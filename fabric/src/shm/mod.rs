//! A fabric between processes of one host: writes are copies into memory that the peer has passed over.
//!
//! A rail listens on a Unix socket with a name of its own. A link is a connection to it, which carries descriptors: the
//! memory of the link, all memory that peers may write to, and what wakes the other side. Only
//! processes of the same user, or root's, are talked to. When a side closes its end, the other notices at once.

mod channel;
mod link;
mod ring;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::region::{Region, random};
use crate::{
    Access, Error, Event, Fabric, Foreign, Limits, LinkId, MemoryId, PostError, RemoteMemory, Source, Write,
};
use channel::{Channel, Message, Received, listen, owned};
use link::Link;
use ring::{CAPACITY, Ring, sealed_file};

/// What a rail's address begins with.
const PREFIX: &[u8] = b"convoy-fabric-";
/// Connections that have not said yet what they are for.
const STRANGERS: usize = 64;

const LIMITS: Limits =
    Limits { write: 1 << 30, inject: 64 << 10, depth: CAPACITY as usize, ordered: true, one_sided: true };

/// Memory of this side; with a file and a key if it is for peers.
struct Memory {
    region: Region,
    exported: Option<(OwnedFd, u64)>,
}

/// Opens a rail. The address is good on this host, in this network namespace.
///
/// # Errors
/// No descriptors.
pub fn open() -> Result<Box<dyn Fabric>, Error> {
    let name = [PREFIX, format!("{:016x}{:016x}", random(), random()).as_bytes()].concat();
    let listener = listen(&name)?;
    let failed = || Error(format!("no descriptor to sleep on: {}", std::io::Error::last_os_error()));
    // SAFETY: makes a descriptor.
    let waker = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    // SAFETY: makes a descriptor.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let (waker, epoll) = (owned(waker).ok_or_else(failed)?, owned(epoll).ok_or_else(failed)?);
    let (links, strangers, memories, failed_links) = Default::default();
    let rail =
        Rail { links, strangers, memories, failed: failed_links, next: 0, name, listener, waker, epoll };
    if !(rail.watch(rail.listener.as_raw_fd()) && rail.watch(rail.waker.as_raw_fd())) {
        return Err(failed());
    }
    Ok(Box::new(rail))
}

struct Rail {
    links: HashMap<LinkId, Link>,
    strangers: Vec<Channel>,
    memories: HashMap<MemoryId, Memory>,
    /// Links that have failed outside of a poll.
    failed: Vec<(LinkId, &'static str)>,
    next: u32,
    name: Vec<u8>,
    listener: OwnedFd,
    waker: OwnedFd,
    epoll: OwnedFd,
}

impl Rail {
    fn watch(&self, descriptor: RawFd) -> bool {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the event is read during the call.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, descriptor, &mut event) == 0 }
    }

    fn exports(&self) -> Vec<(u64, u64, RawFd)> {
        let of = |memory: &Memory| {
            let (file, key) = memory.exported.as_ref()?;
            Some((*key, memory.region.bytes() as u64, file.as_raw_fd()))
        };
        self.memories.values().filter_map(of).collect()
    }

    fn add_link(&mut self, id: LinkId, link: Link) -> Result<(), Error> {
        if self.links.contains_key(&id) {
            return Err(Error(format!("link {} is in use", id.0)));
        }
        self.links.insert(id, link);
        Ok(())
    }

    fn fail(&mut self, link: LinkId, reason: &str, events: &mut Vec<Event>) {
        if self.links.remove(&link).is_some() {
            events.push(Event::Down { link, reason: reason.to_owned() });
        }
    }

    /// Looks at who has connected and what they want.
    fn welcome_strangers(&mut self, events: &mut Vec<Event>) {
        while self.strangers.len() < STRANGERS {
            match Channel::accept(&self.listener) {
                Some(Some(channel)) if self.watch(channel.descriptor()) => self.strangers.push(channel),
                Some(_) => {}
                None => break,
            }
        }
        for channel in std::mem::take(&mut self.strangers) {
            match channel.receive() {
                Received::Nothing => self.strangers.push(channel),
                Received::Message(Message::Hello { token }, descriptors) => {
                    let waits = |(_, link): &(&LinkId, &mut Link)| link.waits_for(token);
                    let exports = self.exports();
                    let waker = self.waker.as_raw_fd();
                    let Some((id, link)) = self.links.iter_mut().find(waits) else { continue };
                    if link.answer(channel, descriptors, waker, &exports) {
                        events.push(Event::Connected(*id));
                    }
                }
                // Closing the channel is the refusal.
                Received::Message(..) | Received::End => {}
            }
        }
    }
}

impl Fabric for Rail {
    fn name(&self) -> &str {
        "shared memory"
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn address(&self) -> &[u8] {
        &self.name
    }

    fn allocate(&mut self, bytes: usize, access: Access) -> Result<MemoryId, Error> {
        let memory = match access {
            Access::Local => Memory { region: Region::new(bytes)?, exported: None },
            Access::Remote => {
                if bytes == 0 {
                    return Err(Error(String::from("memory of 0 bytes makes no sense")));
                }
                let file = sealed_file(bytes)?;
                let region = Region::of_file(file.as_fd(), bytes)?;
                let key = random();
                for link in self.links.values_mut() {
                    link.export(key, bytes as u64, file.as_raw_fd());
                }
                Memory { region, exported: Some((file, key)) }
            }
        };
        let id = MemoryId(self.next);
        self.next += 1;
        self.memories.insert(id, memory);
        Ok(id)
    }

    fn register(&mut self, memory: Arc<dyn Foreign>) -> Result<MemoryId, Error> {
        let region = Region::foreign(memory)?;
        let id = MemoryId(self.next);
        self.next += 1;
        self.memories.insert(id, Memory { region, exported: None });
        Ok(id)
    }

    fn release(&mut self, memory: MemoryId) {
        if let Some(Memory { exported: Some((_, key)), .. }) = self.memories.remove(&memory) {
            self.links.values_mut().for_each(|link| link.forget(key));
        }
    }

    fn remote(&self, memory: MemoryId) -> Option<RemoteMemory> {
        let memory = self.memories.get(&memory)?;
        let (_, key) = memory.exported.as_ref()?;
        Some(RemoteMemory { key: *key, base: 0, bytes: memory.region.bytes() as u64 })
    }

    fn read(&self, memory: MemoryId, offset: usize, into: &mut [u8]) -> bool {
        self.memories.get(&memory).is_some_and(|memory| memory.region.read(offset, into))
    }

    fn local(&mut self, memory: MemoryId) -> Option<&mut [u8]> {
        let memory = self.memories.get_mut(&memory).filter(|memory| memory.exported.is_none())?;
        memory.region.as_mut_slice()
    }

    fn connect(&mut self, id: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        if !address.starts_with(PREFIX) || address.len() != self.name.len() {
            return Err(Error(String::from("the peer's address is of another kind")));
        }
        let channel = Channel::connect(address)?;
        let (ring, file) = Ring::create()?;
        let descriptors = [file.as_raw_fd(), self.waker.as_raw_fd()];
        if !(channel.send(Message::Hello { token }, &descriptors) && self.watch(channel.descriptor())) {
            return Err(Error(String::from("the peer is gone")));
        }
        let exports = self.exports();
        self.add_link(id, Link::asking(channel, ring, &exports))
    }

    fn accept(&mut self, id: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        if !address.starts_with(PREFIX) {
            return Err(Error(String::from("the peer's address is of another kind")));
        }
        self.add_link(id, Link::waiting(token))
    }

    fn disconnect(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.failed.retain(|(failed, _)| *failed != link);
    }

    fn post(&mut self, id: LinkId, write: &Write<'_>) -> Result<(), PostError> {
        let Some(link) = self.links.get_mut(&id) else { return Err(PostError::Down) };
        let posted = match write.source {
            Source::Bytes(bytes) => {
                if bytes.len() > LIMITS.inject {
                    return Err(PostError::Invalid("more bytes than can be injected"));
                }
                // SAFETY: the slice outlives the region, which is only read.
                let region = unsafe { Region::borrowed(bytes.as_ptr(), bytes.len()) };
                let region = region.ok_or(PostError::Invalid("no bytes"))?;
                link.post(write, &region, 0, bytes.len(), false)
            }
            Source::Memory { memory, offset, length } => {
                let memory = self.memories.get(&memory).ok_or(PostError::Invalid("no such memory"))?;
                if memory.region.part(offset, length).is_none() {
                    return Err(PostError::Invalid("a source outside of its memory"));
                }
                link.post(write, &memory.region, offset, length, true)
            }
        };
        posted.or_else(|refused| match refused {
            link::Refused::Error(error) => Err(error),
            link::Refused::Broken(reason) => {
                self.failed.push((id, reason));
                Ok(())
            }
        })
    }

    fn poll(&mut self, events: &mut Vec<Event>) {
        let mut count = 0_u64;
        // SAFETY: eight bytes, as an eventfd has.
        unsafe { libc::read(self.waker.as_raw_fd(), (&raw mut count).cast(), 8) };
        for (link, reason) in std::mem::take(&mut self.failed) {
            self.fail(link, reason, events);
        }
        self.welcome_strangers(events);
        let mut ended = Vec::new();
        for (id, link) in &mut self.links {
            if let Err(reason) = link.poll(*id, events) {
                ended.push((*id, reason));
            }
        }
        for (link, reason) in ended {
            self.fail(link, reason, events);
        }
    }

    fn wait_descriptor(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }

    fn may_sleep(&mut self) -> bool {
        let mut idle = self.failed.is_empty();
        for link in self.links.values() {
            idle &= link.may_sleep();
        }
        idle
    }
}
