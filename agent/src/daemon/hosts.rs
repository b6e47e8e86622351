//! Other agents: control connections come and go, rails are agreed upon, links made and lost.

use super::broker::Host;
use super::engine::{Engine, Rail};
use super::large;
use super::link::{Link, LinkState};
use super::message::{Message, Places, from_hex, to_hex};
use super::program::{NO_LINK, Origin};
use super::sessions::Ends;
use super::transmit::ANSWERS;
use convoy_aggregator::link::{BATCH_BYTES, BUFFERS, PLACE_BYTES, PLACES, RING_BYTES, SendLink};
use convoy_aggregator::queue::least_ring;
use convoy_control::peers::{Event, PeerId};
use convoy_control::policy::Spread;
use convoy_fabric::{Access, LinkId, RemoteMemory};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two attempts to make links to an agent.
const BETWEEN_PROPOSALS: Duration = Duration::from_secs(1);
/// Between two attempts for a rail that has lost its link, while there are others.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(5);
/// How long a batch may go unanswered, in microseconds.
const SILENCE_US: u64 = 4_000_000;
/// Sizes of a ring that a peer may offer: in a smaller one both ends could wait for each other.
const RINGS: std::ops::RangeInclusive<u64> = least_ring(BATCH_BYTES, ANSWERS) as u64..=1 << 30;

/// Sizes of the places for large payloads that a peer may offer.
const PLACES_THERE: std::ops::RangeInclusive<u64> = PLACE_BYTES as u64..=1 << 30;

impl Engine {
    /// Takes what the control connections have to say.
    pub(super) fn hear_peers(&mut self) {
        self.waiter.empty_wake();
        while let Ok(event) = self.from_peers.try_recv() {
            match event {
                Event::Up { peer, address, instance, name, .. } => {
                    self.peer_up(peer, address, instance, name)
                }
                Event::Down { peer, reason } => self.peer_down(peer, &reason),
                Event::Unreachable { address, reason } => {
                    tracing::debug!(%address, reason, "no agent");
                    self.decline_all(address);
                }
                Event::Message { peer, bytes } => {
                    let Some(instance) = self.broker.instance_of(peer) else { continue };
                    match Message::decode(&bytes) {
                        Some(message) => self.on_peer_message(peer, instance, message),
                        None => self.peers.close(peer, "a message that makes no sense"),
                    }
                }
            }
        }
    }

    fn on_peer_message(&mut self, peer: PeerId, instance: u128, message: Message) {
        match message {
            Message::Rail { token, provider, at, address, key, base, bytes, again, places } => {
                let target = RemoteMemory { key, base, bytes };
                let places =
                    places.map(RemoteMemory::from).filter(|places| PLACES_THERE.contains(&places.bytes));
                let Some(address) = from_hex(&address).filter(|_| RINGS.contains(&bytes)) else { return };
                if again {
                    self.lose_stale(instance, token, at);
                }
                self.on_rail(peer, instance, token, &provider, at, &address, target, places);
            }
            Message::NoRail { token } => self.on_no_rail(instance, token),
            Message::Offer { local, remote } => self.on_offer(instance, Ends::of_other(local, remote)),
            Message::Withdraw { local, remote } => self.on_withdraw(instance, &Ends::of_other(local, remote)),
            Message::Open { local, remote, token, stream } => {
                self.on_open(instance, Ends::of_other(local, remote), token, stream);
            }
            Message::Opened { local, remote, token, stream } => {
                self.on_opened(instance, &Ends::of_other(local, remote), token, stream, true);
            }
            Message::Refused { local, remote, token, stream, reason } => {
                let ends = Ends::of_other(local, remote);
                let host = self.host_name(instance);
                tracing::debug!(%ends, host, reason, "refused by the other agent");
                self.on_opened(instance, &ends, token, stream, false);
            }
            Message::Unknown => {}
        }
    }

    pub(super) fn send(&self, peer: PeerId, message: &Message) {
        // A peer that is down or full is closed; its end is told as an event.
        let _ = self.peers.send(peer, message.encode());
    }

    /// Sends to the agent at the other end of a link.
    pub(super) fn tell(&self, link: usize, message: &Message) {
        let host = self.links[link].as_ref().and_then(|link| self.broker.hosts.get(&link.host));
        if let Some((peer, _)) = host.and_then(|host| host.sessions.first()) {
            self.send(*peer, message);
        }
    }

