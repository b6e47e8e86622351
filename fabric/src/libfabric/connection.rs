//! Links whose endpoints the provider connects (FI_EP_MSG): the greeting goes as connection data.

use super::bindings::fid;
use super::endpoint::Notice;
use super::info::Info;
use super::port::Port;
use super::rail::{Listener, Rail, Stage};
use super::wire::Greeting;
use crate::{Error, Event, LinkId};

impl Rail {
    /// Begins to connect to the peer at `name`.
    pub fn begin_connection(&mut self, id: LinkId, name: &[u8]) -> Result<(), Error> {
        let info = self.core.info.towards(name)?;
        let port = Port::open(&mut self.core, &info, Some(id))?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let greeting = link.greeting().encode();
        let port = link.port.insert(port);
        port.endpoint.connect(name, &greeting).map_err(|errno| self.core.error("fi_connect", errno))
    }

    /// Reads the event queue.
    pub fn read_notices(&mut self, events: &mut Vec<Event>) {
        /// Notices read in one poll.
        const MOST: usize = 64;
        for _ in 0..MOST {
            let Some(queue) = &self.core.events else { return };
            match queue.next(self.core.library) {
                Ok(Some(Notice::Request(info, data))) => self.requested(&info, &data),
                Ok(Some(Notice::Connected(endpoint, data))) => self.connected(endpoint, &data, events),
                Ok(Some(Notice::Shutdown(endpoint))) => {
                    if let Some(link) = self.link_of(endpoint) {
                        self.fail(link, "the peer has ended the connection", events);
                    }
                }
                Ok(Some(Notice::Failed(endpoint, errno))) => {
                    if let Some(link) = self.link_of(endpoint) {
                        self.fail_with(link, "the connection has failed", errno, events);
                    }
                }
                Ok(Some(Notice::Other)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn link_of(&self, endpoint: *mut fid) -> Option<LinkId> {
        let is_it = |port: &Port| port.endpoint.fid() == endpoint;
        let found = self.links.iter().find(|(_, link)| link.port.as_ref().is_some_and(is_it));
        found.map(|(id, _)| *id)
    }

    /// A peer wants to connect. One whose token nobody waits for is refused.
    fn requested(&mut self, request: &Info, data: &[u8]) {
        let wanted = Greeting::decode(data)
            .and_then(|greeting| self.waiting(greeting.token).map(|link| (link, greeting)));
        let answered = wanted.is_some_and(|(id, greeting)| self.answer(id, request, greeting).is_ok());
        if let (false, Listener::Passive(passive)) = (answered, &self.listener) {
            passive.reject(request);
        }
    }

    /// Accepts the peer; when that fails the link goes on waiting.
    fn answer(&mut self, id: LinkId, request: &Info, greeting: Greeting) -> Result<(), Error> {
        let port = Port::open(&mut self.core, request, Some(id))?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let own = link.greeting().encode();
        if let Err(errno) = port.endpoint.accept(&own) {
            let queue = port.queue;
            drop(port);
            self.core.slots.bury(id);
            self.core.leave_queue(queue);
            return Err(self.core.error("fi_accept", errno));
        }
        link.port = Some(port);
        link.peer_tag = greeting.tag;
        link.stage = Stage::Answered;
        Ok(())
    }

    fn connected(&mut self, endpoint: *mut fid, data: &[u8], events: &mut Vec<Event>) {
        let Some(id) = self.link_of(endpoint) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.stage {
            Stage::Asking => match Greeting::decode(data).filter(|greeting| greeting.token == link.token) {
                Some(greeting) => link.peer_tag = greeting.tag,
                None => {
                    self.fail(id, "the peer has answered with another token", events);
                    return;
                }
            },
            Stage::Answered => {}
            Stage::Waiting | Stage::Up | Stage::Failed => return,
        }
        link.stage = Stage::Up;
        events.push(Event::Connected(id));
    }
}
