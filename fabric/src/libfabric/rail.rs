//! A rail over libfabric: its links and memory, and the [`Fabric`] that they make.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::bindings::*;
use super::core::Core;
use super::info::{Info, family};
use super::library::Library;
use super::memories::Memories;
use super::object::Object;
use super::port::Port;
use super::profile::Profile;
use super::wire::{Address, Greeting, Seen};
use crate::region::{Region, random};
use crate::{
    Access, Error, Event, Fabric, Foreign, Limits, LinkId, MemoryId, PostError, RemoteMemory, Write,
};

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepting; nobody has come.
    Waiting,
    /// Accepting; the peer has been answered.
    Answered,
    /// Connecting.
    Asking,
    Up,
    /// To be taken down at the next poll.
    Failed,
}

/// One link.
pub struct Link {
    pub stage: Stage,
    pub token: u64,
    /// What the peer's immediate data say.
    pub tag: u32,
    /// What this side's immediate data say.
    pub peer_tag: u32,
    /// There from the moment that it is known who the peer is.
    pub port: Option<Port>,
    /// The peer's number in the address vector.
    pub peer: u64,
    /// Numbers to take out of the address vector.
    pub numbers: Vec<u64>,
    /// Writes that are not reported.
    pub outstanding: usize,
    /// Since when the provider should have got on; nothing while all is well.
    pub stuck: Option<Instant>,
    /// How many links there had been before.
    serial: u64,
    /// Writes that have been sent as messages, counted round.
    pub sent: u16,
    /// Such writes that have come.
    pub seen: Seen,
}

impl Link {
    /// What is told the peer.
    pub fn greeting(&self) -> Greeting {
        Greeting { token: self.token, tag: self.tag }
    }
}

/// Where peers come to.
pub enum Listener {
    Passive(Object<fid_pep>),
    Port(Port),
}

/// The rail. Fields are dropped in this order.
pub struct Rail {
    pub links: HashMap<LinkId, Link>,
    pub listener: Listener,
    pub memories: Memories,
    /// Which link immediate data belong to.
    pub tags: HashMap<u32, LinkId>,
    /// Links that have failed outside of a poll.
    pub failed: Vec<(LinkId, String)>,
    /// Links that there have been.
    serial: u64,
    /// Polls since the event queue was read, which takes a system call with some providers.
    pub unnoticed: u32,
    pub core: Core,
    name: String,
    address: Vec<u8>,
}

impl Rail {
    /// Opens what the info offers.
    pub fn open(library: &'static Library, info: Info, messages: bool) -> Result<Rail, Error> {
        let profile = Profile::of(info.get(), messages);
        let mut name = format!("{} {}", profile.provider, info.get().domain_name());
        if let Some(address) = info.get().source_address() {
            name = format!("{name} {address}");
        }
        let mut core = Core::open(library, info, profile)?;
        let failed = |what| move |errno| library.error(what, errno);
        let (listener, own) = match &core.events {
            Some(events) => {
                let passive = core.fabric.passive_endpoint(&core.info).map_err(failed("fi_passive_ep"))?;
                passive.bind(events, 0).map_err(failed("fi_pep_bind"))?;
                passive.listen().map_err(failed("fi_listen"))?;
                let own = passive.name().map_err(failed("fi_getname"))?;
                (Listener::Passive(passive), own)
            }
            None => {
                let info = core.info.get().copy()?;
                let port = Port::open(&mut core, &info, None)?;
                let own = port.endpoint.name().map_err(failed("fi_getname"))?;
                (Listener::Port(port), own)
            }
        };
        core.profile.address_bytes = own.len();
        core.profile.family = family(&own);
        let Profile { ref provider, format, messages, .. } = core.profile;
        let address = Address { provider, format, messages, name: &own }.encode()?;
        let (links, memories, tags, failed, serial) = Default::default();
        Ok(Rail { links, listener, memories, tags, failed, serial, unnoticed: 0, core, name, address })
    }

