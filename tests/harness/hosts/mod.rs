//! Several hosts on one machine: network namespaces joined by veth pairs, each with an agent of its own.
//!
//! - [`network`]: the namespaces and their addresses, made and removed.
//! - [`world`]: one run of some programs on such hosts, natively or under Convoy: directories, counters, logs.
//! - [`agent`]: the `convoy agent` of a host: started, hurt, restarted, its log read.
//! - [`program`]: a program on a host: started, watched, ended.
//! - [`peers`]: pairs of our own `host_stream` programs.
//!
//! Processes of all hosts are in one pid namespace. Agents of different runs do not meet, because each run has its own
//! namespaces and its own `CONVOY_DIR`.

pub mod agent;
pub mod network;
pub mod peers;
pub mod program;
pub mod world;

pub use network::{Network, Plan};
pub use peers::Pair;
pub use program::Program;
pub use world::{Host, World};

use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Tries something until it works; false when patience is over.
pub fn until(mut attempt: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !attempt() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// What a file says now; nothing when it is not there.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Why no test can run here, if so.
pub fn unusable() -> Option<&'static str> {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        return Some("making network namespaces needs root");
    }
    // Not loaded here: with libfabric come libraries that take over signal handlers.
    let known = std::process::Command::new("ldconfig").arg("-p").output();
    let found = known.is_ok_and(|list| String::from_utf8_lossy(&list.stdout).contains("libfabric.so.1"));
    (!found).then_some("libfabric.so.1 is not installed")
}

/// Says that a test did not run, and why.
pub fn skip(why: &str) {
    println!("skipped: {why}");
    eprintln!("skipped: {why}");
}
