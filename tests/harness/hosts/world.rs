//! One run of some programs on several hosts: all of them natively, or all of them under Convoy with agents.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::agent::Agent;
use super::network::{Network, Plan, enter};
use super::program::{Ended, Program};
use super::{PATIENCE, skip, text, until, unusable};
use crate::run::{appending, clear_settings, preload};
use crate::user::become_user;
use crate::{Counters, Mode, Scratch, library};

/// Hosts, with what belongs to one run on them.
pub struct World {
    // Namespaces go first: with them go processes that would still write into the directories.
    network: Network,
    mode: Mode,
    provider: String,
    registry: Scratch,
    files: Scratch,
    pub(super) agents: RefCell<Vec<Option<Agent>>>,
    next: Cell<u32>,
}

/// One host of a world.
#[derive(Clone, Copy)]
pub struct Host<'w> {
    pub(super) world: &'w World,
    pub(super) number: usize,
}

impl World {
    /// Makes the hosts; without agents so far. Nothing, after saying why, where this machine cannot have hosts.
    pub fn new(mode: Mode, provider: &str, plan: &Plan) -> Option<Self> {
        if let Some(why) = unusable() {
            skip(why);
            return None;
        }
        let network = match Network::new(plan) {
            Ok(network) => network,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let (registry, files) = (Scratch::in_memory(), Scratch::new());
        registry.open_to_all();
        files.open_to_all();
        let agents = RefCell::new((0..plan.hosts).map(|_| None).collect());
        let provider = provider.to_owned();
        let world = Self { network, mode, provider, registry, files, agents, next: Cell::new(0) };
        for name in ["stats", "other", "live"] {
            fs::create_dir(world.path(name)).expect("directory for counters");
            fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o777)).expect("chmod");
        }
        if mode != Mode::Native {
            // A build in the middle of a run must not change what runs, and every user must be able to read it.
            copy(library::path(), &world.path("libconvoy.so"));
            copy(&library::command(), &world.path("convoy"));
        }
        Some(world)
    }

    /// Natively or under Convoy.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether this is the run under Convoy.
    pub fn accelerated(&self) -> bool {
        self.mode != Mode::Native
    }

    /// What carries bytes between its agents.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The namespaces.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// One of the hosts.
    pub fn host(&self, number: usize) -> Host<'_> {
        Host { world: self, number }
    }

    /// A place for files of the programs.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.files.join(name)
    }

    /// Writes a file there and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).expect("file for a program");
        self.path(name)
    }

    /// A copy of a program there.
    pub(super) fn copied(&self, program: &str) -> PathBuf {
        let place = self.path("program");
        copy(Path::new(program), &place);
        place
    }

    /// Where programs and agents find each other.
    pub fn directory(&self) -> &Path {
        self.registry.path()
    }

    /// A name that was not given before.
    pub(super) fn fresh(&self, name: &str) -> String {
        let number = self.next.replace(self.next.get() + 1);
        format!("{name}-{number}")
    }

    /// Starts an agent on every host.
    pub fn start_agents(&self) {
        let agents = self.agents.borrow().len();
        (0..agents).for_each(|host| self.host(host).start_agent(&["--insecure"]));
    }

    /// The counters of processes that are alive: of all, or of one.
    pub fn live(&self, pid: Option<u32>) -> Counters {
        let (place, mut command) = (self.path("live"), Command::new(self.path("convoy")));
        clear_settings(&mut command);
        command.env("CONVOY_DIR", self.directory()).args(["stat", "--json"]);
        command.args(pid.map(|pid| pid.to_string()));
        // A user is shown its own processes.
        let owner = pid.and_then(|pid| fs::metadata(format!("/proc/{pid}")).ok()).map(|about| about.uid());
        if let Some(user) = owner.filter(|user| *user != 0) {
            become_user(&mut command, user, user);
        }
        let output = command.output().expect("convoy stat");
        fs::write(place.join("now.json"), output.stdout).expect("counters of a moment");
        Counters::read(&place)
    }

    /// The counters of processes that have ended.
    pub fn counters(&self) -> Counters {
        Counters::read(&self.path("stats"))
    }

    /// What programs and agents have written, for messages.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        for entry in fs::read_dir(self.files.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|kind| kind == "err" || kind == "out" || kind == "log") {
                let said = text(&path);
                // Of a load's progress the end is enough.
                let lines = said.lines().filter(|line| !line.starts_with("progress "));
                let said: String = lines.map(|line| format!("{line}\n")).collect();
                let start = said.len().saturating_sub(4000);
                let start = (start..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(said.len());
                out.push_str(&format!("--- {}\n{}", path.display(), &said[start..]));
            }
        }
        out
    }

    /// Fails with everything that is known.
    pub fn fail(&self, what: &str) -> ! {
        let (mode, provider, ended) = (self.mode, &self.provider, self.counters());
        let live = if self.accelerated() { self.live(None) } else { Counters::default() };
        // Once more behind the logs: who sees an end of them sees why.
        let why = what.lines().next().unwrap_or_default();
        panic!("{mode:?} over {provider}: {what}\nended {ended}\nlive {live}\n{}\nso: {why}", self.logs());
    }

    /// Fails unless something holds.
    pub fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.fail(what);
        }
    }

    /// Waits until something holds.
    pub fn eventually(&self, what: &str, attempt: impl FnMut() -> bool) {
        self.check(until(attempt), &format!("{what}: this does not come about"));
    }

    /// Waits until somebody listens on a port of a host.
    pub fn listening(&self, on: Host<'_>, port: u16) {
        let address = (on.address(), port);
        let connect = || std::net::TcpStream::connect(address).is_ok();
        self.eventually("a listener", || self.network.inside(on.number, connect));
    }

    /// Ends the agents in good order, and then everything must be removable and nothing be left.
    pub fn finish(self) -> Counters {
        let started = self.agents.borrow().len();
        (0..started).for_each(|host| self.host(host).end_agent());
        let left = self.network.processes();
        self.check(left.is_empty(), &format!("still running: {}", left.join("; ")));
        let counters = self.counters();
        self.check(counters.impossible().is_none(), "a counter below zero");
        let accused: Vec<String> = (0..started).flat_map(|host| self.host(host).accusations()).collect();
        self.check(accused.is_empty(), &format!("nobody has lied here: {}", accused.join("; ")));
        self.network.remove().expect("namespaces are still there");
        self.registry.remove().expect("CONVOY_DIR not removable");
        self.files.remove().expect("files not removable");
        counters
    }
}

