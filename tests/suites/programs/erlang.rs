//! Erlang: its two kinds of sockets in every packet and delivery mode.

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};

use crate::scripts::script;

/// A port that is free together with the next.
fn two_ports() -> u16 {
    loop {
        let port = free_port();
        if std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn echo(arena: &Arena) -> String {
    let number = two_ports();
    let port = number.to_string();
    let (program, script) = (find("escript", "erlang-base"), script("erlang/echo.escript"));
    let server = arena.start("erlang", arena.command(&program, &[&script, "serve", &port]));
    arena.listening(number);
    arena.listening(number + 1);
    let said = arena.run(arena.command(&program, &[&script, "call", &port, "5"])).stdout;
    let status = server.end(libc::SIGTERM);
    format!("{said}{status}")
}

#[test]
fn erlang_sockets() {
    both(true, echo);
}
