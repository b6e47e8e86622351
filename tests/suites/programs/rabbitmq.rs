//! RabbitMQ, a server in Erlang, with clients by pika that check every message.

use std::fs;
use std::process::Command;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

use crate::scripts::{python_with, script};

/// Where Debian puts the script that its own wrapper runs as another user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A command with its files in the arena, and with a register of node names of its own, which nobody else's node is in.
fn erlang(arena: &Arena, program: &str, names: u16) -> Command {
    let mut command = arena.command(program, &[]);
    command.env("HOME", arena.path("")).env("ERL_CRASH_DUMP", "/dev/null");
    command.env("ERL_EPMD_PORT", names.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command
}

fn server(arena: &Arena, port: u16, names: u16) -> Service<'_> {
    find("rabbitmq-server", "rabbitmq-server");
    let config = format!("listeners.tcp.default = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n");
    let settings = [
        ("NODENAME", "convoy@localhost".into()),
        ("DIST_PORT", free_port().to_string().into()),
        ("CONFIG_FILE", arena.file("rabbitmq.conf", config)),
        ("ENABLED_PLUGINS_FILE", arena.file("plugins", "[].")),
        ("CONF_ENV_FILE", "/dev/null".into()),
        ("LOGS", "-".into()),
        ("LOG_BASE", arena.path("log")),
        ("MNESIA_BASE", arena.path("mnesia")),
        ("PID_FILE", arena.path("rabbitmq.pid")),
        ("SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none".into()),
    ];
    let mut command = erlang(arena, SERVER, names);
    for (name, value) in settings {
        command.env(format!("RABBITMQ_{name}"), value);
    }
    let server = arena.start("rabbitmq", command);
    // It needs many seconds on a busy machine.
    arena.eventually("the virtual machine's start", || arena.path("rabbitmq.pid").exists());
    arena.eventually("the node's log", || arena.path("mnesia").join("convoy@localhost").exists());
    arena.listening(port);
    server
}

/// Whether a process lives that was started with files of the arena; the virtual machine's helpers have sessions of their own.
fn anybody_left(arena: &Arena) -> bool {
    let home = format!("HOME={}", arena.path("").display());
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("environ"));
    let mut environments = processes.filter_map(|path| fs::read(path).ok());
    environments.any(|text| text.split(|&byte| byte == 0).any(|entry| entry == home.as_bytes()))
}

fn exercise(arena: &Arena) -> String {
    let python = python_with(&[("pika", "python3-pika")]);
    let (number, names) = (free_port(), free_port());
    let mut command = erlang(arena, find("epmd", "erlang-base").to_str().unwrap(), names);
    command.args(["-port", &names.to_string(), "-address", "127.0.0.1"]);
    let register = arena.start("epmd", command);
    arena.listening(names);
    let server = server(arena, number, names);
    let (script, port) = (script("python/rabbit_load.py"), number.to_string());
    let said = arena.run(arena.command(python, &[&script, &port])).stdout;
    assert!(anybody_left(arena), "the server has a home in the arena");
    let ended = server.end(libc::SIGTERM);
    register.end(libc::SIGTERM);
    arena.eventually("the end of all helpers", || !anybody_left(arena));
    format!("{said}{ended}")
}

#[test]
fn rabbitmq_load() {
    both(true, exercise);
}
