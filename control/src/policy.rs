//! Which connections may be accelerated, and how much a user may take, as the administrator wrote it down.
//! Lives here: deciding. Reading the file is in `file`, comparing single things in `matching`, saying what
//! is wrong in `complaint`. Not here: enforcing.
//!
//! ```toml
//! [defaults]
//! accelerate = true                # connections that no rule matches
//! join_users = false               # may processes of different users on this host be joined
//! memory_per_user = "256M"         # bytes; k, M and G are powers of 1024
//! streams_per_user = 10000
//! offers_per_second_per_user = 5000
//! bytes_per_second_per_user = 0    # rates: 0 is unlimited
//!
//! [[rule]]                         # the first rule that matches decides
//! allow = false
//! users = ["root", 1001]           # each list: empty or missing is all
//! programs = ["nginx", "/usr/sbin/redis*"]
//! local = ["10.0.0.0/8"]
//! remote = ["fd00::/8", "10.1.2.3"]
//! local_ports = ["8000-8999", 22]
//! remote_ports = []
//!
//! [[rule]]
//! allow = true
//! join_users = true                # instead of the default; only with allow = true
//! rail = "mlx5_0"                  # use this rail; only with allow = true
//!
//! [rails]
//! spread = "hash"                  # or "least-loaded"
//!
//! [[limits]]                       # the first that names the user; what is missing is the default
//! users = ["postgres"]
//! memory = "1G"
//! streams = 50000
//! offers_per_second = 20000
//! bytes_per_second = "500M"
//! ```

mod complaint;
mod file;
mod matching;

use matching::{Network, Ports, Program};
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// What the administrator allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    accelerate: bool,
    join_users: bool,
    rules: Vec<Rule>,
    spread: Spread,
    limits: Limits,
    user_limits: Vec<(Vec<u32>, Limits)>,
}

/// How streams are spread over the rails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// By the addresses and ports of a stream.
    #[default]
    Hash,
    /// To the rail that has least to do.
    LeastLoaded,
}

/// How much one user may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Streams at one time.
    pub streams: u64,
    /// Offers of connections per second; 0 is unlimited.
    pub offers_per_second: u64,
    /// Bytes per second; 0 is unlimited.
    pub bytes_per_second: u64,
}

/// A connection to be decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The user of the process.
    pub uid: u32,
    /// The program's path; its name if that is all there is.
    pub program: &'a str,
    /// This end of the connection.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// What is allowed for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether it may be accelerated.
    pub allow: bool,
    /// Whether its ends may belong to different users of this host.
    pub join_users: bool,
    /// The rail that it must use, if any.
    pub rail: Option<&'a str>,
    /// Which rule decided, counted from 0 in the order of the file; none: the defaults did.
    pub rule: Option<usize>,
}

/// Why a policy cannot be used: one line with file, line number and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError(String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    allow: bool,
    join_users: Option<bool>,
    rail: Option<String>,
    users: Vec<u32>,
    programs: Vec<Program>,
    local: Vec<Network>,
    remote: Vec<Network>,
    local_ports: Vec<Ports>,
    remote_ports: Vec<Ports>,
}

impl Rule {
    fn matches(&self, request: &Request<'_>) -> bool {
        any(&self.users, |user| *user == request.uid)
            && any(&self.programs, |program| program.matches(request.program))
            && any(&self.local, |network| network.contains(request.local.ip()))
            && any(&self.remote, |network| network.contains(request.remote.ip()))
            && any(&self.local_ports, |ports| ports.contains(request.local.port()))
            && any(&self.remote_ports, |ports| ports.contains(request.remote.port()))
    }
}

/// Whether one of `list` fits; an empty list is no condition.
fn any<T>(list: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 256 << 20, streams: 10_000, offers_per_second: 5_000, bytes_per_second: 0 }
    }
}

impl Default for Policy {
    /// What an empty file says: accelerate everything, but do not join different users.
    fn default() -> Policy {
        Policy {
            accelerate: true,
            join_users: false,
            rules: Vec::new(),
            spread: Spread::Hash,
            limits: Limits::default(),
            user_limits: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads the policy file at `path`. Names of users are looked up now.
    ///
    /// # Errors
    /// The file cannot be read; it is not TOML; it says something unknown or impossible.
    pub fn read(path: &Path) -> Result<Policy, PolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| PolicyError(format!("policy file {}: {error}", path.display())))?;
        Policy::parse(&text, &path.display().to_string())
    }

    /// The policy that `text` says; `name` is put into errors as the file's.
    ///
    /// # Errors
    /// It is not TOML; it says something unknown or impossible.
    pub fn parse(text: &str, name: &str) -> Result<Policy, PolicyError> {
        file::parse(text, name)
    }

    /// What is allowed for a connection.
    pub fn decide(&self, request: &Request<'_>) -> Decision<'_> {
        match self.rules.iter().enumerate().find(|(_, rule)| rule.matches(request)) {
            Some((index, rule)) => Decision {
                allow: rule.allow,
                join_users: rule.allow && rule.join_users.unwrap_or(self.join_users),
                rail: rule.rail.as_deref(),
                rule: Some(index),
            },
            None => Decision {
                allow: self.accelerate,
                join_users: self.accelerate && self.join_users,
                rail: None,
                rule: None,
            },
        }
    }

    /// How much a user may take.
    pub fn limits(&self, uid: u32) -> Limits {
        let own = self.user_limits.iter().find(|(users, _)| any(users, |user| *user == uid));
        own.map_or(self.limits, |(_, limits)| *limits)
    }

    /// How streams are spread over the rails.
    pub fn spread(&self) -> Spread {
        self.spread
    }
}
