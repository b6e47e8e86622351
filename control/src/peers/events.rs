//! What the service tells, and the queue it comes out of. Not here: when it is told (`shared`).

use super::link::Inbox;
use super::{PeerId, net};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

/// What happened. Of one peer: `Up`, any number of `Message`, `Down`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer can be sent messages.
    Up {
        /// Its name in all that follows.
        peer: PeerId,
        /// The remote address of the connection; never IPv4 mapped into IPv6.
        address: IpAddr,
        /// Tells the peer's run from its other runs.
        instance: u128,
        /// The protocol version that both speak.
        protocol: u32,
        /// What both can do.
        features: BTreeSet<String>,
        /// What humans call the peer.
        name: String,
        /// What the peer says its addresses are.
        addresses: Vec<IpAddr>,
        /// What the peer's agent added to its hello.
        payload: Vec<u8>,
        /// Whether this agent opened the connection.
        dialed: bool,
    },
    /// A peer is gone.
    Down {
        /// Which.
        peer: PeerId,
        /// One line for humans.
        reason: String,
    },
    /// A message from a peer.
    Message {
        /// From whom.
        peer: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A probed address or a static peer cannot be connected to. Of a static peer, only the first of
    /// failures in a row is told.
    Unreachable {
        /// Which.
        address: IpAddr,
        /// One line for humans.
        reason: String,
    },
}

/// An event in the queue, with the inbox whose reader may wait for it to be taken out.
pub(super) type Queued = (Event, Option<Arc<Inbox>>);

/// The queue of events. Taking messages out lets more of them be read from the network.
#[derive(Debug)]
pub struct Events(Receiver<Queued>);

impl Events {
    /// The next event, if there is one; `Disconnected` when the service is gone.
    ///
    /// # Errors
    /// There is none.
    pub fn try_recv(&self) -> Result<Event, TryRecvError> {
        self.0.try_recv().map(taken)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// None came within `limit`, or the service is gone.
    pub fn recv_timeout(&self, limit: Duration) -> Result<Event, RecvTimeoutError> {
        self.0.recv_timeout(limit).map(taken)
    }
}

fn taken((event, inbox): Queued) -> Event {
    if let (Event::Message { bytes, .. }, Some(inbox)) = (&event, inbox) {
        inbox.taken(bytes.len());
    }
    event
}

/// The queue's other end.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: Sender<Queued>,
    wake: Option<OwnedFd>,
}

impl Outlet {
    pub(super) fn new(wake: Option<OwnedFd>) -> (Outlet, Events) {
        let (queue, events) = mpsc::channel();
        (Outlet { queue, wake }, Events(events))
    }

    /// Queues an event and wakes the one who waits for it.
    pub(super) fn tell(&self, event: Event, inbox: Option<Arc<Inbox>>) {
        // Nobody listens any more: the agent is ending.
        let _ = self.queue.send((event, inbox));
        if let Some(wake) = &self.wake {
            net::signal(wake);
        }
    }
}
