//! Runs one program to its end, natively or preloaded, under a watchdog.
//!
//! The harness process itself is never preloaded. Every run is its own process group with its own registry
//! directory; a run that outlives its limit is killed by that group and fails with everything it has written.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::kit::hosts::HOSTS;
use crate::{Counters, Scratch, library};

/// Tells a test program how to start its peer; see [`crate::kit::puppet`].
pub const PEER_LIBRARY: &str = "TEST_PEER_LIBRARY";

/// Which of the processes of a run have the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Native,
    /// Everybody.
    Preloaded,
    /// The program itself, but not the peer process that it starts.
    SubjectOnly,
    /// The peer process that the program starts, but not the program.
    PeerOnly,
}

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Task {
    program: PathBuf,
    arguments: Vec<OsString>,
    settings: Vec<(String, OsString)>,
    mode: Mode,
    limit: Duration,
}

/// What came out.
#[derive(Debug)]
pub struct Run {
    /// How it was run.
    pub mode: Mode,
    /// The command line, for messages.
    pub command: String,
    /// How the program ended.
    pub status: ExitStatus,
    /// Everything it wrote.
    pub stdout: String,
    /// Everything it complained about.
    pub stderr: String,
    /// The sums over all its processes.
    pub counters: Counters,
}

impl Task {
    /// A native run without arguments, limited to a minute, or to `CONVOY_TEST_SECONDS`.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_path_buf(),
            arguments: Vec::new(),
            settings: Vec::new(),
            mode: Mode::Native,
            limit: usual_limit(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.settings.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Chooses who has the library.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it. Panics when it outlives its limit, or leaves processes or a directory behind.
    pub fn run(&self) -> Run {
        let (registry, files) = (Scratch::in_memory(), Scratch::new());
        // As in /dev/shm, every user may have a part of his own there.
        registry.open_to_all();
        fs::create_dir(files.join("stats")).expect("directory for counters");
        files.open_to_all();
        // A program that gives up its rights still leaves its counters.
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(files.join("stats"), open).expect("chmod of the counters' directory");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).process_group(0);
        command.stdout(appending(&files.join("stdout"))).stderr(appending(&files.join("stderr")));
        self.environment(&mut command, registry.path(), &files.join("stats"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let group = child.id();
        let status = wait(&mut child, self.limit);
        let quiet = status.is_some() && wait_for_group(group, Duration::from_secs(20));
        let remains = if quiet { String::new() } else { describe_group(group) };
        kill_group(group);
        let status = status.unwrap_or_else(|| child.wait().expect("wait for a killed program"));
        let run = Run {
            mode: self.mode,
            command: self.to_string(),
            status,
            stdout: text(&files.join("stdout")),
            stderr: text(&files.join("stderr")),
            counters: Counters::read(&files.join("stats")),
        };
        assert!(remains.is_empty(), "still running when it should have ended:\n{remains}\n{}", run.report());
        assert_eq!(run.counters.impossible(), None, "a counter below zero\n{}", run.report());
        registry
            .remove()
            .unwrap_or_else(|error| panic!("registry directory not removable: {error}\n{}", run.report()));
        run
    }

    fn environment(&self, command: &mut Command, registry: &Path, stats: &Path) {
        clear_settings(command);
        match self.mode {
            Mode::Native => {}
            Mode::Preloaded => preload(command, registry, stats),
            Mode::SubjectOnly => {
                preload(command, registry, stats);
                command.env(PEER_LIBRARY, "");
            }
            Mode::PeerOnly => {
                preload(command, registry, stats);
                command.env_remove("LD_PRELOAD").env(PEER_LIBRARY, library::path());
            }
        }
        for (name, value) in &self.settings {
            command.env(name, value);
        }
    }
}

/// How long a run may take where nobody says more.
fn usual_limit() -> Duration {
    let seconds = std::env::var("CONVOY_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Takes everything that concerns Convoy out of a command's environment.
pub fn clear_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONVOY") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env_remove(PEER_LIBRARY).env_remove(HOSTS);
}

/// Puts the library under a command, with a registry of its own, promoting at the first call. A wake-up that is lost stays lost.
pub fn preload(command: &mut Command, registry: &Path, stats: &Path) {
    let mut target = stats.as_os_str().to_owned();
    target.push("/");
    command.env("LD_PRELOAD", library::path()).env("CONVOY_DIR", registry).env("CONVOY_STATS", target);
    command.env("CONVOY_PROMOTE_AFTER", "1").env("CONVOY_LOOK_SECONDS", "0");
}

impl std::fmt::Display for Task {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.settings {
            write!(out, "{name}={} ", value.to_string_lossy())?;
        }
        write!(out, "{}", self.program.display())?;
        self.arguments.iter().try_for_each(|argument| write!(out, " {}", argument.to_string_lossy()))
    }
}

impl Run {
    /// Everything about the run, for a failure message.
    pub fn report(&self) -> String {
        format!(
            "{:?}: {}\nended with {}\n--- stdout\n{}--- stderr\n{}--- counters: {}\n",
            self.mode,
            self.command,
            self.status,
            tail(&self.stdout),
            tail(&self.stderr),
            self.counters
        )
    }

    /// Panics unless bytes went through a channel.
    pub fn assert_accelerated(&self) {
        assert!(self.counters.get("bytes_sent") > 0, "no byte went through a channel\n{}", self.report());
    }
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(20_000);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[start..]
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A file that several processes may write to, each line whole.
pub fn appending(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("file for output")
}

/// Waits for a child's end; `None` when the time is over first.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    let pid = libc::c_long::from(child.id());
    // SAFETY: no pointers; the child has not been waited for, so the number is still its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    let fd = i32::try_from(fd).expect("a descriptor");
    // SAFETY: the kernel has just given us this descriptor.
    let _owner = unsafe { OwnedFd::from_raw_fd(fd) };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
        if ready > 0 {
            return Some(child.wait().expect("wait"));
        }
        if left.is_zero() {
            return None;
        }
    }
}

/// The processes of a group that are not yet zombies.
fn group_members(group: u32) -> Vec<u32> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if fields.len() > 2 && fields[2] == group.to_string() && fields[0] != "Z" && fields[0] != "X" {
            members.push(pid);
        }
    }
    members
}

