//! A program that runs on a host: what it writes, and how it ends.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use super::world::World;
use super::{PATIENCE, text};
use crate::Counters;
use crate::run::{describe_group, kill_group, wait, wait_for_group};

/// A program in the background, with everything that it has started.
pub struct Program<'w> {
    world: &'w World,
    name: String,
    child: Option<Child>,
}

/// What a program has left.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl<'w> Program<'w> {
    pub(super) fn new(world: &'w World, name: String, child: Child) -> Self {
        Self { world, name, child: Some(child) }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) {
        crate::kit::sys::kill(i32::try_from(self.pid()).expect("a process id"), signal);
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        text(&self.path("out"))
    }

    /// What it has complained about so far.
    pub fn complaints(&self) -> String {
        text(&self.path("err"))
    }

    /// Its counters at this moment.
    pub fn live(&self) -> Counters {
        self.world.live(Some(self.pid()))
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it has written a line that begins so.
    pub fn says(&mut self, line: &str) {
        let name = self.name.clone();
        self.world.eventually(&format!("{name} says '{line}'"), || {
            let said = self.output().lines().any(|known| known.starts_with(line));
            let running = self.running();
            self.world.check(said || running, &format!("{name} has ended and did not say '{line}'"));
            said
        });
    }

    /// Waits until it has ended by itself, with all its children.
    pub fn ended(self) -> Ended {
        self.ended_within(PATIENCE)
    }

    pub(super) fn ended_within(mut self, limit: Duration) -> Ended {
        let mut child = self.child.take().expect("a running program");
        let group = child.id();
        let status = wait(&mut child, limit);
        let quiet = status.is_some() && wait_for_group(group, Duration::from_secs(30));
        let mut remains = if quiet { String::new() } else { describe_group(group) };
        if !quiet && std::env::var_os("CONVOY_TEST_STACKS").is_some() {
            remains.push_str(&stacks(group));
        }
        kill_group(group);
        if status.is_none() {
            let _ = child.wait();
        }
        let (stdout, stderr) = (self.output(), text(&self.path("err")));
        match status {
            Some(status) if quiet => Ended { status, stdout, stderr },
            _ => self.world.fail(&format!("{} does not end:\n{remains}", self.name)),
        }
    }

    /// Waits for a successful end; what it has written.
    pub fn succeeds(self) -> String {
        let (world, name) = (self.world, self.name.clone());
        let ended = self.ended();
        world.check(ended.status.success(), &format!("{name} ended with {}\n{}", ended.status, ended.stderr));
        ended.stdout
    }

    /// Asks it to end, and waits.
    pub fn end(self, signal: i32) -> Ended {
        self.signal(signal);
        self.ended()
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(child.id());
            let _ = child.wait();
        }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.world.path(format!("{}.{kind}", self.name))
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(child.id());
            let _ = child.wait();
        }
    }
}

/// Where the threads of a process are in its code; for people who look for the reason of a hang.
pub(super) fn stacks(pid: u32) -> String {
    let arguments = ["-p", &pid.to_string(), "-batch", "-ex", "thread apply all bt 14"];
    let output = std::process::Command::new("gdb").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
