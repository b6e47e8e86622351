//! The agent as other commands see it: whether one answers for this user here, and what it says about itself.

use convoy_runtime::agent::server;
use convoy_runtime::config::Settings;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::ffi::{CStr, OsStr};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than an agent takes for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const LONGEST: u64 = 64 << 20;

/// Where an agent listens, in the order in which programs look for one: the user's own, then the machine's.
pub(crate) fn places(settings: &Settings) -> Vec<PathBuf> {
    let Ok(network) = server::network_of(None) else { return Vec::new() };
    let user = rustix::process::geteuid().as_raw();
    let path = |owner| server::socket_path(&settings.directory, owner, network).ok();
    [Some(user), None].into_iter().filter_map(path).map(|path| path_of(&path).to_owned()).collect()
}

pub(crate) fn path_of(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Where the agent that listens at `agent` answers questions.
pub(crate) fn status_path(agent: &Path) -> PathBuf {
    agent.with_extension("status")
}

/// The agent that programs of this user would find.
pub(crate) fn find(settings: &Settings) -> Option<PathBuf> {
    places(settings).into_iter().find(|path| listens(path))
}

/// Whether an agent listens there that programs of this user would trust.
fn listens(path: &Path) -> bool {
    let connect = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    connect().is_ok_and(|socket| is_trusted(&socket))
}

/// Root or this user is at the other end.
fn is_trusted(socket: impl AsFd) -> bool {
    let user = rustix::process::geteuid();
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid.is_root() || peer.uid == user)
}

/// Asks the agent whose socket for programs is `agent` for a page.
///
/// # Errors
/// It does not answer, or with something else than the page.
pub(crate) fn ask(agent: &Path, page: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(status_path(agent))?;
    if !is_trusted(&stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it takes too long"),
        _ => error,
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(body.trim().to_owned())),
    }
}
