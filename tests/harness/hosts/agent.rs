//! The `convoy agent` of a host: started, hurt, restarted, its log read. Natively there are none, and nothing happens.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(self.child.id());
        }
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
        let child = self.agent_command(arguments, settings).spawn().expect("convoy agent");
        world.agents.borrow_mut()[self.number] = Some(Agent { child, mark });
        self.agent_says("agent is ready");
    }

    /// An agent's command that writes to the host's log.
    pub fn agent_command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let world = self.world;
        let mut command = self.plain(world.path("convoy"), &["agent"]);
        command
            .args(arguments)
            .env("CONVOY_DIR", world.directory())
            .env("CONVOY_FABRIC", world.provider())
            .env("CONVOY_GATHER", "always");
        command.env("CONVOY_LOG", "info").env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        command.envs(settings.iter().copied()).process_group(0);
        let log = || appending(&self.log_path());
        command.stdout(log()).stderr(log());
        command
    }

    /// Another agent takes the place of the present one, which must end well.
    pub fn replace_agent(&self) {
        if let Some(mut old) = self.replace_orphan() {
            let status = wait(&mut old.child, PATIENCE);
            let well = status.is_some_and(|status| status.success());
            self.world.check(well, &format!("the agent that was replaced has ended with {status:?}"));
        }
    }

    /// Another agent takes the place of the one that runs on the host, whoever has started it.
    fn replace_orphan(&self) -> Option<Agent> {
        if !self.world.accelerated() {
            return None;
        }
        let mark = self.agent_log().len();
        let command = &mut self.agent_command(&["--insecure", "--take-over"], &[]);
        let child = command.spawn().expect("convoy agent");
        let old = self.world.agents.borrow_mut()[self.number].replace(Agent { child, mark });
        self.agent_says("agent is ready");
        old
    }

    /// Another agent begins to take over and is killed after some time; whether the present one has handed over, and ended.
    pub fn kill_successor(&self, after: Duration) -> bool {
        let mark = self.agent_log().len();
        let mut child =
            self.agent_command(&["--insecure", "--take-over"], &[]).spawn().expect("convoy agent");
        std::thread::sleep(after);
        kill_group(child.id());
        child.wait().expect("wait");
        let about_to = self.agent_log().get(mark..).is_some_and(|said| said.contains("takes over from"));
        let deadline = Instant::now() + Duration::from_secs(if about_to { 10 } else { 0 });
        loop {
            let ended = self.agent_has_ended();
            if ended || Instant::now() >= deadline {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
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

    /// What any of its agents has said of programs and hosts that they have taken for liars.
    pub(super) fn accusations(&self) -> Vec<String> {
        let words = ["a line that cannot be", "broke the rules of its channel", "says what cannot be"];
        let accuses = |line: &&str| words.iter().any(|words| line.contains(words));
        self.agent_log().lines().filter(accuses).map(str::to_owned).collect()
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

    /// Whether the agent has ended by itself, and well; it is not there any more then.
    fn agent_has_ended(&self) -> bool {
        let ended = self.with_agent(|agent| agent.child.try_wait().expect("wait"));
        if let Some(status) = ended {
            self.world
                .check(status.success(), &format!("the agent of host {} ended with {status}", self.number));
            self.world.agents.borrow_mut()[self.number] = None;
        }
        ended.is_some()
    }

    fn with_agent<T>(&self, look: impl FnOnce(&mut Agent) -> T) -> T {
        look(self.world.agents.borrow_mut()[self.number].as_mut().expect("an agent"))
    }

    /// The agent's process id.
    pub fn agent_pid(&self) -> u32 {
        self.with_agent(|agent| agent.child.id())
    }

    /// The process id of the agent, if there is one.
    pub fn running_agent(&self) -> Option<u32> {
        self.world.agents.borrow()[self.number].as_ref().map(|agent| agent.child.id())
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
