//! The settings: what the environment and the settings file say, read once when the library is loaded.
//!
//! Lives here: the typed settings, loading them and telling the user about a wrong value. Not here: the table of
//! variables (`config::variables`), how single values are read (`config::values`), rules (`config::rules`) and the file
//! (`config::file`). Nothing here is called on the data path except [`settings`], which is one load.
#![forbid(unsafe_code)]

mod file;
mod rules;
mod values;
mod variables;

#[cfg(test)]
mod tests;

use crate::sys;
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsString};
use std::sync::OnceLock;

pub use rules::{Rules, Selector};
pub use variables::{VARIABLES, Variable};

/// How long a waiting thread spins before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Adaptive: longer after recent traffic, not at all where processors are scarce.
    Auto,
    /// Always this many microseconds; 0 sleeps at once.
    Micros(u32),
}

/// What carries bytes past the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fabric {
    /// Shared memory on one host, and the best card there is between hosts.
    Auto,
    /// Shared memory on one host only.
    Shm,
    /// Nothing: every connection stays on the kernel, and is counted.
    Off,
    /// Shared memory on one host, and this libfabric provider between hosts.
    Provider(String),
}

/// Which connections with other hosts travel by the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// All over a card; over a fabric that the kernel carries those whose messages can be gathered.
    Auto,
    /// All.
    Always,
}

/// Which log lines are written; each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stderr,
    /// Appended to this file (absolute path).
    File(CString),
}

/// Where the counters go when the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsTarget {
    Stderr,
    /// This file (absolute path), replaced.
    File(CString),
    /// A file PID.json in this directory (absolute path, ending in `/`).
    Directory(CString),
}

/// Every setting, already checked against its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// False: the library does nothing at all.
    pub enabled: bool,
    /// A batch leaves when it holds this many bytes.
    pub batch_bytes: u32,
    /// A batch leaves when it holds this many frames.
    pub batch_frames: u32,
    /// Longest time in microseconds that a batch is held; 0 holds only while something is in flight.
    pub batch_delay_us: u32,
    /// Payloads above this many bytes travel in blocks.
    pub coalesce_max: u32,
    /// Bytes of one lane; a power of two.
    pub ring_bytes: u32,
    /// Bytes that one direction of a stream may have outstanding.
    pub window_bytes: u32,
    /// Bytes that this process may promise to buffer.
    pub memory_limit: u64,
    /// Bytes that all processes of the user may promise to buffer.
    pub user_memory_limit: u64,
    /// Bytes that an agent lets others send ahead to the programs of its host.
    pub agent_memory_limit: u64,
    pub spin: Spin,
    /// Seconds after which a sleeping thread looks by itself; 0 for never.
    pub look_seconds: u32,
    pub fabric: Fabric,
    pub gather: Gather,
    pub rules: Rules,
    pub log: LogLevel,
    pub log_target: LogTarget,
    /// `None`: counters are not written at exit.
    pub stats: Option<StatsTarget>,
    /// False: io_uring_setup fails with ENOSYS, so that programs use epoll.
    pub io_uring_allow: bool,
    /// Calls on a connection before it may leave the kernel.
    pub promote_after: u32,
    /// Directory of the registry, the segments' names and the counters (absolute path).
    pub directory: Cow<'static, CStr>,
    /// An agent that is started for the program may do without a key.
    pub agent_insecure: bool,
}

impl Settings {
    /// What holds where nothing is set.
    pub const DEFAULT: Settings = Settings {
        enabled: true,
        batch_bytes: 16 << 10,
        batch_frames: 256,
        batch_delay_us: 0,
        coalesce_max: 4096,
        ring_bytes: 256 << 10,
        window_bytes: 256 << 10,
        memory_limit: 256 << 20,
        user_memory_limit: 2 << 30,
        agent_memory_limit: 256 << 20,
        spin: Spin::Auto,
        look_seconds: 5,
        fabric: Fabric::Auto,
        gather: Gather::Auto,
        rules: Rules::ALL,
        log: LogLevel::Warn,
        log_target: LogTarget::Stderr,
        stats: None,
        io_uring_allow: false,
        promote_after: 4,
        directory: Cow::Borrowed(c"/dev/shm"),
        agent_insecure: false,
    };
}