impl<'w> Host<'w> {
    /// Its world.
    pub fn world(&self) -> &'w World {
        self.world
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address in the first network.
    pub fn address(&self) -> IpAddr {
        self.world.network.address(self.number, 0).into()
    }

    /// The address as text.
    pub fn ip(&self) -> String {
        self.address().to_string()
    }

    /// Runs `ip` on this host.
    ///
    /// # Errors
    /// What it says.
    pub fn configure(&self, words: &str) -> Result<(), String> {
        super::network::ip(&format!("-n {} {words}", self.world.network.name(self.number)))
    }

    /// A command on this host that knows nothing of Convoy, in a process group of its own.
    pub fn plain(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0).current_dir(self.world.files.path());
        clear_settings(&mut command);
        command.env("LC_ALL", "C");
        let namespace = self.world.network.descriptor(self.number);
        // A test that is killed takes its programs with it.
        let prepare = move || {
            // SAFETY: no memory is involved.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            enter(namespace)
        };
        // SAFETY: two system calls between fork and exec; the descriptor is open in the child as well.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// A command on this host: natively or under Convoy, as the world is.
    pub fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = self.plain(program, arguments);
        if self.world.accelerated() {
            preload(&mut command, self.world.directory(), &self.world.path("stats"));
            command.env("LD_PRELOAD", self.world.path("libconvoy.so"));
            command.env("CONVOY_FABRIC", &self.world.provider);
        }
        command
    }

    /// Starts a program in the background.
    pub fn start(&self, name: &str, mut command: Command) -> Program<'w> {
        let name = self.world.fresh(name);
        let (out, err) = (self.world.path(format!("{name}.out")), self.world.path(format!("{name}.err")));
        command.stdout(appending(&out)).stderr(appending(&err));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Program::new(self.world, name, child)
    }

    /// Runs a program to its end, whatever that is.
    pub fn try_run(&self, command: Command) -> Ended {
        self.start("run", command).ended_within(PATIENCE)
    }

    /// Runs a program to its end, and fails when that is not a success; what it has written to stdout.
    pub fn run(&self, command: Command) -> String {
        let shown = format!("{command:?}");
        let ended = self.try_run(command);
        let status = ended.status;
        self.world.check(
            status.success(),
            &format!("{shown}\nended with {status}\n{}{}", ended.stdout, ended.stderr),
        );
        ended.stdout
    }
}

fn copy(from: &Path, to: &Path) {
    // Whoever builds it just now is done in a moment.
    let copied = until(|| fs::copy(from, to).is_ok_and(|bytes| bytes > 0));
    assert!(copied, "cannot copy {}", from.display());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("chmod");
}
