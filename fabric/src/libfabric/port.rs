//! An endpoint with the buffers for its messages.

use std::ptr::null_mut;

use super::bindings::*;
use super::core::Core;
use super::endpoint::Operation;
use super::info::Info;
use super::object::Object;
use super::slots::{Sent, Use};
use super::wire::{Greeting, Header, Kind};
use crate::region::Region;
use crate::{Error, LinkId};

/// Buffers of equal size, first those to receive into, then those to send from.
struct Buffers {
    registration: Option<Object<fid_mr>>,
    region: Region,
    stride: usize,
    free: Vec<u16>,
}

/// What follows a header.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    Bytes(&'a [u8]),
    Part(&'a Region, usize, usize),
}

/// A message that waits for room.
struct Queued {
    message: Vec<u8>,
    peer: u64,
}

/// An endpoint, of a link or of the rail itself. Fields are dropped in this order.
pub struct Port {
    pub endpoint: Object<fid_ep>,
    pub queue: usize,
    owner: Option<LinkId>,
    buffers: Option<Buffers>,
    /// Receive buffers that could not be posted.
    unposted: Vec<u16>,
    queued: Vec<Queued>,
}

/// Why a message was not sent.
pub enum SendError {
    Full,
    Failed(i32),
}

impl Port {
    /// Makes and enables an endpoint, and posts its receives.
    pub fn open(core: &mut Core, info: &Info, owner: Option<LinkId>) -> Result<Port, Error> {
        let queue = core.queue_for(owner)?;
        match Self::open_on(core, info, owner, queue) {
            Ok(port) => Ok(port),
            Err(error) => {
                if let Some(link) = owner {
                    core.slots.bury(link);
                }
                core.leave_queue(queue);
                Err(error)
            }
        }
    }

    fn open_on(core: &mut Core, info: &Info, owner: Option<LinkId>, queue: usize) -> Result<Port, Error> {
        let library = core.library;
        let failed = |what| move |errno| library.error(what, errno);
        let endpoint = core.domain.endpoint(info).map_err(failed("fi_endpoint"))?;
        if let Some(events) = &core.events {
            endpoint.bind(events, 0).map_err(failed("fi_ep_bind"))?;
        }
        if let Some(addresses) = &core.addresses {
            endpoint.bind(addresses, 0).map_err(failed("fi_ep_bind"))?;
        }
        if let Some(Some(queue)) = core.queues.get(queue) {
            endpoint.bind(&queue.cq, FI_TRANSMIT | FI_RECV).map_err(failed("fi_ep_bind"))?;
        }
        endpoint.enable().map_err(failed("fi_enable"))?;
        let buffers = Buffers::new(core, &endpoint)?;
        let unposted = match &buffers {
            Some(_) => (0..index(core.profile.receives)).collect(),
            None => Vec::new(),
        };
        let mut port = Port { endpoint, queue, owner, buffers, unposted, queued: Vec::new() };
        port.refill(core).map_err(failed("fi_recv"))?;
        Ok(port)
    }

    /// Posts the receives that are not.
    fn refill(&mut self, core: &mut Core) -> Result<(), i32> {
        let Some(buffers) = &self.buffers else { return Ok(()) };
        while let Some(&buffer) = self.unposted.last() {
            let what = Use::Receive { port: self.owner, buffer };
            let Some((slot, context)) = core.slots.take(what) else { return Ok(()) };
            let operation = buffers.operation(buffer, buffers.stride, FI_ADDR_UNSPEC, context);
            // SAFETY: the buffer is used for this receive only, until it is reported. Buffers and slots outlive the
            // endpoint.
            match unsafe { self.endpoint.receive(&operation) } {
                Ok(()) => drop(self.unposted.pop()),
                Err(errno) => {
                    core.slots.give_back(slot);
                    return if errno == libc::EAGAIN { Ok(()) } else { Err(errno) };
                }
            }
        }
        Ok(())
    }

    /// A message has come into a receive buffer: its header, if it is one. The body is to be read with
    /// [`Port::body`].
    pub fn received(&self, buffer: u16, length: usize) -> Option<Header> {
        let buffers = self.buffers.as_ref()?;
        let mut bytes = [0; Header::BYTES];
        buffers.region.read(usize::from(buffer) * buffers.stride, &mut bytes).then_some(())?;
        let header = Header::decode(&bytes)?;
        let end = Header::BYTES.checked_add(usize::try_from(header.length).ok()?)?;
        (end <= length.min(buffers.stride)).then_some(header)
    }

    /// Where the body of a message in a receive buffer is.
    pub fn body(&self, buffer: u16) -> Option<(&Region, usize)> {
        let buffers = self.buffers.as_ref()?;
        Some((&buffers.region, usize::from(buffer) * buffers.stride + Header::BYTES))
    }

