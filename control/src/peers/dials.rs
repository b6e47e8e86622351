//! Which addresses are to be dialed, when, and which were found unreachable. Pure but for the jitter.
//! Not here: dialing (`connection`) and telling (`shared`).

use super::config::{Limits, Timings};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

/// Unreachable addresses remembered at most.
const MAX_NEGATIVE: usize = 65_536;

/// An address on its way.
#[derive(Debug)]
struct Dial {
    /// A probe wants to know how it ends.
    probed: bool,
    /// There was a connection to the address meanwhile, so how it ends says nothing about the address.
    overtaken: bool,
}

/// A peer to be connected to at all times.
#[derive(Debug)]
pub(super) struct Static {
    port: u16,
    /// When to dial; none while it is connected or being dialed.
    due: Option<Instant>,
    failures: u32,
    /// When its present state began.
    pub(super) since: SystemTime,
}

/// All addresses to be dialed.
#[derive(Debug, Default)]
pub(super) struct Dials {
    dials: HashMap<IpAddr, Dial>,
    /// Those of `dials` that have not begun.
    waiting: VecDeque<IpAddr>,
    statics: HashMap<IpAddr, Static>,
    negative: HashMap<IpAddr, Unreachable>,
    pub(super) begun: u64,
    pub(super) failed: u64,
}

/// An address where no agent answered: until when that is believed, and how often in a row it was so.
#[derive(Debug, Clone, Copy)]
struct Unreachable {
    until: Instant,
    failures: u32,
}

/// How a dial was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Dialing,
    Unreachable,
    Busy,
}

impl Dials {
    pub(super) fn probe(&mut self, address: IpAddr, now: Instant, limits: &Limits) -> Wanted {
        if let Some(dial) = self.dials.get_mut(&address) {
            dial.probed = true;
            return Wanted::Dialing;
        }
        if self.negative.get(&address).is_some_and(|known| now < known.until) {
            return Wanted::Unreachable;
        }
        if self.waiting.len() >= limits.waiting {
            return Wanted::Busy;
        }
        self.enqueue(address, true);
        Wanted::Dialing
    }

    fn enqueue(&mut self, address: IpAddr, probed: bool) {
        self.dials.insert(address, Dial { probed, overtaken: false });
        self.waiting.push_back(address);
    }

    /// Takes out the next addresses to be dialed, among them static peers that are due.
    pub(super) fn begin(&mut self, now: Instant, limits: &Limits) -> Vec<IpAddr> {
        let due = |peer: &Static| peer.due.is_some_and(|due| due <= now);
        let addresses: Vec<IpAddr> =
            self.statics.iter().filter(|(_, peer)| due(peer)).map(|(address, _)| *address).collect();
        for address in addresses {
            if let Some(peer) = self.statics.get_mut(&address) {
                peer.due = None;
            }
            if !self.dials.contains_key(&address) {
                self.enqueue(address, false);
            }
        }
        let active = self.dials.len() - self.waiting.len();
        let free = limits.dials.saturating_sub(active).min(self.waiting.len());
        self.begun += free as u64;
        self.waiting.drain(..free).collect()
    }

    /// When the next static peer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.statics.values().filter_map(|peer| peer.due).min()
    }

    /// The port to dial at an address, `port` unless it is a static peer with one of its own.
    pub(super) fn port(&self, address: IpAddr, port: u16) -> u16 {
        self.statics.get(&address).map(|peer| peer.port).filter(|port| *port != 0).unwrap_or(port)
    }

    /// There is a connection to the address now.
    pub(super) fn connected(&mut self, address: IpAddr) {
        self.negative.remove(&address);
        if let Some(dial) = self.dials.get_mut(&address) {
            dial.probed = false;
            dial.overtaken = true;
        }
        if let Some(peer) = self.statics.get_mut(&address) {
            peer.due = None;
            peer.failures = 0;
            peer.since = SystemTime::now();
        }
    }

    /// The last connection to the address is gone.
    pub(super) fn lost(&mut self, address: IpAddr, now: Instant, timings: &Timings) {
        let dialing = self.dials.contains_key(&address);
        if let Some(peer) = self.statics.get_mut(&address) {
            peer.since = SystemTime::now();
            if !dialing {
                peer.due = Some(now + backoff(timings, 0));
            }
        }
    }

    /// A dial ended in a connection, or as a second one beside a connection that there is.
    pub(super) fn succeeded(&mut self, address: IpAddr) {
        self.dials.remove(&address);
    }

    /// A dial failed; whether that shall be told.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant, timings: &Timings) -> bool {
        let dial = self.dials.remove(&address);
        if let Some(Dial { probed, overtaken: true }) = dial {
            if let Some(peer) = self.statics.get_mut(&address) {
                peer.due = Some(now + backoff(timings, 0));
            }
            if probed {
                self.enqueue(address, true);
            }
            return false;
        }
        self.failed += 1;
        let mut tell = dial.is_some_and(|dial| dial.probed);
        self.note_unreachable(address, now, timings);
        if let Some(peer) = self.statics.get_mut(&address) {
            tell |= peer.failures == 0;
            peer.due = Some(now + backoff(timings, peer.failures));
            peer.failures = peer.failures.saturating_add(1);
        }
        tell
    }

    /// An agent that was just restarted is found again soon, and where there never was one is hardly ever asked.
    fn note_unreachable(&mut self, address: IpAddr, now: Instant, timings: &Timings) {
        if self.negative.len() >= MAX_NEGATIVE {
            self.negative.retain(|_, known| now < known.until);
        }
        let failures = self.negative.get(&address).map_or(0, |known| known.failures.saturating_add(1));
        if failures > 0 || self.negative.len() < MAX_NEGATIVE {
            let pause = doubled(timings.backoff_min, failures).min(timings.negative);
            self.negative.insert(address, Unreachable { until: now + pause, failures });
        }
    }

    /// Forgets that the address was unreachable.
    pub(super) fn forget(&mut self, address: IpAddr, now: Instant) {
        self.negative.remove(&address);
        if let Some(due) = self.statics.get_mut(&address).and_then(|peer| peer.due.as_mut()) {
            *due = now;
        }
    }

    /// Replaces the static peers; `connected` says to which there is a connection.
    pub(super) fn reload(&mut self, peers: &[SocketAddr], now: Instant, connected: impl Fn(IpAddr) -> bool) {
        let mut before = std::mem::take(&mut self.statics);
        for peer in peers {
            let address = peer.ip().to_canonical();
            let fresh = || Static {
                port: 0,
                due: (!connected(address) && !self.dials.contains_key(&address)).then_some(now),
                failures: 0,
                since: SystemTime::now(),
            };
            let mut entry = before.remove(&address).unwrap_or_else(fresh);
            entry.port = peer.port();
            self.statics.insert(address, entry);
        }
    }

    /// The static peers, with whether each is being dialed.
    pub(super) fn statics(&self) -> impl Iterator<Item = (IpAddr, &Static, bool)> {
        self.statics.iter().map(|(address, peer)| (*address, peer, self.dials.contains_key(address)))
    }

    /// How many addresses are known to be unreachable.
    pub(super) fn unreachable(&self, now: Instant) -> usize {
        self.negative.values().filter(|known| now < known.until).count()
    }
}

