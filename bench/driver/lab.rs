//! One run of a pair of programs: its private directory, its environment and its transport.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use tempfile::TempDir;

pub(crate) use crate::account::Account;
use crate::cleanup;
use crate::counters::Counters;
use crate::process::{Finished, Process};

/// The name of the library in a run that belongs to another account.
const LIBRARY_COPY: &str = "libconvoy.so";
const READY_POLL: Duration = Duration::from_millis(10);

/// What carries the bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Unix,
    /// No sockets at all: a ring in shared memory, as a reference.
    Ring,
    Convoy,
}

impl Transport {
    /// Those that a program with sockets can use.
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Unix, Self::Convoy];
    /// For programs that speak only TCP.
    pub(crate) const NO_UNIX: [Self; 2] = [Self::Tcp, Self::Convoy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Ring => "ring",
            Self::Convoy => "convoy",
        }
    }
}

/// Which end of the connection a process is; with pinning each has its own CPU.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What holds for the whole session of measuring.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) library: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) pin: bool,
    /// Beyond the time a program is asked to run for.
    pub(crate) watchdog: Duration,
}

impl Lab {
    /// How long a program that measures for the usual period may take before it counts as hung.
    pub(crate) fn limit(&self) -> Duration {
        self.watchdog + Duration::from_secs_f64(self.seconds)
    }

    fn cpu(&self, side: Side) -> Option<usize> {
        self.pin.then_some(match side {
            Side::Client => 0,
            Side::Server => 1,
        })
    }
}

