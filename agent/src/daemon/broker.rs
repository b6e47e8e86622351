//! Offers: programs here and on other hosts that want to accelerate a connection find each other.
//!
//! A program's offer names a connection by its socket, which the agent looks at itself. The peer agent is found by the
//! connection's remote address and told of it. When both ends of a connection are offered, the agent of the end with
//! the lower address opens a stream ([`opening`]). Offers that never meet expire.

mod opening;

use super::engine::Engine;
use super::message::Message;
use super::sessions::Ends;
use convoy_control::peers::{PeerId, Probe};
use convoy_control::policy::{Policy, Request};
use convoy_runtime::agent::protocol::{self, Reason};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an offer waits for the other end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most offers that one peer may have waiting.
const MOST_REMOTE: usize = 100_000;

pub(super) struct Broker {
    pub(super) policy: Policy,
    local: HashMap<Ends, LocalOffer>,
    /// By this host's view of the connection.
    remote: HashMap<Ends, RemoteOffer>,
    /// Other agents by their instance.
    pub(super) hosts: HashMap<u128, Host>,
}

/// Another agent.
pub(super) struct Host {
    pub(super) name: String,
    /// Control connections to it and the addresses they go to.
    pub(super) sessions: Vec<(PeerId, IpAddr)>,
    /// When links may be proposed again.
    pub(super) propose_at: Instant,
    /// Rails of this host that have been linked with it.
    pub(super) linked: Vec<usize>,
}

/// Both ends of a connection: programs, and their offers.
pub(super) type Both = [(usize, u64); 2];

struct LocalOffer {
    program: usize,
    id: u64,
    uid: u32,
    /// It may be joined with another user's.
    join_users: bool,
    since: Instant,
    /// The rail that the policy wants for it.
    rail: Option<String>,
    state: OfferState,
}

#[derive(Clone, Copy, PartialEq)]
enum OfferState {
    Waiting,
    /// Opened here, the peer has not agreed yet.
    Opening {
        link: usize,
        stream: u32,
        slot: u32,
        generation: u8,
    },
    /// The program has withdrawn it meanwhile.
    Withdrawn {
        link: usize,
        stream: u32,
        slot: u32,
    },
}

impl OfferState {
    /// Link, stream and slot of one that is being opened.
    fn stream(self) -> Option<(usize, u32, u32)> {
        match self {
            Self::Waiting => None,
            Self::Opening { link, stream, slot, .. } | Self::Withdrawn { link, stream, slot } => {
                Some((link, stream, slot))
            }
        }
    }
}

struct RemoteOffer {
    instance: u128,
    since: Instant,
}

impl Broker {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, local: HashMap::new(), remote: HashMap::new(), hosts: HashMap::new() }
    }

    /// Offers of programs here that wait for the other end.
    pub(super) fn waiting(&self) -> u64 {
        self.local.len() as u64
    }

    /// The other agent that a control connection leads to.
    pub(super) fn instance_of(&self, peer: PeerId) -> Option<u128> {
        let has = |host: &&Host| host.sessions.iter().any(|(known, _)| *known == peer);
        self.hosts.iter().find(|(_, host)| has(host)).map(|(instance, _)| *instance)
    }

    /// The control connection for an address, and whose it is.
    fn session_for(&self, address: IpAddr) -> Option<(u128, PeerId)> {
        self.hosts.iter().find_map(|(instance, host)| {
            let session = host.sessions.iter().find(|(_, known)| *known == address)?;
            Some((*instance, session.0))
        })
    }

    /// The connections of offers of programs here that are such.
    fn local_where(&self, is_such: impl Fn(&Ends, &LocalOffer) -> bool) -> Vec<Ends> {
        self.local.iter().filter(|(ends, offer)| is_such(ends, offer)).map(|(ends, _)| *ends).collect()
    }

    /// Whether an agent may speak for an address: it is where a control connection to it goes.
    fn speaks_for(&self, instance: u128, address: IpAddr) -> bool {
        self.session_for(address).is_some_and(|(known, _)| known == instance)
    }
}

impl Engine {
    /// A program offers a connection.
    pub(super) fn offer(&mut self, index: usize, id: u64, ends: Ends) {
        self.counters.offers += 1;
        let Some(program) = self.programs[index].as_ref() else { return };
        let request = Request {
            uid: program.session.uid,
            program: &program.name,
            local: ends.local,
            remote: ends.remote,
        };
        let decision = self.broker.policy.decide(&request);
        if !decision.allow {
            return self.decline(index, id, Reason::Policy);
        }
        let (now, uid, rail) = (Instant::now(), program.session.uid, decision.rail.map(str::to_owned));
        if !self.users.may_offer(uid, &self.broker.policy, now) {
            return self.decline(index, id, Reason::Limit);
        }
        let join_users = decision.join_users;
        let offer =
            LocalOffer { program: index, id, uid, join_users, since: now, rail, state: OfferState::Waiting };
        self.broker.local.insert(ends, offer);
        if ends.local.ip() == ends.remote.ip() || ends.remote.ip().is_loopback() {
            return self.meet_here(ends);
        }
        // There may be a connection already while this side's own attempt is still on its way.
        let known = self.broker.session_for(ends.remote.ip()).map(|(_, peer)| Probe::Known(peer));
        match known.unwrap_or_else(|| self.peers.probe(ends.remote.ip())) {
            Probe::Known(peer) => {
                self.send(peer, &Message::Offer { local: ends.local, remote: ends.remote });
                self.meet(ends);
            }
            Probe::Dialing => {}
            Probe::Unreachable | Probe::Busy => self.decline_ends(&ends, Reason::NoPeer),
        }
    }

