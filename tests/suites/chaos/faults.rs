//! What is done to programs, agents, the network and the machine. Most of it is undone some time later, meanwhile other faults
//! happen; what something is done to already is let be, except that it may be killed.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convoy_tests::hosts::network;
use convoy_tests::kit::random::Random;
use convoy_tests::kit::sys;
use convoy_tests::run::kill_group;
use std::os::unix::process::CommandExt;

use crate::field::Field;
use crate::servers::KINDS;
use crate::who::Who;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillServer,
    KillClient,
    KillAgent,
    StopServer,
    StopClient,
    StopAgent,
    ReplaceAgent,
    SuccessorKilled,
    OutOfMemory,
    CutNetwork,
    LosePackets,
    FullMemory,
    FewDescriptors,
    ClockJump,
    ForkStorm,
    Load,
}

impl Fault {
    pub const ALL: [Self; 16] = [
        Self::KillServer,
        Self::KillClient,
        Self::KillAgent,
        Self::StopServer,
        Self::StopClient,
        Self::StopAgent,
        Self::ReplaceAgent,
        Self::SuccessorKilled,
        Self::OutOfMemory,
        Self::CutNetwork,
        Self::LosePackets,
        Self::FullMemory,
        Self::FewDescriptors,
        Self::ClockJump,
        Self::ForkStorm,
        Self::Load,
    ];
}

enum Undo {
    Start(Who),
    Continue(Who, u32),
    /// As many descriptors as it had, for this process.
    Descriptors(Who, u32, libc::rlimit),
    Connect,
    StopLosing,
    Empty,
    End(Child),
}

