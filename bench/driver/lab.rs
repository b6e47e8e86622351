//! One run of a pair of programs: its private directory, its environment and its transport.

use std::collections::BTreeMap;
use std::ffi::OsStr;
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
use crate::process::Process;

/// The name of the library in a run that belongs to another account.
const LIBRARY_COPY: &str = "libconvoy.so";
const READY_POLL: Duration = Duration::from_millis(10);

/// What carries the bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Unix,
    Convoy,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Unix, Self::Convoy];
    /// For programs that speak only TCP.
    pub(crate) const NO_UNIX: [Self; 2] = [Self::Tcp, Self::Convoy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
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

impl Side {
    /// The file that takes what it says on stderr.
    fn errors(self) -> &'static str {
        match self {
            Self::Client => "client.err",
            Self::Server => "server.err",
        }
    }
}

/// What holds for the whole session of measuring.
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
        Ok(Self { lab, transport, directory, settings: BTreeMap::new() })
    }

    /// Convoy's setting `name` for the programs that are started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command in this run's environment: preloaded when the transport is Convoy, untouched otherwise.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CONVOY") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD").current_dir(self.directory.path());
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

    pub(crate) fn start(&self, command: Command, side: Side) -> Result<Process> {
        Process::start(command, self.lab.cpu(side), self.path(side.errors()))
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
        let path = self.path(Side::Server.errors());
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

    /// The counters of the processes that have ended.
    pub(crate) fn counters(&self) -> Counters {
        Counters::read(&self.path("stats"))
    }

    /// Starts both halves of a load program, the client when the server is ready.
    pub(crate) fn start_pair(&self, program: &str, arguments: &[String]) -> Result<(Process, Process)> {
        let path = self.lab.programs.join(program);
        let mut command = self.command(&path);
        command.args(["--role", "server"]).args(arguments);
        self.add_unix(&mut command);
        let mut server = self.start(command, Side::Server)?;
        let ready = server.line(self.lab.watchdog)?;
        let port = ready.strip_prefix("ready ").ok_or_else(|| anyhow!("{program} said {ready:?}"))?;

        let mut command = self.command(&path);
        command.args(["--role", "client", "--port", port]).args(arguments);
        self.add_unix(&mut command);
        Ok((server, self.start(command, Side::Client)?))
    }

    fn add_unix(&self, command: &mut Command) {
        if self.transport == Transport::Unix {
            command.arg("--unix").arg(self.path("socket"));
        }
    }

    /// Runs a load program to its end; the values that either half printed.
    pub(crate) fn pair(&self, program: &str, arguments: &[String]) -> Result<PairResult> {
        let (mut server, mut client) = self.start_pair(program, arguments)?;
        let client_end = client.wait(self.lab.limit())?;
        server.release();
        let server_end = server.wait(self.lab.watchdog)?;
        let mut values = server_end.values();
        values.extend(client_end.values());
        Ok(PairResult {
            values,
            cpu_seconds: client_end.cpu_seconds + server_end.cpu_seconds,
            counters: self.counters(),
        })
    }
}

/// What a pair of programs gave.
pub(crate) struct PairResult {
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) cpu_seconds: f64,
    pub(crate) counters: Counters,
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