    /// The receive buffer is done with.
    pub fn recycle(&mut self, core: &mut Core, buffer: u16) -> Result<(), i32> {
        self.unposted.push(buffer);
        self.refill(core)
    }

    /// The send buffer is done with.
    pub fn sent(&mut self, buffer: u16) {
        if let Some(buffers) = &mut self.buffers {
            buffers.free.push(buffer);
        }
    }

    /// Sends a message.
    pub fn send(
        &mut self,
        core: &mut Core,
        peer: u64,
        header: &[u8],
        body: Body<'_>,
        sent: Sent,
    ) -> Result<(), SendError> {
        let Some(buffers) = &mut self.buffers else { return Err(SendError::Failed(libc::ENOSYS)) };
        let Some(&buffer) = buffers.free.last() else { return Err(SendError::Full) };
        let start = usize::from(buffer) * buffers.stride;
        let (fits, length) = match body {
            Body::Bytes(bytes) => (buffers.region.write(start + header.len(), bytes), bytes.len()),
            Body::Part(region, offset, length) => {
                (buffers.region.write_from(start + header.len(), region, offset, length), length)
            }
        };
        let length = header.len() + length;
        if !fits || length > buffers.stride || !buffers.region.write(start, header) {
            return Err(SendError::Failed(libc::EMSGSIZE));
        }
        let what = Use::Send { port: self.owner, buffer, sent };
        let Some((slot, context)) = core.slots.take(what) else { return Err(SendError::Full) };
        let operation = buffers.operation(buffer, length, peer, context);
        // SAFETY: the buffer was free, and is taken until the send is reported. Buffers and slots outlive the endpoint.
        match unsafe { self.endpoint.send(&operation) } {
            Ok(()) => {
                buffers.free.pop();
                Ok(())
            }
            Err(errno) => {
                core.slots.give_back(slot);
                Err(if errno == libc::EAGAIN { SendError::Full } else { SendError::Failed(errno) })
            }
        }
    }

    /// Sends a message of the handshake, later if there is no room now.
    pub fn control(
        &mut self,
        core: &mut Core,
        peer: u64,
        kind: Kind,
        greeting: Greeting,
        body: &[u8],
    ) -> Result<(), i32> {
        let mut message = Header::control(kind, greeting, body.len()).encode().to_vec();
        message.extend_from_slice(body);
        self.queued.push(Queued { message, peer });
        self.flush(core)
    }

    /// Sends what waits.
    fn flush(&mut self, core: &mut Core) -> Result<(), i32> {
        // One that a peer takes no notice of does not hold up the others.
        for Queued { message, peer } in std::mem::take(&mut self.queued) {
            match self.send(core, peer, &message, Body::Bytes(&[]), Sent { write: false, context: None }) {
                Ok(()) => {}
                Err(SendError::Full) => self.queued.push(Queued { message, peer }),
                Err(SendError::Failed(errno)) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Messages that wait for room.
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Whether something could not be posted.
    pub fn is_behind(&self) -> bool {
        !self.unposted.is_empty() || !self.queued.is_empty()
    }

    /// Tries again what could not be posted.
    pub fn catch_up(&mut self, core: &mut Core) -> Result<(), i32> {
        self.refill(core)?;
        self.flush(core)
    }
}

fn index(buffer: usize) -> u16 {
    u16::try_from(buffer).unwrap_or(u16::MAX)
}

impl Buffers {
    fn new(core: &Core, endpoint: &Object<fid_ep>) -> Result<Option<Buffers>, Error> {
        let profile = &core.profile;
        let count = profile.receives + profile.sends;
        if count == 0 {
            return Ok(None);
        }
        let region = Region::new(count * profile.stride)?;
        let mut registration = None;
        if profile.local_keys {
            let (key, access) = (crate::region::random() & profile.key_mask, FI_SEND | FI_RECV);
            // SAFETY: the region is dropped after the registration.
            let made = unsafe { core.domain.register(region.base(), region.bytes(), access, key) };
            let made = made.map_err(|errno| core.error("fi_mr_reg", errno))?;
            if profile.endpoint_keys {
                let bound = made.bind(endpoint, 0).and_then(|()| made.enable());
                bound.map_err(|errno| core.error("fi_mr_bind", errno))?;
            }
            registration = Some(made);
        }
        let free = (index(profile.receives)..index(count)).collect();
        Ok(Some(Buffers { registration, region, stride: profile.stride, free }))
    }

    fn operation(&self, buffer: u16, length: usize, peer: u64, context: *mut std::ffi::c_void) -> Operation {
        let at = self.region.part(usize::from(buffer) * self.stride, length);
        Operation {
            buffer: at.unwrap_or(null_mut()),
            length: if at.is_some() { length } else { 0 },
            descriptor: self.registration.as_ref().map_or(null_mut(), Object::descriptor_word),
            peer,
            context,
        }
    }
}
