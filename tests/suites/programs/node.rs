//! Node.js: HTTP with connections that stay open, WebSockets, and connections that travel between its processes.

use std::path::Path;
use std::process::Command;

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};

fn node(arena: &Arena, program: &str, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/node").join(program);
    let script = script.display().to_string();
    let all = [&[script.as_str()], arguments].concat();
    let mut command = arena.command(find("node", "nodejs"), &all);
    // Where Debian's packages are, also for a node that is not Debian's.
    command.env("NODE_PATH", "/usr/share/nodejs");
    command
}

fn one_process(arena: &Arena, program: &str) -> String {
    arena.run(node(arena, program, &["both", &free_port().to_string()])).stdout
}

/// A server of one process or, as a cluster, of several.
fn separately(arena: &Arena, program: &str, role: &str, policy: &str) -> String {
    let number = free_port();
    let port = number.to_string();
    let mut command = node(arena, program, &[role, &port]);
    command.env("NODE_CLUSTER_SCHED_POLICY", policy);
    let server = arena.start("server", command);
    arena.listening(number);
    let said = [(); 2].map(|()| arena.run(node(arena, program, &["client", &port])).stdout);
    format!("{}{}", said.concat(), server.end(libc::SIGTERM))
}

#[test]
fn node_http() {
    both(true, |arena| one_process(arena, "http.js") + &separately(arena, "http.js", "server", ""));
}

#[test]
fn node_web_sockets() {
    both(true, |arena| one_process(arena, "sockets.js") + &separately(arena, "sockets.js", "server", ""));
}

/// All processes accept from one listener.
#[test]
fn node_cluster_shared_listener() {
    both(true, |arena| separately(arena, "http.js", "cluster", "none"));
}

/// One process accepts and passes the connections on: those stay with the kernel.
#[test]
fn node_cluster_passed_connections() {
    both(false, |arena| separately(arena, "http.js", "cluster", "rr"));
}

/// Connections that have carried bytes for a while move to another process.
#[test]
fn node_handles() {
    both(true, |arena| arena.run(node(arena, "handles.js", &[&free_port().to_string()])).stdout);
}