    fn peer_up(&mut self, peer: PeerId, address: IpAddr, instance: u128, name: String) {
        tracing::info!(%address, host = name, "agent found");
        let host = self.broker.hosts.entry(instance).or_insert_with(|| Host {
            name,
            sessions: Vec::new(),
            propose_at: Instant::now(),
            linked: Vec::new(),
        });
        host.sessions.push((peer, address));
        self.propose(instance);
        self.offer_all(peer, address);
    }

    fn peer_down(&mut self, peer: PeerId, reason: &str) {
        let Some(instance) = self.broker.instance_of(peer) else { return };
        let Some(host) = self.broker.hosts.get_mut(&instance) else { return };
        host.sessions.retain(|(known, _)| *known != peer);
        tracing::info!(host = host.name, reason, "agent gone");
        if !host.sessions.is_empty() {
            return;
        }
        self.broker.hosts.remove(&instance);
        for index in 0..self.links.len() {
            if self.links[index].as_ref().is_some_and(|link| link.host == instance) {
                self.lose_link(index, reason);
            }
        }
    }

    /// Proposes a link for each rail that has none, if it is this side's to begin: for all of them when there is no link,
    /// otherwise for those that once had one.
    pub(super) fn propose(&mut self, instance: u128) {
        let used: Vec<usize> =
            self.links.iter().flatten().filter(|link| link.host == instance).map(|link| link.rail).collect();
        let now = Instant::now();
        let Some(host) = self.broker.hosts.get_mut(&instance) else { return };
        let Some((peer, address)) = host.sessions.first().copied() else { return };
        if self.instance > instance || now < host.propose_at {
            return;
        }
        host.propose_at = now + if used.is_empty() { BETWEEN_PROPOSALS } else { BETWEEN_REPAIRS };
        let linked = host.linked.clone();
        let wanted = |rail: &usize| !used.contains(rail) && (used.is_empty() || linked.contains(rail));
        let mut order: Vec<usize> = (0..self.rails.len()).filter(wanted).collect();
        // The one that leads to the other agent first: it is answered even when no network is the same.
        order.sort_by_key(|rail| !self.rails[*rail].is_near(Some(address)));
        for rail in order {
            let token = self.random();
            if let Some(index) = self.make_link(instance, rail, token) {
                self.tell_rail(peer, index, linked.contains(&rail));
            }
        }
    }

    fn make_link(&mut self, instance: u128, rail: usize, token: u64) -> Option<usize> {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        let Rail { fabric, limits, wire, .. } = &mut self.rails[rail];
        let (limits, wire) = (*limits, *wire);
        let ring = fabric.allocate(RING_BYTES as usize, Access::Remote);
        let buffers = fabric.allocate(BUFFERS as usize * BATCH_BYTES, Access::Local);
        let (Ok(ring), Ok(buffers)) = (&ring, &buffers) else {
            let (host, rail) = (self.host_name(instance), self.rails[rail].fabric.name());
            tracing::warn!(host, rail, ?ring, ?buffers, "no memory for a link (see ulimit -l)");
            return None;
        };
        let odd = self.instance > instance;
        let mut link = Link::new(instance, rail, id, token, odd, *ring, *buffers, self.thresholds);
        link.wire = wire;
        if large::is_possible(limits) {
            // Without it, large payloads go in batches.
            link.places_here = fabric.allocate(PLACES * PLACE_BYTES, Access::Remote).ok();
        }
        let index = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
        match self.links.get_mut(index) {
            Some(place) => *place = Some(link),
            None => self.links.push(Some(link)),
        }
        Some(index)
    }

    /// Proposes a link to the other agent, or answers its proposal; `again` when the rail had a link before.
    fn tell_rail(&self, peer: PeerId, index: usize, again: bool) {
        let Some(link) = self.links[index].as_ref() else { return };
        let rail = &self.rails[link.rail];
        let ring = rail.fabric.remote(link.ring).unwrap_or_default();
        let message = Message::Rail {
            token: link.token,
            provider: rail.provider.clone(),
            at: rail.at,
            address: to_hex(rail.fabric.address()),
            key: ring.key,
            base: ring.base,
            bytes: ring.bytes,
            again,
            places: link.places_here.and_then(|memory| rail.fabric.remote(memory)).map(Places::from),
        };
        self.send(peer, &message);
    }

