//! Somebody who tries to get at what is not theirs, with the rights that this process was started with. What is got is printed, a
//! line `got WHAT` each; at the end `tried N`. Nothing is changed that can be got at.
//!
//! | | |
//! |---|---|
//! | `intruder look DIRECTORY [PID..]` | every file and socket below the directory, and everything of these processes |
//! | `intruder offer SOCKET LOCAL REMOTE` | to the agent there: a connection of its own between these addresses |
//! | `intruder flood SOCKET KIND` | the agent there, until it is killed: `connections`, `hellos`, `offers`, `nonsense` |
//! | `intruder pose SOCKET` | as the agent, until it is killed: prints what programs send to it |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod look;

use std::path::Path;

fn main() {
    // Whoever forgets it need not look for it.
    // SAFETY: no memory is involved.
    unsafe { libc::alarm(600) };
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["look", directory, ref pids @ ..] => look::look(Path::new(directory), pids),
        ["offer", socket, local, remote] => {
            agent::offer(Path::new(socket), local.parse().unwrap(), remote.parse().unwrap());
        }
        ["flood", socket, kind] => agent::flood(Path::new(socket), kind),
        ["pose", socket] => agent::pose(Path::new(socket)),
        _ => panic!("see the top of the source"),
    }
}
