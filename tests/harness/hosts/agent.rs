//! The `convoy agent` of a host: started, hurt, restarted, its log read. Natively there are none, and nothing happens.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use super::world::{Host, World};
use super::{PATIENCE, text};
use crate::json::numbers;
use crate::kit::sys;
use crate::run::{appending, kill_group, wait};

/// An agent that was started.
pub struct Agent {
    child: Child,
    /// Where its part of the host's log begins.
    mark: usize,
}

impl Drop for Agent {
    fn drop(&mut self) {
        kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

impl Host<'_> {
    /// Starts an agent with these arguments, and waits until it is ready.
    pub fn start_agent(&self, arguments: &[&str]) {
        self.start_agent_with(arguments, &[]);
    }

    /// The same with settings.
    pub fn start_agent_with(&self, arguments: &[&str], settings: &[(&str, &str)]) {
        let world = self.world;
        if !world.accelerated() {
            return;
        }
        assert!(world.agents.borrow()[self.number].is_none(), "host {} has an agent", self.number);
        let mark = self.agent_log().len();
        let mut command = self.plain(world.path("convoy"), &["agent"]);
        command
            .args(arguments)
            .env("CONVOY_DIR", world.directory())
            .env("CONVOY_FABRIC", world.provider())
            .env("CONVOY_GATHER", "always");
        command.env("CONVOY_LOG", "info").env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        command.envs(settings.iter().copied()).process_group(0);
        let log = || appending(&self.log_path());
        let child = command.stdout(log()).stderr(log()).spawn().expect("convoy agent");
        world.agents.borrow_mut()[self.number] = Some(Agent { child, mark });
        self.agent_says("agent is ready");
    }

    fn log_path(&self) -> PathBuf {
        self.world.path(format!("agent-{}.log", self.number))
    }

    /// Everything that agents of this host have written.
    pub fn agent_log(&self) -> String {
        text(&self.log_path())
    }

    /// What the present agent has written since it was started or since [`Host::agent_mark`].
    pub fn agent_log_since(&self) -> String {
        let mark = self.world.agents.borrow()[self.number].as_ref().map_or(0, |agent| agent.mark);
        self.agent_log().get(mark..).unwrap_or_default().to_owned()
    }

    /// What was written until now does not count for [`Host::agent_says`] any more.
    pub fn agent_mark(&self) {
        let length = self.agent_log().len();
        if let Some(agent) = &mut self.world.agents.borrow_mut()[self.number] {
            agent.mark = length;
        }
    }

    /// Waits until its log has a line with these words. It must not have ended.
    pub fn agent_says(&self, words: &str) {
        if !self.world.accelerated() {
            return;
        }
        self.world.eventually(&format!("the agent of host {} says '{words}'", self.number), || {
            let said = self.agent_log_since().lines().any(|line| line.contains(words));
            said || {
                self.agent_lives();
                false
            }
        });
    }

    /// How many lines of its log have these words.
    pub fn agent_said(&self, words: &str) -> usize {
        self.agent_log_since().lines().filter(|line| line.contains(words)).count()
    }

    /// Sum of a counter over the links of the agent, which runs.
    pub fn link_counter(&self, name: &str) -> u64 {
        let mut command = self.plain(self.world.path("convoy"), &["stat", "--json"]);
        let output = command.env("CONVOY_DIR", self.world.directory()).output().expect("convoy stat");
        let text = String::from_utf8_lossy(&output.stdout);
        let links = text.split_once("\"links\"").map_or("", |(_, links)| links);
        numbers(links, name).into_iter().map(|number| number as u64).sum()
    }

    /// Fails when the agent has ended by itself.
    pub fn agent_lives(&self) {
        if !self.world.accelerated() {
            return;
        }
        let status = self.with_agent(|agent| agent.child.try_wait().expect("wait"));
        if let Some(status) = status {
            self.world.fail(&format!("the agent of host {} has ended with {status}", self.number));
        }
    }

    fn with_agent<T>(&self, look: impl FnOnce(&mut Agent) -> T) -> T {
        look(self.world.agents.borrow_mut()[self.number].as_mut().expect("an agent"))
    }

    /// The agent's process id.
    pub fn agent_pid(&self) -> u32 {
        self.with_agent(|agent| agent.child.id())
    }

    /// Sends it a signal.
    pub fn signal_agent(&self, signal: i32) {
        if self.world.accelerated() {
            sys::kill(i32::try_from(self.agent_pid()).expect("a process id"), signal);
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill_agent(&self) {
        drop(self.world.agents.borrow_mut()[self.number].take());
    }

    /// Ends it in good order, if there is one: it must not have crashed, and must leave no socket.
    pub fn end_agent(&self) {
        let Some(mut agent) = self.world.agents.borrow_mut()[self.number].take() else { return };
        sys::kill(i32::try_from(agent.child.id()).expect("a process id"), libc::SIGTERM);
        let status = wait(&mut agent.child, PATIENCE.min(Duration::from_secs(30)));
        if status.is_none() && std::env::var_os("CONVOY_TEST_STACKS").is_some() {
            eprintln!("{}", super::program::stacks(agent.child.id()));
        }
        let host = self.number;
        match status {
            Some(status) if status.success() => {}
            Some(status) => self.world.fail(&format!("the agent of host {host} ended with {status}")),
            None => self.world.fail(&format!("the agent of host {host} does not end")),
        }
    }

    /// Where the agent of this host listens for programs of all users.
    pub fn agent_socket(&self) -> PathBuf {
        let cookie = self.world.network().inside(self.number, || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            network_cookie(&socket)
        });
        self.world.directory().join(format!("convoy-agent/{cookie}.agent"))
    }
}

/// The number of the network namespace that a socket belongs to.
fn network_cookie(socket: &impl std::os::fd::AsRawFd) -> u64 {
    let (mut cookie, mut length) = (0_u64, 8_u32);
    let fd = socket.as_raw_fd();
    // SAFETY: room for the value, and its length.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "SO_NETNS_COOKIE");
    cookie
}

impl World {
    /// How many links the present agents have made, by host.
    pub fn links_up(&self) -> Vec<usize> {
        let hosts = self.agents.borrow().len();
        (0..hosts).map(|host| self.host(host).agent_said("link is up")).collect()
    }

    /// Every link that was made has come up at both ends.
    pub fn check_agents(&self) {
        let hosts = self.agents.borrow().len();
        let running = |host: &usize| self.agents.borrow()[*host].is_some();
        (0..hosts).filter(running).for_each(|host| self.host(host).agent_lives());
    }
}