    #[allow(clippy::too_many_arguments)]
    fn on_rail(
        &mut self,
        peer: PeerId,
        instance: u128,
        token: u64,
        provider: &str,
        at: Option<IpAddr>,
        address: &[u8],
        target: RemoteMemory,
        places: Option<RemoteMemory>,
    ) {
        let (index, connects) = match self.link_of(instance, token) {
            Some(index) => (index, true),
            None if self.instance < instance => return,
            None => {
                let Some(rail) = self.rail_for(instance, provider, at) else {
                    let host = self.host_name(instance);
                    tracing::info!(host, provider, address = ?at, "a rail of another agent goes with none here");
                    return self.send(peer, &Message::NoRail { token });
                };
                let Some(index) = self.make_link(instance, rail, token) else { return };
                (index, false)
            }
        };
        let Some(link) = self.links[index].as_mut().filter(|link| link.state == LinkState::Proposed) else {
            return;
        };
        link.target = target;
        if let Some(places) = places.filter(|_| large::is_possible(self.rails[link.rail].limits)) {
            link.set_places(places);
        }
        link.queue.send = SendLink::new(target.bytes as u32);
        link.state = LinkState::Connecting;
        link.since = Instant::now();
        let (id, rail) = (link.id, link.rail);
        let fabric = &mut self.rails[rail].fabric;
        let begun =
            if connects { fabric.connect(id, address, token) } else { fabric.accept(id, address, token) };
        if let Err(error) = begun {
            return self.lose_link(index, &error.to_string());
        }
        if !connects {
            self.tell_rail(peer, index, false);
        }
    }

    /// The rail of this host for one of another: of the same provider, not linked to that host yet, and in the same
    /// network. Without one, any is taken for the first link, because networks may be routed.
    fn rail_for(&self, instance: u128, provider: &str, at: Option<IpAddr>) -> Option<usize> {
        let mut linked = self.links.iter().flatten().filter(|link| link.host == instance);
        let used =
            |rail: usize| self.links.iter().flatten().any(|link| link.host == instance && link.rail == rail);
        let fits = |rail: &usize| self.rails[*rail].provider == provider && !used(*rail);
        let near = (0..self.rails.len()).filter(fits).find(|rail| self.rails[*rail].is_near(at));
        if near.is_some() || linked.next().is_some() {
            return near;
        }
        (0..self.rails.len()).filter(fits).max_by_key(|rail| common_bits(self.rails[*rail].at, at))
    }

    pub(super) fn link_of(&self, instance: u128, token: u64) -> Option<usize> {
        let of_token = |link: &Link| link.token == token && link.host == instance;
        self.links.iter().position(|link| link.as_ref().is_some_and(of_token))
    }

    /// The other agent has lost a link and makes a new one: this side may not have noticed yet.
    fn lose_stale(&mut self, instance: u128, token: u64, at: Option<IpAddr>) {
        let stale =
            |link: &Link| link.host == instance && link.token != token && self.rails[link.rail].is_near(at);
        if let Some(index) = self.links.iter().position(|link| link.as_ref().is_some_and(stale)) {
            self.lose_link(index, "the other agent has lost it");
        }
    }

    /// The other agent has no rail for a proposed link.
    fn on_no_rail(&mut self, instance: u128, token: u64) {
        let Some(index) = self.link_of(instance, token) else { return };
        if self.links[index].as_ref().is_some_and(|link| link.state == LinkState::Proposed) {
            self.drop_link(index);
            self.meet_all(instance);
        }
    }

    pub(super) fn link_is_up(&mut self, index: usize) {
        let Some(link) = self.links[index].as_mut() else { return };
        link.state = LinkState::Up;
        let (instance, rail) = (link.host, link.rail);
        let (host, rail_name) = (self.host_name(instance), self.rails[rail].fabric.name());
        tracing::info!(host, rail = rail_name, "link is up");
        if let Some(host) = self.broker.hosts.get_mut(&instance).filter(|host| !host.linked.contains(&rail)) {
            host.linked.push(rail);
        }
        self.meet_all(instance);
    }

