//! What the service manager is told, if one has started this agent: sd_notify(3) without its library.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Programs can find this agent.
pub(super) fn ready() {
    tell("READY=1");
}

/// This process is the service now, and not the one that was.
pub(super) fn main_process() {
    tell(&format!("MAINPID={}", std::process::id()));
}

fn tell(what: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // Nobody who could do anything about it.
    let _ =
        UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(what.as_bytes(), &address(&place)?));
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(place: &OsStr) -> std::io::Result<SocketAddr> {
    match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    }
}