/// One run: everything it writes is in a directory that goes when this goes.
pub(crate) struct Run<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) transport: Transport,
    directory: TempDir,
    settings: BTreeMap<String, String>,
    /// The one processor on which all programs run, if they are to share one.
    cpu: Option<usize>,
    /// How many programs have been started.
    started: Cell<usize>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lab: &'a Lab, transport: Transport) -> Result<Self> {
        let directory =
            TempDir::with_prefix_in(cleanup::prefix(), cleanup::place()).context("a private directory")?;
        for name in ["registry", "stats"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path)?;
            private(&path)?;
        }
        Ok(Self { lab, transport, directory, settings: BTreeMap::new(), cpu: None, started: Cell::new(0) })
    }

    /// Convoy's setting `name` for the programs that are started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Puts all programs that are started from now on onto processor `cpu`.
    pub(crate) fn bind_all_to(&mut self, cpu: usize) {
        self.cpu = Some(cpu);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command in this run's environment: preloaded when the transport is Convoy, untouched otherwise.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.plain_command(program);
        if self.transport == Transport::Convoy {
            let mut stats = self.path("stats").into_os_string();
            stats.push("/");
            command
                .env("LD_PRELOAD", self.library())
                .env("CONVOY_DIR", self.path("registry"))
                .env("CONVOY_STATS", stats)
                .envs(&self.settings);
        }
        command
    }

    /// The same, never preloaded.
    pub(crate) fn plain_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CONVOY") {
                command.env_remove(name);
            }
        }
        // A program's complaint ends with the error, not with a backtrace.
        command.env_remove("RUST_BACKTRACE").env_remove("LD_PRELOAD").current_dir(self.directory.path());
        command
    }

    pub(crate) fn start(&self, command: Command, side: Side) -> Result<Process> {
        let number = self.started.replace(self.started.get() + 1);
        Process::start(command, self.cpu.or(self.lab.cpu(side)), self.path(&format!("stderr-{number}")))
    }

    /// Starts `count` programs that only compute, until they are dropped.
    pub(crate) fn start_busy_loops(&self, count: usize) -> Result<Vec<Process>> {
        let path = self.lab.programs.join("load-busy");
        let errors = |number| self.path(&format!("busy-{number}"));
        (0..count).map(|number| Process::start(self.plain_command(&path), None, errors(number))).collect()
    }

    fn library(&self) -> PathBuf {
        let copy = self.path(LIBRARY_COPY);
        if copy.exists() { copy } else { self.lab.library.clone() }
    }

    /// Hands the run's directory to another account, with a copy of the library that it can read.
    pub(crate) fn give_to(&self, account: Account) -> Result<()> {
        std::fs::copy(&self.lab.library, self.path(LIBRARY_COPY)).context("copying the library")?;
        for name in ["", "registry", "stats", LIBRARY_COPY] {
            account.own(&self.path(name))?;
        }
        Ok(())
    }

    /// Waits until something listens on the loopback `port`; `server` must not end meanwhile.
    pub(crate) fn await_port(&self, port: u16, server: &mut Process) -> Result<()> {
        self.await_that(server, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    }

    /// The same for a Unix socket.
    pub(crate) fn await_socket(&self, path: &Path, server: &mut Process) -> Result<()> {
        self.await_that(server, || UnixStream::connect(path).is_ok())
    }

    /// Waits until the server has written `words` to its stderr.
    pub(crate) fn await_output(&self, server: &mut Process, words: &str) -> Result<()> {
        let path = server.errors().to_owned();
        self.await_that(server, || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(words)))
    }

    fn await_that(&self, server: &mut Process, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + self.lab.watchdog;
        while !ready() {
            if Instant::now() >= deadline || server.has_ended()? {
                bail!("{} did not become ready{}", server.name(), server.complaint());
            }
            std::thread::sleep(READY_POLL);
        }
        Ok(())
    }

    /// The counters of the processes that have ended since they were last asked for.
    pub(crate) fn take_counters(&self) -> Counters {
        Counters::take(&self.path("stats"))
    }

    /// Starts both halves of a load program, the client when the server is ready.
    pub(crate) fn start_pair(&self, program: &str, arguments: &[String]) -> Result<(Process, Process)> {
        let (server, place) = self.start_server(program, arguments)?;
        Ok((server, self.start_client(program, &place, arguments)?))
    }

    /// Starts the server half of a load program and waits until it is ready; beside it what tells a client where it is.
    fn start_server(&self, program: &str, arguments: &[String]) -> Result<(Process, [OsString; 2])> {
        let path = |name| self.path(&format!("{name}-{}", self.started.get())).into_os_string();
        let mut place = match self.transport {
            Transport::Unix => ["--unix".into(), path("socket")],
            Transport::Ring => ["--file".into(), path("ring")],
            Transport::Tcp | Transport::Convoy => ["--port".into(), "0".into()],
        };
        let mut command = self.command(self.lab.programs.join(program));
        command.args(["--role", "server"]).args(arguments).args(&place);
        let mut server = self.start(command, Side::Server)?;
        let ready = server.line(self.lab.watchdog)?;
        let port = ready.strip_prefix("ready ").ok_or_else(|| anyhow!("{program} said {ready:?}"))?;
        if matches!(self.transport, Transport::Tcp | Transport::Convoy) {
            place[1] = port.into();
        }
        Ok((server, place))
    }

    fn start_client(&self, program: &str, place: &[OsString], arguments: &[String]) -> Result<Process> {
        let mut command = self.command(self.lab.programs.join(program));
        command.args(["--role", "client"]).args(arguments).args(place);
        self.start(command, Side::Client)
    }

    /// Runs a load program to its end; the values that either half printed.
    pub(crate) fn pair(&self, program: &str, arguments: &[String]) -> Result<PairResult> {
        let mut result = self.crowd(program, arguments, 1, arguments)?;
        let client = result.clients.pop().unwrap_or_default();
        result.server.values.extend(client);
        Ok(result.server)
    }

    /// Runs one server half and several client halves of a load program to their ends.
    pub(crate) fn crowd(
        &self,
        program: &str,
        server_arguments: &[String],
        clients: usize,
        client_arguments: &[String],
    ) -> Result<CrowdResult> {
        let (mut server, place) = self.start_server(program, server_arguments)?;
        let start = |_| self.start_client(program, &place, client_arguments);
        let mut running = (0..clients).map(start).collect::<Result<Vec<_>>>()?;
        let ended = running.iter_mut().map(|client| client.wait(self.lab.limit()));
        let ended = ended.collect::<Result<Vec<_>>>()?;
        server.release();
        let server_end = server.wait(self.lab.watchdog)?;
        let cpu_seconds = server_end.cpu_seconds + ended.iter().map(|end| end.cpu_seconds).sum::<f64>();
        Ok(CrowdResult {
            server: PairResult { values: server_end.values(), cpu_seconds, counters: self.take_counters() },
            clients: ended.iter().map(Finished::values).collect(),
        })
    }
}

/// What a pair of programs gave.
pub(crate) struct PairResult {
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) cpu_seconds: f64,
    pub(crate) counters: Counters,
}

/// What a server and its clients gave.
pub(crate) struct CrowdResult {
    /// The server's values; CPU time and counters are everybody's.
    pub(crate) server: PairResult,
    pub(crate) clients: Vec<BTreeMap<String, f64>>,
}

impl PairResult {
    pub(crate) fn value(&self, name: &str) -> Result<f64> {
        match self.values.get(name) {
            Some(value) if value.is_finite() => Ok(*value),
            _ => bail!("no {name} in the output"),
        }
    }
}

/// Convoy's registry must be for its owner alone.
fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?)
}

/// A port on which nothing listened a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