pub struct Faults {
    random: Random,
    done: BTreeMap<Fault, u64>,
    undo: Vec<(Instant, Undo)>,
    out_of_memory: u64,
    network_cut: bool,
    losing: bool,
    full: bool,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        let (done, undo) = Default::default();
        Self { random, done, undo, out_of_memory: 0, network_cut: false, losing: false, full: false }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.done.values().sum::<u64>() as usize
    }

    pub fn report(&self) -> String {
        let parts: Vec<String> =
            self.done.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        format!(
            "{} ({}), {} killed by the kernel for want of memory",
            self.count(),
            parts.join(", "),
            self.out_of_memory
        )
    }

    /// Between so many milliseconds and so many.
    fn duration(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.random.below(most - least))
    }

    fn later(&mut self, least: u64, most: u64, undo: Undo) {
        let when = Instant::now() + self.duration(least, most);
        self.undo.push((when, undo));
    }

    /// One fault of any kind that is possible now.
    pub fn inflict(&mut self, field: &mut Field<'_>) {
        let fault = Fault::ALL[self.random.below(Fault::ALL.len() as u64) as usize];
        if self.try_inflict(fault, field) {
            *self.done.entry(fault).or_default() += 1;
        }
    }

    fn try_inflict(&mut self, fault: Fault, field: &mut Field<'_>) -> bool {
        let server = Who::Server(self.random.below(field.servers.len() as u64) as usize);
        let client = Who::Client(self.random.below(field.clients.len() as u64) as usize);
        let agent = Who::Agent(self.random.below(2) as usize);
        let any = [server, client, agent][self.random.below(3) as usize];
        match fault {
            Fault::KillServer => self.kill(server, field),
            Fault::KillClient => self.kill(client, field),
            Fault::KillAgent => self.kill(agent, field),
            Fault::StopServer => self.stop(server, field),
            Fault::StopClient => self.stop(client, field),
            Fault::StopAgent => self.stop(agent, field),
            Fault::ReplaceAgent => self.replace(agent, field),
            Fault::SuccessorKilled => self.kill_successor(agent, field),
            Fault::OutOfMemory => self.starve(any, field),
            Fault::CutNetwork => self.cut(field),
            Fault::LosePackets => self.lose(field),
            Fault::FullMemory => self.fill(field),
            Fault::FewDescriptors => self.few_descriptors(any, field),
            Fault::ClockJump => self.jump(field),
            Fault::ForkStorm => self.storm(client, field),
            Fault::Load => self.load(),
        }
    }

    fn kill(&mut self, who: Who, field: &mut Field<'_>) -> bool {
        if who.pid(field).is_none() {
            return false;
        }
        who.kill(field);
        // Whatever else was done to it went with it.
        self.undo.retain(|(_, undo)| !matches!(undo, Undo::Continue(other, _) | Undo::Descriptors(other, ..) if *other == who));
        who.engage(field, true);
        self.later(0, 1500, Undo::Start(who));
        true
    }

    fn stop(&mut self, who: Who, field: &mut Field<'_>) -> bool {
        let Some(pid) = who.free(field) else { return false };
        signal(pid, libc::SIGSTOP);
        who.engage(field, true);
        // Sometimes so long that others take it for dead.
        self.later(20, 6000, Undo::Continue(who, pid));
        true
    }

    fn replace(&mut self, agent: Who, field: &mut Field<'_>) -> bool {
        // Without room, a new agent cannot start.
        let Some(host) = agent.host().filter(|_| agent.free(field).is_some() && !self.full) else {
            return false;
        };
        field.world.host(host).replace_agent();
        true
    }

    fn kill_successor(&mut self, agent: Who, field: &mut Field<'_>) -> bool {
        let Some(host) = agent.host().filter(|_| agent.free(field).is_some()) else { return false };
        let after = self.duration(0, 400);
        if field.world.host(host).kill_successor(after) {
            agent.engage(field, true);
            self.later(0, 500, Undo::Start(agent));
        }
        true
    }

    fn starve(&mut self, who: Who, field: &mut Field<'_>) -> bool {
        if !field.place.has_cgroup() {
            return false;
        }
        let Some(pid) = who.free(field) else { return false };
        let before = field.place.killed();
        who.engage(field, true);
        field.place.starve(pid);
        let until = Instant::now() + Duration::from_secs(2);
        while field.place.killed() == before && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.out_of_memory += u64::from(field.place.killed() > before);
        // It may have wanted none; what it has started goes with it.
        who.kill(field);
        self.later(0, 1500, Undo::Start(who));
        true
    }

    fn cut(&mut self, field: &mut Field<'_>) -> bool {
        if self.network_cut {
            return false;
        }
        field.world.host(0).configure("link set net0 down").unwrap();
        self.network_cut = true;
        self.later(50, 5000, Undo::Connect);
        true
    }

    fn lose(&mut self, field: &mut Field<'_>) -> bool {
        let name = field.world.network().name(0).to_owned();
        if self.losing
            || network::run("tc", &format!("-n {name} qdisc add dev net0 root netem loss 3%")).is_err()
        {
            return false;
        }
        self.losing = true;
        self.later(500, 3000, Undo::StopLosing);
        true
    }

    fn fill(&mut self, field: &mut Field<'_>) -> bool {
        if self.full || !field.world.accelerated() {
            return false;
        }
        field.place.fill();
        self.full = true;
        self.later(200, 4000, Undo::Empty);
        true
    }

    /// Hardly more descriptors than it has open.
    fn few_descriptors(&mut self, who: Who, field: &mut Field<'_>) -> bool {
        // Its processes of fewer descriptors than it has measured give up, and then itself.
        if matches!(who, Who::Server(kind) if KINDS[kind].0 == "postgres") {
            return false;
        }
        let Some(pid) = who.free(field) else { return false };
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let Some(limit) = descriptors(pid, None) else { return false };
        let few = libc::rlimit { rlim_cur: open as u64 + self.random.below(3), ..limit };
        descriptors(pid, Some(few));
        who.engage(field, true);
        self.later(200, 3000, Undo::Descriptors(who, pid, limit));
        true
    }

    fn jump(&mut self, field: &mut Field<'_>) -> bool {
        let far = self.random.below(200_000) as i64 - 100_000;
        field.place.set_clock(far);
        true
    }

    /// Children of a client that have all its connections, and programs that end at once.
    fn storm(&mut self, client: Who, field: &mut Field<'_>) -> bool {
        let Some(pid) = client.free(field) else { return false };
        signal(pid, libc::SIGUSR1);
        let script = "for i in $(seq 60); do /bin/true & done; wait";
        let storm = field.server_host().command("/bin/sh", &["-c", script]).spawn().expect("sh");
        self.later(500, 1500, Undo::End(storm));
        true
    }

    fn load(&mut self) -> bool {
        let script = "for i in 1 2 3 4; do (while :; do :; done) & done; wait";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).process_group(0);
        let child = command.spawn().expect("sh");
        self.later(300, 2500, Undo::End(child));
        true
    }

    /// Undoes what is due.
    pub fn undo_due(&mut self, field: &mut Field<'_>) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.undo).into_iter().partition(|(when, _)| *when <= now);
        self.undo = rest;
        self.undo_these(due, field);
    }

    /// Undoes everything.
    pub fn undo_all(&mut self, field: &mut Field<'_>) {
        let all = std::mem::take(&mut self.undo);
        self.undo_these(all, field);
    }

    fn undo_these(&mut self, all: Vec<(Instant, Undo)>, field: &mut Field<'_>) {
        // An agent needs room to start.
        let (room, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, undo)| matches!(undo, Undo::Empty));
        for (_, undo) in room.into_iter().chain(others) {
            match undo {
                Undo::Start(Who::Agent(_)) if self.full => self.later(100, 500, undo),
                Undo::Start(who) => {
                    who.start(field);
                    who.engage(field, false);
                }
                Undo::Continue(who, pid) => {
                    signal(pid, libc::SIGCONT);
                    who.engage(field, false);
                }
                Undo::Descriptors(who, pid, limit) => {
                    descriptors(pid, Some(limit));
                    who.engage(field, false);
                }
                Undo::Connect => {
                    field.world.host(0).configure("link set net0 up").unwrap();
                    self.network_cut = false;
                }
                Undo::StopLosing => {
                    let name = field.world.network().name(0).to_owned();
                    network::run("tc", &format!("-n {name} qdisc del dev net0 root")).unwrap();
                    self.losing = false;
                }
                Undo::Empty => {
                    field.place.empty();
                    self.full = false;
                }
                Undo::End(mut child) => {
                    kill_group(child.id());
                    child.wait().unwrap();
                }
            }
        }
    }
}

fn signal(pid: u32, signal: i32) {
    sys::kill(i32::try_from(pid).expect("a process id"), signal);
}

/// The limit of a process's descriptors; sets it first if one is given.
fn descriptors(pid: u32, new: Option<libc::rlimit>) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let given = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both limits live, or the one to be set is null.
    let done = unsafe { libc::prlimit(pid as libc::pid_t, libc::RLIMIT_NOFILE, given, &raw mut limit) };
    (done == 0).then_some(limit)
}
