//! Everything there is, and the loop that lets it happen. What happens is in the other modules, each with a part of
//! `impl World`: programs (`sending`, `receiving`, `returning`), agents (`agent`, `link`, `joining`), and what goes wrong
//! (`faults`, `lies`). `check` says what has to be true.

use crate::channel::{Channel, Line, Place, SlotState};
use crate::clock::{Clock, Event};
use crate::link::{Flight, Link};
use crate::plan::{Kind, Plan};
use crate::port::LinkEnd;
use crate::report::{Digest, Failure, Report, Trace};
use crate::rng::Rng;
use crate::stream::Stream;
use std::collections::{BTreeMap, BTreeSet};

/// A program.
#[derive(Default)]
pub struct Program {
    pub host: u32,
    /// Counted up when it dies and another takes its place.
    pub life: u32,
    /// The channel to its agent.
    pub channel: Option<(u32, u32)>,
    pub streams: BTreeSet<u32>,
    pub liar: bool,
}

/// A host with its agent.
#[derive(Default)]
pub struct Host {
    /// Counted up with each agent.
    pub life: u32,
    pub agent: bool,
    pub liar: bool,
    pub rails: Vec<bool>,
    /// Channels with news, and links with something to look at.
    pub news: Vec<u32>,
    pub busy: Vec<(u32, usize)>,
    pub channels: BTreeSet<u32>,
    /// All links, up or not.
    pub linked: Vec<u32>,
    /// Streams that end when their last batch has left: channel and slot.
    pub ending: Vec<(u32, u32)>,
    /// Whether the end of a round is planned.
    pub in_round: bool,
    /// Channels whose programs were given something in this round, and the batches it came with.
    pub touched: Vec<u32>,
    pub unpublished: Vec<(LinkEnd, u32)>,
    /// Whether a program was dropped since batches were last delivered.
    pub dropped: bool,
    pub turn_at: Option<u64>,
    pub partners: Vec<u32>,
}

/// See the module.
pub struct World {
    pub clock: Clock,
    pub rng: Rng,
    pub plan: Plan,
    pub hosts: Vec<Host>,
    pub programs: Vec<Program>,
    pub channels: Vec<Channel>,
    pub free_channels: Vec<u32>,
    /// Channels between two programs of a host.
    pub pairs: BTreeMap<(u32, u32), u32>,
    pub links: Vec<Link>,
    pub link_of: BTreeMap<(u32, u32, u8), u32>,
    pub flights: Vec<Option<Flight>>,
    pub free_flights: Vec<u32>,
    pub streams: Vec<Stream>,
    pub free_streams: Vec<u32>,
    pub opened: u64,
    pub calm: bool,
    /// When the last stream ended after faults had.
    pub drained_at: Option<u64>,
    pub report: Report,
    pub digest: Digest,
    pub failure: Option<Failure>,
    pub trace: Trace,
    pub scratch: Vec<u8>,
}

