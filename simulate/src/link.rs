//! Links between agents: what each end keeps, how they are made and lost. After `agent/src/daemon/{link,hosts}.rs`. Batches
//! leave in `transmit` and are taken in `arriving`.

use crate::channel::Payload;
use crate::clock::Event;
use crate::world::World;
use convoy_aggregator::gather::Thresholds;
pub use convoy_aggregator::link::PLACE_BYTES;
use convoy_aggregator::queue::Queue;
use std::collections::VecDeque;

/// How long a batch may go unanswered.
const SILENCE_US: u64 = 4_000_000;
const BETWEEN_PROPOSALS: u64 = 1_000_000;

/// One end.
pub struct Side {
    pub queue: Queue<Payload>,
    /// The ring, and the places for large payloads, into which the other end writes.
    pub ring: Vec<u8>,
    pub places: Vec<u8>,
    /// What of the ring is written and not taken: number of the batch, first byte and the one behind the last.
    pub written: VecDeque<(u32, usize, usize)>,
    /// Since when more is kept of batches than what is on its way or waits for programs.
    pub kept_since: Option<u64>,
    /// Large payloads that are on their way.
    pub writing: usize,
    /// Nothing lands before this, on a rail that keeps order.
    pub last_landing: u64,
}

/// A link between two hosts over a rail.
pub struct Link {
    pub hosts: [u32; 2],
    pub rail: u8,
    /// Counted up each time it is made.
    pub token: u32,
    pub sides: [Option<Box<Side>>; 2],
    pub retry_at: u64,
    /// A write was lost on a rail that keeps order: none lands after it.
    pub broken: bool,
    /// Its ends are going to be told of a write that was lost.
    pub reported: bool,
}

impl Link {
    /// Which side a host is.
    pub fn side_of(&self, host: u32) -> usize {
        usize::from(self.hosts[0] != host)
    }

    /// Nothing lands any more.
    pub fn cut(&mut self) {
        self.broken = true;
    }

    /// Whether both ends are there and no write was lost.
    pub fn is_intact(&self) -> bool {
        self.sides.iter().all(Option::is_some) && !self.broken && !self.reported
    }

    /// What one end has to send.
    pub fn queue(&mut self, side: usize) -> Option<&mut Queue<Payload>> {
        self.sides[side].as_mut().map(|side| &mut side.queue)
    }

    /// The same, if the link is still the one that was meant.
    pub fn queue_of(&mut self, side: usize, token: u32) -> Option<&mut Queue<Payload>> {
        if self.token == token { self.queue(side) } else { None }
    }

    /// Whether a stream number is free at one end.
    pub fn is_free(&mut self, side: usize, number: u32) -> bool {
        self.queue(side).is_some_and(|queue| queue.stream(number).is_none())
    }

    /// Channel and slot of a stream at one end.
    pub fn slot_of(&mut self, side: usize, token: u32, number: u32) -> Option<(u32, u32)> {
        let stream = self.queue_of(side, token)?.stream(number)?;
        Some((stream.program as u32, stream.slot))
    }
}

/// A write on its way.
pub struct Flight {
    pub link: u32,
    pub side: usize,
    pub token: u32,
    pub offset: usize,
    /// Into a place instead of the ring.
    pub beside: bool,
    /// Reported to the receiver when it has landed.
    pub immediate: Option<u32>,
    pub bytes: Vec<u8>,
}

impl World {
    /// A link between two hosts that is up; one is made if need be and possible.
    pub fn link_between(&mut self, one: u32, two: u32) -> Option<u32> {
        let (low, high) = (one.min(two), one.max(two));
        let first = self.rng.below(u64::from(self.plan.rails)) as u8;
        for step in 0..self.plan.rails {
            let rail = (first + step) % self.plan.rails;
            let up = [low, high].iter().all(|host| self.hosts[*host as usize].rails[rail as usize]);
            if !up {
                continue;
            }
            let index = self.link_at(low, high, rail);
            let link = &self.links[index as usize];
            match &link.sides {
                [Some(_), Some(_)] => return Some(index),
                [None, None] if self.clock.now >= link.retry_at => {
                    self.make_link(index);
                    return Some(index);
                }
                _ => {}
            }
        }
        None
    }