    /// A link cannot be used any more: its streams return to the kernel.
    pub(super) fn lose_link(&mut self, index: usize, reason: &str) {
        self.forget_opening(index);
        let Some(link) = self.drop_link(index) else { return };
        self.counters.links_lost += 1;
        let (host, rail) = (self.host_name(link.host), self.rails[link.rail].fabric.name());
        let streams = link.queue.streams().count();
        tracing::warn!(host, rail, streams, reason, "link lost: its streams return to the kernel");
        let held = self.programs.iter_mut().flatten().flat_map(|program| program.overflow.iter_mut());
        held.filter(|held| matches!(held.origin, Origin::Batch { link, .. } if link == index))
            .for_each(|held| held.origin = Origin::Batch { link: NO_LINK, sequence: 0 });
        for (program, frame) in link.queue.unsettled() {
            if let Some(program) = self.programs.get_mut(program).and_then(Option::as_mut) {
                program.finish_ended(frame);
            }
        }
        let lost = link.queue.streams().map(|stream| (stream.program, stream.slot)).collect();
        self.lose_streams(lost);
        if link.state != LinkState::Up {
            // Streams that wanted its rail may have waited for it.
            self.meet_all(link.host);
        }
    }

    /// Gives up a link and its memory.
    fn drop_link(&mut self, index: usize) -> Option<Link> {
        let link = self.links[index].take()?;
        let fabric = &mut self.rails[link.rail].fabric;
        fabric.disconnect(link.id);
        fabric.release(link.ring);
        fabric.release(link.buffers);
        link.places_here.into_iter().for_each(|memory| fabric.release(memory));
        link.writing.iter().for_each(|id| self.registrations.done(&mut self.rails, *id));
        Some(link)
    }

    /// What is due by the clock.
    pub(super) fn tick(&mut self, now: Instant) {
        let now_us = self.now_us;
        self.expire_offers(now);
        self.bury_programs();
        let hosts: Vec<u128> = self.broker.hosts.keys().copied().collect();
        hosts.into_iter().for_each(|instance| self.propose(instance));
        for index in 0..self.links.len() {
            let late = self.links[index].as_ref().is_some_and(|link| {
                link.state != LinkState::Up && now.saturating_duration_since(link.since) > CONNECT_LIMIT
            });
            let silent =
                self.links[index].as_mut().is_some_and(|link| link.queue.is_silent(now_us, SILENCE_US));
            if late {
                self.lose_link(index, "it does not come up");
            } else if silent {
                self.lose_link(index, "the other side does not answer");
            }
        }
    }

    /// The link for a new stream: over the rail that the policy names, if there is one, otherwise as it spreads them. Nothing while
    /// there is none, or the one over that rail comes up for the first time.
    pub(super) fn choose_link(&self, instance: u128, ends: &Ends, rail: Option<&str>) -> Option<usize> {
        let of_host: Vec<(usize, &Link)> = (0..)
            .zip(&self.links)
            .filter_map(|(index, link)| Some((index, link.as_ref().filter(|link| link.host == instance)?)))
            .collect();
        let named = |link: &Link| {
            let known = &self.rails[link.rail];
            rail.is_some_and(|name| known.device == name || known.at.is_some_and(|at| at.to_string() == name))
        };
        let linked = |rail| self.broker.hosts.get(&instance).is_some_and(|host| host.linked.contains(&rail));
        match of_host.iter().find(|(_, link)| named(link)) {
            Some((index, link)) if link.state == LinkState::Up => return Some(*index),
            Some((_, link)) if !linked(link.rail) => return None,
            _ => {}
        }
        let all: Vec<_> = of_host.into_iter().filter(|(_, link)| link.state == LinkState::Up).collect();
        match self.broker.policy.spread() {
            Spread::Hash => {
                let hash = usize::from(ends.local.port()) ^ usize::from(ends.remote.port());
                all.get(hash % all.len().max(1)).map(|(index, _)| *index)
            }
            Spread::LeastLoaded => {
                let load = |link: &Link| (link.queue.pending().0, link.queue.streams().count());
                all.iter().min_by_key(|(_, link)| load(link)).map(|(index, _)| *index)
            }
        }
    }
}

impl Rail {
    /// Whether an address is in this rail's network; a rail without an address is near to all without.
    fn is_near(&self, address: Option<IpAddr>) -> bool {
        match (self.at, address) {
            (Some(own), Some(_)) => self.prefix > 0 && common_bits(Some(own), address) >= self.prefix,
            (own, other) => own.is_none() && other.is_none(),
        }
    }
}

/// How long a link may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How many leading bits two addresses of one family have in common.
fn common_bits(one: Option<IpAddr>, two: Option<IpAddr>) -> u32 {
    match (one, two) {
        (Some(IpAddr::V4(one)), Some(IpAddr::V4(two))) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
        (Some(IpAddr::V6(one)), Some(IpAddr::V6(two))) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
        _ => 0,
    }
}