impl World {
    /// The world of a seed. With `traced`, what happens to the stream of that number is noted.
    pub fn new(seed: u64, kind: Option<Kind>, traced: Option<u64>) -> Self {
        let plan = Plan::new(seed, kind);
        let mut world = Self {
            clock: Clock::default(),
            rng: Rng::new(seed),
            hosts: Vec::new(),
            programs: Vec::new(),
            channels: Vec::new(),
            free_channels: Vec::new(),
            pairs: BTreeMap::new(),
            links: Vec::new(),
            link_of: BTreeMap::new(),
            flights: Vec::new(),
            free_flights: Vec::new(),
            streams: Vec::new(),
            free_streams: Vec::new(),
            opened: 0,
            calm: false,
            drained_at: None,
            report: Report::default(),
            digest: Digest::default(),
            failure: None,
            trace: Trace::new(traced),
            scratch: Vec::new(),
            plan,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let Plan { hosts, programs_per_host, rails, partners, .. } = self.plan;
        for host in 0..hosts {
            let partners = (0..partners).map(|_| self.rng.below(u64::from(hosts)) as u32).collect();
            let liar = self.rng.once_in(self.plan.lying_agents);
            self.hosts.push(Host {
                agent: true,
                liar,
                rails: vec![true; rails.into()],
                partners,
                ..Host::default()
            });
            self.clock.after(self.rng.below(TICK), Event::Tick { host, life: 0 });
            for _ in 0..programs_per_host {
                let liar = self.rng.once_in(self.plan.liars);
                self.programs.push(Program { host, liar, ..Program::default() });
            }
        }
        self.report.hosts = u64::from(hosts);
        self.clock.after(0, Event::Arrivals);
        self.clock.after(self.plan.calm_at, Event::Calm);
        if self.plan.faults_every > 0 {
            self.clock.after(self.plan.faults_every, Event::Fault);
        }
    }

    /// Lets everything happen, up to the end, a failure or so many events, or until it is to `stop`. False when events are left.
    pub fn run(&mut self, most_events: u64, stop: &dyn Fn() -> bool) -> bool {
        while self.failure.is_none() {
            let Some(event) = self.clock.next() else { return true };
            let asks = self.report.events.is_multiple_of(ASK_EVERY);
            if self.report.events >= most_events || asks && stop() {
                self.report.virtual_us += self.clock.now;
                return false;
            }
            self.report.events += 1;
            self.digest.add(self.clock.now, &event);
            self.happen(event);
            if self.report.events.is_multiple_of(CHECK_EVERY) {
                self.check_bounds();
            }
            if self.calm && self.opened_streams() == 0 && self.is_quiet() {
                break;
            }
            if self.clock.now > self.plan.calm_at + self.plan.patience {
                self.fail_stalled();
            }
        }
        if self.failure.is_none() {
            self.check_drained();
        }
        self.report.virtual_us += self.clock.now;
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act { stream, end, epoch } => self.act(stream, end.into(), epoch),
            Event::Sort { channel, side, life } => self.sort(channel, side.into(), life),
            Event::Turn { host, life } => self.turn(host, life),
            Event::Publish { host, life } if self.hosts[host as usize].life == life => self.publish(host),
            Event::Publish { .. } => {}
            Event::GivenUp { channel, life } => self.hear_given_up(channel, life),
            Event::Tick { host, life } => self.tick(host, life),
            Event::Land { flight } => self.land(flight),
            Event::Complete { link, side, token, immediate } => {
                self.complete(link, side.into(), token, immediate);
            }
            Event::Written { link, side, token } => self.written(link, side.into(), token),
            Event::Down { link, side, token } => self.hear_down(link, side.into(), token),
            Event::Kernel { stream, from, epoch, bytes } => self.kernel(stream, from.into(), epoch, bytes),
            Event::Return { stream, end, epoch } => self.go_on_returning(stream, end.into(), epoch),
            Event::Open { stream, epoch, link, token, number } => {
                self.on_open(stream, epoch, link, token, number);
            }
            Event::Opened { stream, epoch, link, token, number, agreed } => {
                self.on_opened(stream, epoch, (link, token, number), agreed);
            }
            Event::Attach { stream, end, epoch, channel, life, slot, generation } => {
                let side = 0;
                let place = Place { channel, life, side, slot, generation };
                self.attach(stream, end.into(), epoch, place);
            }
            Event::RailUp { host, rail } => self.hosts[host as usize].rails[rail as usize] = true,
            Event::Restart { host } => self.start_agent(host),
            Event::Arrivals => self.arrive(),
            Event::Fault => self.fault(),
            Event::Calm => self.calm_down(),
        }
    }

    /// Streams that are open.
    pub fn opened_streams(&self) -> usize {
        self.streams.len() - self.free_streams.len()
    }

    /// A stream of the table, if it is still the one that was meant.
    pub fn stream(&mut self, stream: u32, epoch: u32) -> Option<&mut Stream> {
        self.streams.get_mut(stream as usize).filter(|known| known.epoch == epoch)
    }

    /// What an end says of itself, on its channel.
    pub fn own_line(&mut self, place: Place) -> &mut Line {
        &mut self.channels[place.channel as usize].lines[place.slot as usize][place.side]
    }

    /// What the other side says; closed when the slot is another stream's.
    pub fn peer_line(&self, place: Place) -> Line {
        let channel = &self.channels[place.channel as usize];
        let line = channel.lines[place.slot as usize][1 - place.side];
        let state = if channel.generations[place.slot as usize] == place.generation {
            line.state
        } else {
            SlotState::Closed
        };
        Line { state, ..line }
    }

    /// Notes something about a stream, if it is the one that is watched.
    pub fn note(&mut self, stream: u32, what: impl FnOnce() -> String) {
        let serial = self.streams[stream as usize].serial;
        self.trace.note(serial, self.clock.now, what);
    }
}

/// Between two looks of an agent at what is due by the clock.
pub const TICK: u64 = 500_000;
const CHECK_EVERY: u64 = 256;
const ASK_EVERY: u64 = 65_536;