/// The pause after so many failures in a row: doubled by each, and between half of it and all of it, so that
/// agents that lost each other at one moment do not dial at one moment.
fn backoff(timings: &Timings, failures: u32) -> Duration {
    let whole = doubled(timings.backoff_min, failures).min(timings.backoff_max);
    // Without random numbers, no jitter.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    whole.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let timings = Timings::default();
        for (failures, whole) in [(0, 1), (1, 2), (4, 16), (5, 30), (1000, 30)] {
            for _ in 0..100 {
                let pause = backoff(&timings, failures);
                let whole = Duration::from_secs(whole);
                assert!(pause >= whole / 2 && pause <= whole, "{failures} {pause:?}");
            }
        }
    }

    #[test]
    fn one_dial_per_address_and_no_more_than_allowed() {
        let limits = Limits { dials: 2, waiting: 2, ..Limits::default() };
        let now = Instant::now();
        let mut dials = Dials::default();
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(dials.probe(ip(1), now, &limits), Wanted::Dialing);
        assert_eq!(dials.probe(ip(1), now, &limits), Wanted::Dialing);
        assert_eq!(dials.begin(now, &limits), [ip(1)]);
        assert_eq!(dials.probe(ip(2), now, &limits), Wanted::Dialing);
        assert_eq!(dials.probe(ip(3), now, &limits), Wanted::Dialing);
        assert_eq!(dials.probe(ip(4), now, &limits), Wanted::Busy);
        assert_eq!(dials.begin(now, &limits), [ip(2)]);
        assert!(dials.failed(ip(1), now, &Timings::default()));
        assert_eq!(dials.begin(now, &limits), [ip(3)]);
        assert_eq!(dials.probe(ip(1), now, &limits), Wanted::Unreachable);
        dials.forget(ip(1), now);
        assert_eq!(dials.probe(ip(1), now, &limits), Wanted::Dialing);
    }

    #[test]
    fn an_address_is_asked_less_and_less_often_until_an_agent_answers() {
        let (limits, timings) = (Limits::default(), Timings::default());
        let (mut dials, mut now) = (Dials::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(dials.probe(address, now, &limits), Wanted::Dialing);
            assert_eq!(dials.begin(now, &limits), [address]);
            assert!(dials.failed(address, now, &timings));
            now += Duration::from_secs(pause) - Duration::from_millis(1);
            assert_eq!(dials.probe(address, now, &limits), Wanted::Unreachable);
            now += Duration::from_millis(1);
        }
        dials.connected(address);
        dials.probe(address, now, &limits);
        dials.begin(now, &limits);
        dials.failed(address, now, &timings);
        assert_eq!(dials.probe(address, now + timings.backoff_min, &limits), Wanted::Dialing);
    }

    #[test]
    fn a_dial_beside_a_connection_says_nothing_about_the_address() {
        let (limits, timings, now) = (Limits::default(), Timings::default(), Instant::now());
        let mut dials = Dials::default();
        let address = IpAddr::from([10, 0, 0, 1]);
        dials.probe(address, now, &limits);
        assert_eq!(dials.begin(now, &limits), [address]);
        dials.connected(address);
        dials.lost(address, now, &timings);
        // A probe after the loss wants a dial of its own.
        assert_eq!(dials.probe(address, now, &limits), Wanted::Dialing);
        assert!(!dials.failed(address, now, &timings));
        assert_eq!(dials.begin(now, &limits), [address]);
        assert!(dials.failed(address, now, &timings));
        assert_eq!(dials.probe(address, now, &limits), Wanted::Unreachable);
    }
}