    /// Reads a peer's address.
    fn decode<'a>(&self, address: &'a [u8]) -> Result<&'a [u8], Error> {
        let profile = &self.core.profile;
        let address = Address::decode(address)
            .ok_or_else(|| Error(String::from("the peer's address cannot be read")))?;
        if address.provider != profile.provider || address.messages != profile.messages {
            return Err(Error(format!("the peer's rail is of another kind ({})", address.provider)));
        }
        if address.format != profile.format || !profile.is_address(address.name) {
            return Err(Error(String::from("the peer's address is of another kind")));
        }
        Ok(address.name)
    }

    /// A new link under this number.
    fn add(&mut self, id: LinkId, stage: Stage, token: u64) -> Result<&mut Link, Error> {
        if self.links.contains_key(&id) {
            return Err(Error(format!("link {} is in use", id.0)));
        }
        let tag = loop {
            let tag = random() as u32;
            if !self.tags.contains_key(&tag) {
                break tag;
            }
        };
        self.tags.insert(tag, id);
        let serial = self.serial;
        self.serial += 1;
        let link = Link {
            stage,
            token,
            tag,
            peer_tag: 0,
            port: None,
            peer: FI_ADDR_UNSPEC,
            numbers: Vec::new(),
            outstanding: 0,
            stuck: None,
            serial,
            sent: 0,
            seen: Seen::default(),
        };
        Ok(self.links.entry(id).or_insert(link))
    }

    /// The link that waits for this token.
    pub fn waiting(&self, token: u64) -> Option<LinkId> {
        let of = |(id, link): (&LinkId, &Link)| {
            (link.stage == Stage::Waiting && link.token == token).then_some(*id)
        };
        self.links.iter().find_map(of)
    }

    /// Takes a link down.
    pub fn remove(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.remove(&id) else { return false };
        self.tags.remove(&link.tag);
        self.failed.retain(|(failed, _)| *failed != id);
        if let Some(port) = link.port {
            if self.core.profile.connected {
                port.endpoint.shutdown();
            }
            let queue = port.queue;
            drop(port);
            self.core.slots.bury(id);
            self.core.leave_queue(queue);
        }
        if let Some(addresses) = &self.core.addresses {
            link.numbers.into_iter().for_each(|number| addresses.remove(number));
        }
        self.prune();
        true
    }

    fn prune(&mut self) {
        let oldest = self.links.values().map(|link| link.serial).min();
        self.memories.prune(oldest);
    }

    /// Takes a link down and says so.
    pub fn fail(&mut self, id: LinkId, reason: impl Into<String>, events: &mut Vec<Event>) {
        if self.remove(id) {
            events.push(Event::Down { link: id, reason: reason.into() });
        }
    }

    /// Takes a link down because of a number of the library's.
    pub fn fail_with(&mut self, id: LinkId, what: &str, errno: i32, events: &mut Vec<Event>) {
        let reason = self.core.error(what, errno).0;
        self.fail(id, reason, events);
    }
}

impl Fabric for Rail {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        self.core.profile.limits
    }

    fn address(&self) -> &[u8] {
        &self.address
    }

    fn allocate(&mut self, bytes: usize, access: Access) -> Result<MemoryId, Error> {
        self.memories.add(&self.core, Region::new(bytes)?, access)
    }

    fn register(&mut self, memory: Arc<dyn Foreign>) -> Result<MemoryId, Error> {
        self.memories.add(&self.core, Region::foreign(memory)?, Access::Local)
    }

    fn release(&mut self, memory: MemoryId) {
        self.memories.remove(memory, self.serial);
        self.prune();
    }

    fn remote(&self, memory: MemoryId) -> Option<RemoteMemory> {
        self.memories.remote(memory)
    }

    fn read(&self, memory: MemoryId, offset: usize, into: &mut [u8]) -> bool {
        self.memories.get(memory).is_some_and(|memory| memory.region.read(offset, into))
    }

    fn local(&mut self, memory: MemoryId) -> Option<&mut [u8]> {
        self.memories.local(memory)
    }

    fn connect(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        let peer = self.decode(address)?;
        self.add(link, Stage::Asking, token)?;
        let begun = match self.core.profile.connected {
            true => self.begin_connection(link, peer),
            false => self.begin_handshake(link, peer),
        };
        if begun.is_err() {
            self.remove(link);
        }
        begun
    }

    fn accept(&mut self, link: LinkId, address: &[u8], token: u64) -> Result<(), Error> {
        self.decode(address)?;
        self.add(link, Stage::Waiting, token).map(drop)
    }

    fn disconnect(&mut self, link: LinkId) {
        self.say_bye(link);
        self.remove(link);
    }

    fn post(&mut self, link: LinkId, write: &Write<'_>) -> Result<(), PostError> {
        self.post_write(link, write)
    }

    fn poll(&mut self, events: &mut Vec<Event>) {
        self.progress(events);
    }

    fn wait_descriptor(&self) -> Option<RawFd> {
        self.core.descriptor()
    }

    fn may_sleep(&mut self) -> bool {
        if !self.failed.is_empty() {
            return false;
        }
        let behind = |port: &Port| port.is_behind();
        let mut alarm = matches!(&self.listener, Listener::Port(port) if behind(port));
        for link in self.links.values() {
            let unanswered = matches!(link.stage, Stage::Asking | Stage::Answered) || link.outstanding > 0;
            alarm |= link.stuck.is_some()
                || link.port.as_ref().is_some_and(behind)
                || (self.core.profile.timed && unanswered);
        }
        self.core.set_alarm(alarm);
        // The next poll has to hear what keeps this side awake, or has woken it.
        self.unnoticed = 0;
        self.core.try_wait()
    }
}

impl Drop for Rail {
    fn drop(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.disconnect(link));
    }
}
