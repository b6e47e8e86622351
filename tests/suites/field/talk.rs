//! Two talkers with a stream between them, the `convoy` command beside them, and their memory.

use convoy_tests::{Arena, Mode, Output, library};
use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// One end.
pub struct Talker {
    child: RefCell<Child>,
    orders: RefCell<ChildStdin>,
    answers: RefCell<Lines<BufReader<ChildStdout>>>,
    pid: u32,
    /// Its own address and the other's, once connected.
    pub ends: RefCell<(String, String)>,
}

impl Talker {
    fn start(mut command: Command, errors: &std::path::Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(errors).unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let orders = RefCell::new(child.stdin.take().unwrap());
        let answers = RefCell::new(BufReader::new(child.stdout.take().unwrap()).lines());
        let pid = child.id();
        Self { child: RefCell::new(child), orders, answers, pid, ends: RefCell::default() }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it says next.
    pub fn answer(&self) -> String {
        self.answers.borrow_mut().next().expect("an answer").unwrap()
    }

    /// Gives an order without waiting for its end.
    pub fn begin(&self, order: &str) {
        writeln!(self.orders.borrow_mut(), "{order}").unwrap();
    }

    /// Gives an order and waits until it is obeyed.
    pub fn tell(&self, order: &str) -> String {
        self.begin(order);
        self.answer()
    }

    pub fn signal(&self, signal: i32) {
        convoy_tests::kit::sys::kill(i32::try_from(self.pid).unwrap(), signal);
    }

    /// Ends it and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Makes it lie about how far it has written its lane: behind a page, each side's cursors take 192 bytes of the segment.
    pub fn overstate(&self, arena: &Arena) {
        const TOO_FAR: u64 = 1 << 60;
        let side = super::dump::of(arena, self.pid)["channels"][0]["side"].as_u64().unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let line = maps.lines().find(|line| line.contains("/memfd:convoy-segment")).expect("a segment");
        let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.pid)).unwrap();
        memory.write_all_at(&TOO_FAR.to_ne_bytes(), start + 4096 + side * 192).unwrap();
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server and a client whose stream is on a channel in both directions.
pub struct Pair {
    pub server: Talker,
    pub client: Talker,
}

/// What they say on stderr.
pub const ERRORS: &str = "talkers.err";

impl Pair {
    /// Connected, and on TCP until they have talked.
    pub fn connected(arena: &Arena, settings: &[(&str, &str)]) -> Self {
        let start = |arguments: &[&str]| {
            let mut command = arena.command(convoy_tests::program!("talker"), arguments);
            command.envs(settings.iter().copied());
            Talker::start(command, &arena.path(ERRORS))
        };
        let server = start(&["listen"]);
        let port = server.answer();
        let client = start(&["connect", &port]);
        for talker in [&server, &client] {
            let said = talker.answer();
            let (own, other) = said.split_once(' ').unwrap();
            *talker.ends.borrow_mut() = (own.to_owned(), other.to_owned());
        }
        Self { server, client }
    }

    /// On the channel.
    pub fn accelerated(arena: &Arena, settings: &[(&str, &str)]) -> Self {
        let pair = Self::connected(arena, settings);
        for _ in 0..12 {
            pair.client.tell("send 10");
            pair.server.tell("take 10");
            pair.server.tell("send 20");
            pair.client.tell("take 20");
        }
        pair
    }
}

/// A fresh directory for programs under Convoy.
pub fn arena() -> Arena {
    Arena::new(Mode::Preloaded)
}

/// The `convoy` command, beside the arena's programs.
pub fn command(arena: &Arena, arguments: &[&str]) -> Command {
    let mut command = arena.command(library::command(), arguments);
    command.env_remove("LD_PRELOAD");
    command
}

/// Runs it to its end.
pub fn convoy(arena: &Arena, arguments: &[&str]) -> Output {
    let output = arena.try_run(command(arena, arguments), Duration::from_secs(60));
    assert!(output.status.code().is_some(), "{arguments:?} is killed: {}{}", output.stdout, output.stderr);
    output
}