/// Something in the settings that the user should hear about, as one line without a line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// A wrong value is an error, an unknown name a warning.
    pub level: LogLevel,
    pub text: String,
}

static DEFAULT: Settings = Settings::DEFAULT;
static LOADED: OnceLock<Settings> = OnceLock::new();

/// The settings in force: the defaults until [`load`] has run.
#[inline]
pub fn settings() -> &'static Settings {
    LOADED.get().unwrap_or(&DEFAULT)
}

/// Reads the environment and the settings file, and says on stderr what is wrong with them. Only the first call
/// has an effect. Where the environment is that of somebody with fewer rights, nothing is read and Convoy is off.
pub fn load() {
    if LOADED.get().is_some() {
        return;
    }
    if sys::runs_with_foreign_rights() {
        let _ = LOADED.set(Settings { enabled: false, log: LogLevel::Off, ..Settings::DEFAULT });
        crate::log::set_level(LogLevel::Off);
        return;
    }
    let (settings, complaints) = read(std::env::vars_os().collect());
    for complaint in complaints.iter().filter(|complaint| complaint.level <= settings.log) {
        // Always stderr, also when the log goes to a file: whoever set the value must see it.
        crate::log::to_stderr(complaint.level, format_args!("{}", complaint.text));
    }
    crate::log::set_level(settings.log);
    let _ = LOADED.set(settings);
}

/// Settings out of an environment, and what is wrong with it.
pub fn read(environment: Vec<(OsString, OsString)>) -> (Settings, Vec<Complaint>) {
    let mut settings = Settings::DEFAULT;
    let mut complaints = Vec::new();
    let given = of_convoy(environment, &mut complaints);
    let listed = match find(&given, file::VARIABLE) {
        Some(path) => file::load(path, &mut complaints),
        None => Vec::new(),
    };
    for variable in VARIABLES {
        // The environment wins over the file, also with a wrong value.
        let Some(text) = find(&given, variable.name).or_else(|| find(&listed, variable.name)) else {
            continue;
        };
        if let Err(text) = variable.apply(&mut settings, text) {
            let text = format!("{text}; using the default, {}", variable.default);
            complaints.push(Complaint { level: LogLevel::Error, text });
        }
    }
    (settings, complaints)
}

/// Checks one value of one variable.
///
/// # Errors
/// A line that names the variable, the value and what is allowed.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    match variables::named(name) {
        Some(variable) => {
            let mut settings = Settings::DEFAULT;
            variable.apply(&mut settings, value)
        }
        None => Err(format!("{name}: there is no such setting")),
    }
}

/// The file name by which this process's program was started (not its path), as `prog:` rules see it; empty if unknown.
/// Where it was started by a descriptor's path, the name of its file.
pub fn program() -> &'static [u8] {
    static NAME: OnceLock<Vec<u8>> = OnceLock::new();
    NAME.get_or_init(|| {
        let started = sys::started_as();
        let mut path = [0; 4096];
        let path = if started.is_empty() || started.starts_with(b"/proc/") || started.starts_with(b"/dev/") {
            let length = sys::readlink(c"/proc/self/exe", &mut path).unwrap_or(0);
            let path = &path[..length];
            path.strip_suffix(b" (deleted)").unwrap_or(path)
        } else {
            started
        };
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path).to_vec()
    })
}

/// The variables of an environment whose name is ours and whose value is not empty.
fn of_convoy(
    environment: Vec<(OsString, OsString)>,
    complaints: &mut Vec<Complaint>,
) -> Vec<(String, String)> {
    let mut given = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        if (name != "CONVOY" && !name.starts_with("CONVOY_")) || value.is_empty() {
            continue;
        }
        match variables::named(name) {
            None => complaints.push(unknown(name)),
            // Bytes that are not UTF-8 become a replacement character, which no setting but a path allows.
            Some(variable) => given.push((variable.name.to_owned(), value.to_string_lossy().into_owned())),
        }
    }
    given
}

fn unknown(name: &str) -> Complaint {
    let text = format!("{}: there is no such setting; it has no effect", values::shown(name));
    Complaint { level: LogLevel::Warn, text }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
