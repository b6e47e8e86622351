//! The sockets that others connect to: programs, other agents, and those who ask questions. Made here, or taken over from the
//! agent that runs ([`super::take_over`]). Not here: what comes over them.

use super::serve;
use super::take_over::{Predecessor, TakenOver};
use crate::cli::Agent as Options;
use crate::contact;
use convoy_control::peers;
use convoy_runtime::agent::server::{self, Server};
use convoy_runtime::config::Settings;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the sockets are to be.
pub(super) struct Places {
    /// For programs.
    pub(super) programs: CString,
    /// For other agents.
    pub(super) agents: SocketAddr,
    /// For questions, beside the Unix socket.
    metrics: Option<SocketAddr>,
}

/// All of them.
pub(super) struct Sockets {
    pub(super) programs: Server,
    pub(super) agents: TcpListener,
    pub(super) questions: serve::Sockets,
    /// Hosts that have an agent, if it is known.
    pub(super) hosts: Vec<IpAddr>,
}

impl Places {
    /// # Errors
    /// A line: the directory has too long a name.
    pub(super) fn new(options: &Options, settings: &Settings, network: u64) -> Result<Self, String> {
        let user = user();
        let owner = (user != 0).then_some(user);
        let programs = server::socket_path(&settings.directory, owner, network);
        Ok(Self {
            programs: programs.map_err(|error| error.to_string())?,
            agents: SocketAddr::new(options.listen.unwrap_or(peers::config::ANYWHERE), options.port),
            metrics: options.metrics,
        })
    }

    fn path(&self) -> &Path {
        contact::path_of(&self.programs)
    }

    /// The file of the Unix socket for questions.
    pub(super) fn status(&self) -> PathBuf {
        contact::status_path(self.path())
    }

    /// Who may read the metrics learns the same at the Unix socket.
    fn status_mode(&self) -> u32 {
        if self.metrics.is_some() { 0o666 } else { 0o600 }
    }

    /// Makes the sockets.
    ///
    /// # Errors
    /// A line: another agent has them, or a place cannot be used.
    pub(super) fn bind(&self) -> Result<Sockets, String> {
        let agents = peers::listen(self.agents).map_err(|error| error.to_string())?;
        // The machine's for root, otherwise the user's own.
        let (directory_mode, mode) = if user() == 0 { (0o755, 0o666) } else { (0o700, 0o600) };
        let path = self.path();
        make_directory(path, directory_mode)?;
        let programs = Server::bind(&self.programs, mode).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another agent listens at {} (--take-over takes its place)", path.display())
            }
            _ => format!("cannot listen at {}: {error}", path.display()),
        })?;
        let questions = serve::Sockets {
            unix: serve::listen_unix(&self.status(), self.status_mode())?,
            tcp: self.metrics.map(serve::listen_tcp).transpose()?,
        };
        Ok(Sockets { programs, agents, questions, hosts: Vec::new() })
    }

    /// Takes the sockets that the running agent has handed over, where they are those that are wanted. When this returns,
    /// that agent has ended.
    ///
    /// # Errors
    /// A line, and the running agent goes on: a socket that it does not have cannot be made.
    pub(super) fn adopt(&self, taken: TakenOver) -> Result<Sockets, String> {
        let failed = |error: io::Error| error.to_string();
        let known = taken.agents.local_addr().map_err(failed)?;
        let is_wanted = known.ip() == self.agents.ip() && [0, known.port()].contains(&self.agents.port());
        let (programs, hosts) = (taken.programs.try_clone().map_err(failed)?, taken.knowledge.hosts.clone());
        let agents = if is_wanted {
            taken.agents.try_clone().map_err(failed)?
        } else {
            peers::listen(self.agents).map_err(|error| error.to_string())?
        };
        let tcp = match (self.metrics, &taken.metrics) {
            (Some(wanted), Some(tcp)) if taken.knowledge.metrics == Some(wanted) => {
                Some(tcp.try_clone().map_err(failed)?)
            }
            (wanted, _) => wanted.map(serve::listen_tcp).transpose()?,
        };
        let unix = taken.status.try_clone().map_err(failed)?;
        let (pid, version) = (taken.knowledge.pid, taken.knowledge.version.clone());
        tracing::info!(pid, version, hosts = hosts.len(), "takes over from the running agent");
        Predecessor::await_end(taken.commit());
        // It is this process's from now on.
        let _ = fs::set_permissions(self.status(), fs::Permissions::from_mode(self.status_mode()));
        let programs = Server::adopt(programs, &self.programs);
        Ok(Sockets { programs, agents, questions: serve::Sockets { unix, tcp }, hosts })
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The directory of the socket: made if it is not there, and refused if it is somebody else's.
fn make_directory(socket: &Path, mode: u32) -> Result<(), String> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    // It may be there already.
    let _ = fs::DirBuilder::new().mode(mode).create(directory);
    let about = fs::symlink_metadata(directory)
        .map_err(|error| format!("cannot use {}: {error}", directory.display()))?;
    if !about.is_dir() || about.uid() != user() || about.mode() & 0o022 != 0 {
        let directory = directory.display();
        return Err(format!("{directory} is not a directory of this user that only it can write"));
    }
    Ok(())
}