/// True when the group has no living member any more.
pub fn wait_for_group(group: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !group_members(group).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Where every thread of a group is, for the message of a test that hangs.
pub fn describe_group(group: u32) -> String {
    let mut out = String::new();
    let read = |path: String| fs::read_to_string(path).unwrap_or_default().replace('\0', " ");
    for pid in group_members(group) {
        let _ = writeln!(out, "process {pid}: {}", read(format!("/proc/{pid}/cmdline")).trim());
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let base = task.path().display().to_string();
            let (place, call) = (read(format!("{base}/wchan")), read(format!("{base}/syscall")));
            let state = read(format!("{base}/stat"));
            let state =
                state.rsplit_once(')').map_or("?", |(_, rest)| rest.trim_start().get(..1).unwrap_or("?"));
            let _ =
                writeln!(out, "  {}: {state} in {place}, call {}", task.file_name().display(), call.trim());
        }
        out += &channels_of(pid);
    }
    if out.is_empty() { "nothing that can be seen".into() } else { out }
}

/// What `convoy dump` says of a process that has the library, if the command lies beside that.
fn channels_of(pid: u32) -> String {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let library = maps.lines().find_map(|line| line.ends_with("/libconvoy.so").then(|| line.split_once('/')));
    let Some((_, path)) = library.flatten() else { return String::new() };
    let command = Path::new("/").join(path).with_file_name("convoy");
    let dump = Command::new(command).arg("dump").arg(pid.to_string()).env_remove("LD_PRELOAD").output();
    dump.map_or(String::new(), |dump| String::from_utf8_lossy(&dump.stdout).into_owned())
}

/// Ends a whole process group.
pub fn kill_group(group: u32) {
    let group = i32::try_from(group).expect("a process id");
    // SAFETY: no pointers. The group is one that this harness made.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}
