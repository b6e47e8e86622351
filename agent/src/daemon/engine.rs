//! The engine: one thread that owns rails, links and programs' channels, and turns from one to the other.
//!
//! While there is work it polls; then it looks on for a moment, because the next message is likely to come soon, and
//! then it sleeps in epoll by the programs' doorbells, the rails' wait descriptors and the control connections.

use super::broker::Broker;
use super::hand_over::Succession;
use super::link::Link;
use super::memory::Memory;
use super::program::Program;
use super::registrations::Registrations;
use super::serve::Served;
use super::setup::{Setup, descriptor_limit};
use super::signals::Signals;
use super::status::Board;
use super::users::Users;
use super::wait::{Token, Waiter};
use super::wire::Wire;
use super::worth;
use convoy_aggregator::batch::Control;
use convoy_aggregator::gather::Thresholds;
use convoy_control::peers::{Events, Peers};
use convoy_control::policy::Policy;
use convoy_fabric::{Event, Fabric, Limits};
use convoy_runtime::agent::server::Server;
use convoy_runtime::config::settings;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A rail of this host.
pub(super) struct Rail {
    pub(super) fabric: Box<dyn Fabric>,
    pub(super) limits: Limits,
    pub(super) provider: String,
    /// Its device, as policies name it.
    pub(super) device: String,
    pub(super) at: Option<IpAddr>,
    /// Leading bits of its address that name its network.
    pub(super) prefix: u32,
    pub(super) wire: Wire,
    /// Every stream is to travel by this rail, whatever its messages are like.
    pub(super) worth_always: bool,
}

/// Everything the engine's thread owns.
pub(super) struct Engine {
    pub(super) rails: Vec<Rail>,
    pub(super) programs: Vec<Option<Program>>,
    pub(super) links: Vec<Option<Link>>,
    pub(super) broker: Broker,
    pub(super) users: Users,
    pub(super) memory: Memory,
    pub(super) peers: Peers,
    pub(super) from_peers: Events,
    pub(super) server: Server,
    pub(super) served: Served,
    pub(super) succession: Succession,
    pub(super) waiter: Waiter,
    signals: Signals,
    policy_file: Option<PathBuf>,
    pub(super) thresholds: Thresholds,
    /// Messages up to this size are gathered.
    pub(super) small: u32,
    pub(super) network: u64,
    /// This run of the agent, as peers know it.
    pub(super) instance: u128,
    pub(super) next_link: u32,
    pub(super) next_program: u64,
    pub(super) registrations: Registrations,
    pub(super) counters: Counters,
    /// When the present round began, and the same in microseconds since the start.
    pub(super) now: Instant,
    pub(super) now_us: u64,
    /// Programs send, and when that is looked at next.
    busy: bool,
    next_look: Instant,
    pub(super) looked: Instant,
    pub(super) board: Arc<Board>,
    /// The agent ends when no program was connected for so long, and when one last was.
    pub(super) idle_exit: Option<Duration>,
    pub(super) occupied: Instant,
    start: Instant,
    spin: Duration,
    // Kept to be used again.
    pub(super) events: Vec<Event>,
    pub(super) changed: Vec<u32>,
    pub(super) scratch: Vec<u8>,
    pub(super) batch: Vec<u8>,
    pub(super) block: Vec<u8>,
    pub(super) delivered: Vec<u32>,
    pub(super) controls: Vec<Control>,
    /// Streams whose programs have something to look at.
    pub(super) touched: Vec<(usize, u32)>,
    /// Batches that have come in this round, by link, its token and their number.
    pub(super) unpublished: Vec<(usize, u64, u32)>,
    /// Programs that were found not to use this agent any more when they had been given something.
    pub(super) gave_up: Vec<usize>,
    /// Whether a program was dropped since batches were last delivered.
    pub(super) dropped: bool,
    /// Bells by which these are to be woken, with their programs.
    pub(super) bells: Vec<(usize, u16)>,
    /// Streams that end when their last batch has left.
    pub(super) ending: Vec<(usize, u32)>,
}

