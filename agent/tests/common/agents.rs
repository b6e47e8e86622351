//! Agents that tests start, and questions to them.

use super::{Scratch, convoy};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An agent of a test, with a CONVOY_DIR of its own.
pub struct Agent {
    pub child: Child,
    pub place: Scratch,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command of an agent on loopback, at a port of the kernel's choice.
pub fn agent_command(place: &Scratch, arguments: &[&str]) -> Command {
    let mut command = convoy();
    command.args(["agent", "--insecure", "--listen", "127.0.0.1", "--port", "0"]).args(arguments);
    command.env("CONVOY_DIR", place.path("")).env("CONVOY_FABRIC", "tcp").env("NO_COLOR", "1");
    command
}

impl Agent {
    /// An agent with its own CONVOY_DIR; nothing where there is no libfabric.
    pub fn start(name: &str, arguments: &[&str]) -> Option<Agent> {
        Agent::start_with(name, |command| command.args(arguments))
    }

    /// The same, with whatever is said of its command.
    pub fn start_with(name: &str, say: impl FnOnce(&mut Command) -> &mut Command) -> Option<Agent> {
        let place = Scratch::new(name);
        let mut command = agent_command(&place, &[]);
        say(&mut command);
        let log = fs::File::create(place.path("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut agent = Agent { child, place };
        until("the agent is ready or ends", || {
            agent.log().contains("agent is ready") || agent.child.try_wait().unwrap().is_some()
        });
        if agent.log().contains("no device for fabric") {
            eprintln!("skipped: libfabric.so.1 is not installed");
            return None;
        }
        assert!(agent.log().contains("agent is ready"), "{}", agent.log());
        Some(agent)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path("log")).unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        sockets(&self.place).pop().expect("a socket")
    }

    pub fn get(&self, page: &str) -> (String, String) {
        ask(UnixStream::connect(self.socket()).unwrap(), &format!("GET {page} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = convoy();
        command.args(arguments).env("CONVOY_DIR", self.place.path("")).env("CONVOY_FABRIC", "tcp");
        command.output().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(i32::try_from(self.child.id()).unwrap(), signal);
    }
}

pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The sockets for questions below a CONVOY_DIR.
pub fn sockets(place: &Scratch) -> Vec<PathBuf> {
    let directories = fs::read_dir(place.path("")).unwrap().flatten();
    let inside = directories.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    inside
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|word| word == "status"))
        .collect()
}

/// Sends a request: the head and the body of the answer.
pub fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (head.to_owned(), body.to_owned())
}
