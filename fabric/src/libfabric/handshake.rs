//! Links over endpoints that are not connected (FI_EP_RDM). Each link still has an endpoint of its own: closing it is
//! the only way to be sure that nothing which was outstanding on a link is carried out later, into memory that has
//! another use by then.
//!
//! The connecting side sends a hello from the new endpoint to that of the peer's rail, the accepting side answers from
//! a new one with a welcome, and is told with a confirm that it has arrived. With that, both know that both
//! directions work. A side that disconnects says bye; when it cannot any more, the peer's next write fails.

use std::time::{Duration, Instant};

use super::port::Port;
use super::rail::{Link, Listener, Rail, Stage};
use super::wire::{Greeting, Header, Kind};
use crate::{Error, Event, LinkId};

/// How long a handshake may take, and how long a provider may find no room for a write where none is outstanding: some
/// go on trying to reach a peer that is not there for as long as they are asked to.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rail {
    /// Takes down links that get nowhere.
    pub fn lose_patience(&mut self, events: &mut Vec<Event>) {
        let is_stuck = |link: &Link| link.stuck.is_some_and(|since| since.elapsed() > PATIENCE);
        let stuck: Vec<_> = self.links.iter().filter(|(_, link)| is_stuck(link)).map(|(id, _)| *id).collect();
        for link in stuck {
            self.fail(link, "the peer cannot be reached", events);
        }
    }

    /// Tells the peer that the link ends, if that is possible at once; else the peer notices when it writes.
    pub fn say_bye(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let greeting = link.greeting();
        if let (Some(port), Some(_), Stage::Up) = (&mut link.port, &self.core.addresses, link.stage) {
            let _: Result<(), i32> = port.control(&mut self.core, link.peer, Kind::Bye, greeting, &[]);
        }
    }

    /// Begins to connect to the rail at `name`.
    pub fn begin_handshake(&mut self, id: LinkId, name: &[u8]) -> Result<(), Error> {
        let info = self.core.info.get().copy()?;
        let port = Port::open(&mut self.core, &info, Some(id))?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let greeting = link.greeting();
        let port = link.port.insert(port);
        let library = self.core.library;
        let own = port.endpoint.name().map_err(|errno| library.error("fi_getname", errno))?;
        let Some(addresses) = &self.core.addresses else { return Ok(()) };
        let number = addresses.insert(name).map_err(|errno| library.error("fi_av_insert", errno))?;
        link.numbers.push(number);
        link.stuck = Some(Instant::now());
        let sent = port.control(&mut self.core, number, Kind::Hello, greeting, &own);
        sent.map_err(|errno| library.error("fi_send", errno))
    }

    /// A message for the rail's own endpoint: a hello, or nonsense.
    pub fn message_for_rail(&mut self, buffer: u16, length: usize, events: &mut Vec<Event>) {
        let Listener::Port(port) = &self.listener else { return };
        if let (Some(header), Some((region, start))) = (port.received(buffer, length), port.body(buffer)) {
            let mut body = vec![0; header.length as usize];
            region.read(start, &mut body);
            if header.kind == Kind::Hello && self.core.profile.is_address(&body) {
                self.hello(Greeting { token: header.key, tag: header.tag }, &body, events);
            }
        }
        if let Listener::Port(port) = &mut self.listener {
            // What cannot be posted now is at the next poll.
            let _: Result<(), i32> = port.recycle(&mut self.core, buffer);
        }
    }

    fn hello(&mut self, greeting: Greeting, name: &[u8], events: &mut Vec<Event>) {
        /// Refusals that wait to be sent.
        const REFUSALS: usize = 64;
        let too_many = matches!(&self.listener, Listener::Port(port) if port.queued() >= REFUSALS);
        if too_many && self.waiting(greeting.token).is_none() {
            return;
        }
        let Some(addresses) = &self.core.addresses else { return };
        let Ok(number) = addresses.insert(name) else { return };
        match self.waiting(greeting.token) {
            Some(id) => {
                if let Err(Error(reason)) = self.welcome(id, number, greeting) {
                    self.fail(id, reason, events);
                }
            }
            None => {
                // The number stays in the address vector: providers may need it after the message is on its way.
                if let Listener::Port(port) = &mut self.listener {
                    let _: Result<(), i32> =
                        port.control(&mut self.core, number, Kind::Refuse, greeting, &[]);
                }
            }
        }
    }

    fn welcome(&mut self, id: LinkId, number: u64, greeting: Greeting) -> Result<(), Error> {
        let info = self.core.info.get().copy()?;
        let port = Port::open(&mut self.core, &info, Some(id))?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.numbers.push(number);
        link.stuck = Some(Instant::now());
        (link.peer, link.peer_tag, link.stage) = (number, greeting.tag, Stage::Answered);
        let own = link.greeting();
        let port = link.port.insert(port);
        let library = self.core.library;
        let name = port.endpoint.name().map_err(|errno| library.error("fi_getname", errno))?;
        let sent = port.control(&mut self.core, number, Kind::Welcome, own, &name);
        sent.map_err(|errno| library.error("fi_send", errno))
    }

    /// A message of the handshake for a link.
    pub fn handshake(&mut self, id: LinkId, header: &Header, body: &[u8], events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if header.key != link.token {
            // Not of this link, though it has got here: an endpoint's address may be used again.
            return;
        }
        match (header.kind, link.stage) {
            (Kind::Welcome, Stage::Asking) => {
                let (Some(port), Some(addresses)) = (&mut link.port, &self.core.addresses) else { return };
                if !self.core.profile.is_address(body) {
                    self.fail(id, "the peer's address is of another kind", events);
                    return;
                }
                let number = match addresses.insert(body) {
                    Ok(number) => number,
                    Err(errno) => {
                        self.fail_with(id, "fi_av_insert", errno, events);
                        return;
                    }
                };
                link.numbers.push(number);
                (link.peer, link.peer_tag, link.stage) = (number, header.tag, Stage::Up);
                link.stuck = None;
                let own = Greeting { token: link.token, tag: link.tag };
                match port.control(&mut self.core, number, Kind::Confirm, own, &[]) {
                    Ok(()) => events.push(Event::Connected(id)),
                    Err(errno) => self.fail_with(id, "fi_send", errno, events),
                }
            }
            (Kind::Confirm, Stage::Answered) => {
                (link.stage, link.stuck) = (Stage::Up, None);
                events.push(Event::Connected(id));
            }
            (Kind::Refuse, Stage::Asking) => self.fail(id, "the peer has refused", events),
            (Kind::Bye, _) => self.fail(id, "the peer has ended the link", events),
            _ => {}
        }
    }
}