/// Counters of the agent as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) doorbells_rung: u64,
    pub(super) sleeps: u64,
    pub(super) links_lost: u64,
    pub(super) offers: u64,
    pub(super) offers_declined: u64,
}

/// Rounds between two looks at sockets while there is work.
const ROUNDS_PER_LOOK: u32 = 64;
/// Rounds without anything new after which a program has to ring again.
const IDLE_ROUNDS: u32 = 200;
/// The programs of one user may have the agent hold one in so many of the descriptors that it can have.
const DESCRIPTOR_SHARE: u64 = 4;
const TICK: Duration = Duration::from_millis(500);
/// Sleeping limit while bytes wait for room in a program's ring, which does not ring for room.
const ROOM_TICK: Duration = Duration::from_millis(1);

impl Engine {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            rails: setup.rails,
            programs: Vec::new(),
            links: Vec::new(),
            broker: Broker::new(setup.policy),
            users: Users::new(descriptor_limit() / DESCRIPTOR_SHARE),
            memory: Memory::new(settings().agent_memory_limit),
            peers: setup.peers,
            from_peers: setup.from_peers,
            server: setup.server,
            served: setup.served,
            succession: setup.succession,
            waiter: setup.waiter,
            signals: setup.signals,
            policy_file: setup.policy_file,
            thresholds: setup.thresholds,
            small: setup.small,
            network: setup.network,
            instance: setup.instance,
            next_link: 0,
            next_program: 0,
            registrations: Registrations::default(),
            counters: Counters::default(),
            now: Instant::now(),
            now_us: 0,
            busy: false,
            next_look: Instant::now(),
            looked: Instant::now(),
            board: setup.board,
            idle_exit: setup.idle_exit,
            occupied: Instant::now(),
            start: Instant::now(),
            spin: setup.spin,
            events: Vec::new(),
            changed: Vec::new(),
            scratch: Vec::new(),
            batch: Vec::new(),
            block: Vec::new(),
            delivered: Vec::new(),
            controls: Vec::new(),
            touched: Vec::new(),
            gave_up: Vec::new(),
            dropped: false,
            unpublished: Vec::new(),
            bells: Vec::new(),
            ending: Vec::new(),
        }
    }

    /// Runs until a signal asks for the end, or nobody needs it.
    pub(super) fn run(&mut self) {
        let mut rounds = 0u32;
        let mut last_work = Instant::now();
        let mut next_tick = Instant::now();
        loop {
            let now = Instant::now();
            self.now = now;
            self.now_us = (now - self.start).as_micros() as u64;
            let mut work = self.poll_rails();
            work |= self.collect();
            work |= self.transmit();
            rounds = rounds.wrapping_add(1);
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
                if self.report(now) {
                    tracing::info!("no program needs this agent");
                    return;
                }
            }
            if now >= self.next_look {
                self.busy = self.judge();
                self.next_look = now + if self.busy { worth::PERIOD } else { TICK };
            }
            if work {
                last_work = now;
                if !rounds.is_multiple_of(ROUNDS_PER_LOOK) {
                    continue;
                }
                self.acknowledge();
                self.tell_rest();
                if self.look(Duration::ZERO) {
                    return;
                }
                continue;
            }
            self.end_those_over();
            self.acknowledge();
            if now - last_work < self.spin {
                std::thread::yield_now();
                continue;
            }
            if self.sleep() {
                return;
            }
            last_work = Instant::now();
        }
    }

    /// Sleeps until something happens; true when the agent is to end.
    fn sleep(&mut self) -> bool {
        let (mut news, mut throttled) = (false, false);
        let now = Instant::now();
        for program in self.programs.iter_mut().flatten().filter(|program| program.awake) {
            if !self.users.may_take(program.session.uid, now) {
                throttled = true;
                continue;
            }
            if let Some(port) = &program.port {
                port.doze();
                news |= port.has_news();
            }
            program.awake = false;
        }
        let may_sleep = self
            .rails
            .iter_mut()
            .all(|rail| rail.fabric.wait_descriptor().is_none() || rail.fabric.may_sleep());
        let linked = self.links.iter().flatten().next().is_some();
        let polled = linked && self.rails.iter().any(|rail| rail.fabric.wait_descriptor().is_none());
        if news {
            self.wake_programs_with_news();
        }
        let waits = |program: &Program| !program.overflow.is_empty() || !program.outbox.is_empty();
        let overflow = self.programs.iter().flatten().any(waits) || throttled;
        self.tell_rest();
        // An answer that is due already has no room at the moment.
        let answer = |link: &Link| link.queue.owes.due().filter(|due| *due > self.now_us);
        let due = |link: &Link| link.queue.poll_timeout().into_iter().chain(answer(link)).min();
        let due = self.links.iter().flatten().filter_map(due).min();
        let due = due.map(|due| Duration::from_micros(due.saturating_sub(self.now_us).max(1)));
        let limit = match (news || !may_sleep, polled, overflow) {
            (true, ..) => Duration::ZERO,
            (_, true, _) | (.., true) => ROOM_TICK,
            _ => due.unwrap_or(TICK).min(if self.busy { worth::PERIOD } else { TICK }),
        };
        self.counters.sleeps += 1;
        self.look(limit)
    }

    /// Says what programs' sockets had no room for.
    fn tell_rest(&mut self) {
        for index in 0..self.programs.len() {
            if self.programs[index].as_mut().is_some_and(|program| !program.tell_rest()) {
                self.drop_program(index, "it does not take messages");
            }
        }
    }

    fn wake_programs_with_news(&mut self) {
        for program in self.programs.iter_mut().flatten() {
            if let Some(port) = program.port.as_ref().filter(|port| port.has_news()) {
                port.wake();
                program.awake = true;
                program.idle = 0;
            }
        }
    }

    /// Takes what the sockets have to say, waiting for at most `limit`; true when the agent is to end.
    fn look(&mut self, limit: Duration) -> bool {
        self.rest_idle_programs();
        let tokens = self.waiter.wait(limit);
        let mut end = false;
        for token in tokens {
            match token {
                Token::Signal => end |= self.on_signal(),
                Token::Server => self.accept_programs(),
                Token::Peers => self.hear_peers(),
                Token::Rail => {}
                Token::Doorbell(index) => self.on_doorbell(index),
                Token::Program(index) => self.hear_program(index),
            }
        }
        end || self.succession.is_over
    }

    /// A signal came: true when the agent is to end.
    fn on_signal(&mut self) -> bool {
        let asked = self.signals.take();
        if asked.reload
            && let Some(path) = &self.policy_file
        {
            match Policy::read(path) {
                Ok(policy) => {
                    self.users.reload(&policy, Instant::now());
                    self.broker.policy = policy;
                    tracing::info!(file = %path.display(), "policy read again");
                }
                Err(error) => tracing::error!(file = %path.display(), %error, "the old policy stays"),
            }
        }
        asked.end
    }

    /// Ends links and control connections in good order.
    pub(super) fn shut_down(&mut self) {
        let reason = if self.succession.is_over { "another agent takes over" } else { "the agent ends" };
        for index in 0..self.links.len() {
            self.lose_link(index, reason);
        }
        self.peers.shutdown();
    }

    /// A number that nobody guesses.
    pub(super) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel's generator is ready when a machine runs agents.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }

    /// A stream was opened: it is likely to be used soon.
    pub(super) fn look_soon(&mut self) {
        self.busy = true;
        self.next_look = self.next_look.min(self.now + worth::PERIOD);
    }

    fn on_doorbell(&mut self, index: usize) {
        if let Some(program) = self.programs.get_mut(index).and_then(Option::as_mut)
            && let Some(port) = &program.port
        {
            port.wake();
            program.awake = true;
            program.idle = 0;
        }
    }

    /// Programs that have not sent anything for a while ring when they do.
    fn rest_idle_programs(&mut self) {
        for program in self.programs.iter_mut().flatten() {
            if program.awake && program.idle > IDLE_ROUNDS {
                if let Some(port) = &program.port {
                    port.doze();
                    program.awake = port.has_news();
                }
                program.idle = 0;
            }
        }
    }
}