    fn link_at(&mut self, low: u32, high: u32, rail: u8) -> u32 {
        if let Some(index) = self.link_of.get(&(low, high, rail)) {
            return *index;
        }
        let index = self.links.len() as u32;
        let sides = [None, None];
        self.links.push(Link {
            hosts: [low, high],
            rail,
            token: 0,
            sides,
            retry_at: 0,
            broken: false,
            reported: false,
        });
        self.link_of.insert((low, high, rail), index);
        self.hosts[low as usize].linked.push(index);
        if high != low {
            self.hosts[high as usize].linked.push(index);
        }
        index
    }

    fn make_link(&mut self, index: u32) {
        let plan = &self.plan;
        let thresholds = Thresholds { delay_us: plan.delay_us, ..Thresholds::default() };
        let side = |odd: bool| {
            let mut queue = Queue::new(plan.link_bytes, odd, thresholds);
            queue.set_places(plan.places);
            let places = vec![0; plan.places as usize * PLACE_BYTES];
            Some(Box::new(Side {
                queue,
                ring: vec![0; plan.link_bytes as usize],
                written: VecDeque::new(),
                places,
                kept_since: None,
                writing: 0,
                last_landing: 0,
            }))
        };
        let sides = [side(false), side(true)];
        let link = &mut self.links[index as usize];
        link.token += 1;
        link.sides = sides;
        (link.broken, link.reported) = (false, false);
        self.report.most.links = self.report.most.links.max(self.links.len() as u64);
    }

    /// A link cannot be used any more at one end: its streams return to the kernel. The other end hears of it.
    pub fn lose_link(&mut self, link: u32, side: usize) {
        let known = &mut self.links[link as usize];
        let Some(lost) = known.sides[side].take() else { return };
        known.retry_at = self.clock.now + BETWEEN_PROPOSALS;
        let token = known.token;
        lost.queue.unsettled().for_each(|(channel, frame)| self.finish_ended(channel, frame));
        let streams = lost.queue.streams().map(|stream| (stream.program as u32, stream.slot)).collect();
        self.lose_streams(streams);
        let delay = self.rng.skewed(2_000_000);
        self.clock.after(delay, Event::Down { link, side: 1 - side as u8, token });
    }

    /// An end is gone with its agent.
    pub fn abandon_link(&mut self, link: u32, side: usize) {
        let known = &mut self.links[link as usize];
        if known.sides[side].take().is_none() {
            return;
        }
        known.retry_at = self.clock.now + BETWEEN_PROPOSALS;
        let token = known.token;
        let delay = self.rng.skewed(2_000_000);
        self.clock.after(delay, Event::Down { link, side: 1 - side as u8, token });
    }

    /// One end hears that the other has ended.
    pub fn hear_down(&mut self, link: u32, side: usize, token: u32) {
        if self.links[link as usize].token == token {
            self.lose_link(link, side);
        }
    }

    /// Gives up links whose other end does not answer.
    pub fn look_for_silence(&mut self, host: u32) {
        let now = self.clock.now;
        for link in self.hosts[host as usize].linked.clone() {
            let side = self.links[link as usize].side_of(host);
            let queue = self.links[link as usize].queue(side);
            if queue.is_some_and(|queue| queue.is_silent(now, SILENCE_US)) {
                self.report.fault("links silent");
                if self.links[link as usize].is_intact() {
                    let what = format!("side {side} got no answer");
                    self.broken_link(link, "no stall while credit and link exist", what);
                }
                self.lose_link(link, side);
            }
        }
    }
}
