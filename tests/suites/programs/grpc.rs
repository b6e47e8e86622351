//! gRPC from Python: single calls, streams in both directions, calls that are given up.

use convoy_tests::Arena;
use convoy_tests::arena::{both, free_port};

use crate::scripts::{python_with, script};

fn calls(arena: &Arena) -> String {
    let python = python_with(&[("grpc", "python3-grpcio")]);
    let number = free_port();
    let port = number.to_string();
    let script = script("python/grpc_calls.py");
    let server = arena.start("grpc", arena.command(&python, &[&script, "serve", &port]));
    arena.listening(number);
    let said = arena.run(arena.command(&python, &[&script, "call", &port])).stdout;
    let status = server.end(libc::SIGTERM);
    format!("{said}{status}")
}

#[test]
fn grpc_calls() {
    both(true, calls);
}