    /// Joins two programs of this host that both want a connection, if they may be joined.
    fn meet_here(&mut self, ends: Ends) {
        let mirrored = Ends { local: ends.remote, remote: ends.local };
        let (Some(one), Some(two)) = (self.broker.local.get(&ends), self.broker.local.get(&mirrored)) else {
            return;
        };
        let waiting = [one, two].iter().all(|offer| offer.state == OfferState::Waiting);
        let allowed = one.uid == two.uid || one.join_users && two.join_users;
        if ends == mirrored || !waiting {
            return;
        }
        if !allowed {
            return [ends, mirrored].iter().for_each(|ends| self.decline_ends(ends, Reason::Policy));
        }
        let both = [(one.program, one.id), (two.program, two.id)];
        for ends in [ends, mirrored] {
            self.broker.local.remove(&ends);
        }
        self.join(both);
    }

    /// A program gives up an offer, answered or not.
    pub(super) fn withdraw(&mut self, index: usize, id: u64) {
        let of_id = |offer: &LocalOffer| offer.program == index && offer.id == id;
        let ends = self.broker.local.iter().find(|(_, offer)| of_id(offer)).map(|(ends, _)| *ends);
        if let Some(ends) = ends {
            self.withdraw_ends(ends);
            return;
        }
        let slot = self.programs[index].as_ref().and_then(|program| program.slot_of_offer(id));
        if let Some(slot) = slot {
            self.close_here(index, slot);
        }
    }

    fn withdraw_ends(&mut self, ends: Ends) {
        let Some(offer) = self.broker.local.get_mut(&ends) else { return };
        match offer.state {
            OfferState::Opening { link, stream, slot, .. } => {
                offer.state = OfferState::Withdrawn { link, stream, slot };
                return;
            }
            OfferState::Withdrawn { .. } => return,
            OfferState::Waiting => {}
        }
        self.broker.local.remove(&ends);
        if let Some((_, peer)) = self.broker.session_for(ends.remote.ip()) {
            self.send(peer, &Message::Withdraw { local: ends.local, remote: ends.remote });
        }
    }

    /// All offers of a program that has ended.
    pub(super) fn withdraw_all(&mut self, index: usize) {
        let ends = self.broker.local_where(|_, offer| offer.program == index);
        ends.into_iter().for_each(|ends| self.withdraw_ends(ends));
    }

    /// As [`Engine::withdraw_all`], when the program's place is going to be another's.
    pub(super) fn forget_offers(&mut self, index: usize) {
        self.withdraw_all(index);
        self.broker.local.retain(|_, offer| offer.program != index);
    }

    pub(super) fn decline(&mut self, index: usize, id: u64, reason: Reason) {
        self.counters.offers_declined += 1;
        self.tell_program(index, protocol::Message::Declined { id, reason });
    }

    fn decline_ends(&mut self, ends: &Ends, reason: Reason) {
        if let Some(offer) = self.broker.local.remove(ends) {
            self.decline(offer.program, offer.id, reason);
        }
    }

    /// There is a control connection to an address: its agent is told of the offers that wait for it.
    pub(super) fn offer_all(&mut self, peer: PeerId, address: IpAddr) {
        for ends in self.broker.local_where(|ends, _| ends.remote.ip() == address) {
            self.send(peer, &Message::Offer { local: ends.local, remote: ends.remote });
            self.meet(ends);
        }
    }

    /// No agent answers at an address.
    pub(super) fn decline_all(&mut self, address: IpAddr) {
        let ends = self.broker.local_where(|ends, _| ends.remote.ip() == address);
        ends.iter().for_each(|ends| self.decline_ends(ends, Reason::NoPeer));
    }

    /// Links to an agent are there: offers that wait may go on.
    pub(super) fn meet_all(&mut self, instance: u128) {
        let of_host = |offer: &RemoteOffer| offer.instance == instance;
        let ends: Vec<Ends> =
            self.broker.remote.iter().filter(|(_, offer)| of_host(offer)).map(|(ends, _)| *ends).collect();
        ends.into_iter().for_each(|ends| self.meet(ends));
    }

    /// Another agent offers a connection.
    pub(super) fn on_offer(&mut self, instance: u128, ends: Ends) {
        if !self.broker.speaks_for(instance, ends.remote.ip()) {
            let host = self.host_name(instance);
            tracing::warn!(host, %ends, "an agent offers a connection that is not of its host");
            return;
        }
        if self.broker.remote.len() < MOST_REMOTE {
            self.broker.remote.insert(ends, RemoteOffer { instance, since: Instant::now() });
            self.meet(ends);
        }
    }

    pub(super) fn on_withdraw(&mut self, instance: u128, ends: &Ends) {
        if self.broker.remote.get(ends).is_some_and(|offer| offer.instance == instance) {
            self.broker.remote.remove(ends);
        }
    }

    /// The name of another host, for log lines.
    pub(super) fn host_name(&self, instance: u128) -> &str {
        self.broker.hosts.get(&instance).map_or("", |host| &host.name)
    }

    pub(super) fn tell_program(&mut self, index: usize, message: protocol::Message) {
        if let Some(program) = self.programs.get_mut(index).and_then(Option::as_mut) {
            program.tell(message);
        }
    }

    /// Offers that nobody answers end.
    pub(super) fn expire_offers(&mut self, now: Instant) {
        let old = |since: Instant| now.saturating_duration_since(since) > PATIENCE;
        self.broker.remote.retain(|_, offer| !old(offer.since));
        for ends in self.broker.local_where(|_, offer| old(offer.since)) {
            self.give_up_opening(&ends);
            if let Some((_, peer)) = self.broker.session_for(ends.remote.ip()) {
                self.send(peer, &Message::Withdraw { local: ends.local, remote: ends.remote });
            }
            self.decline_ends(&ends, Reason::Unmatched);
        }
    }
}
