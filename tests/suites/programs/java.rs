//! Java: blocking sockets, selectors, asynchronous channels, HTTP; both ends in one process and in two.

use std::fs;
use std::path::Path;
use std::process::Command;

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};

const PACKAGE: &str = "openjdk-17-jdk-headless";

/// Compiles all programs into the arena.
fn compile(arena: &Arena) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/java");
    let sources = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let sources: Vec<String> = sources.collect();
    let mut arguments = vec!["-d", "classes"];
    arguments.extend(sources.iter().map(String::as_str));
    let mut command = arena.command(find("javac", PACKAGE), &arguments);
    command.env_remove("LD_PRELOAD");
    arena.run(command);
}

fn java(arena: &Arena, program: &str, role: &str, port: &str) -> Command {
    let quick = ["-XX:-UsePerfData", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx300m"];
    let arguments = [&quick[..], &["-cp", "classes", program, role, port]].concat();
    arena.command(find("java", PACKAGE), &arguments)
}

fn exercise(arena: &Arena, program: &str) -> String {
    compile(arena);
    let number = free_port();
    let port = number.to_string();
    let mut said = arena.run(java(arena, program, "both", &port)).stdout;
    let number = free_port();
    let port = number.to_string();
    let server = arena.start("server", java(arena, program, "server", &port));
    arena.listening(number);
    for _ in 0..2 {
        said += &arena.run(java(arena, program, "client", &port)).stdout;
    }
    said + &server.end(libc::SIGTERM).to_string()
}

#[test]
fn java_blocking() {
    both(true, |arena| exercise(arena, "Blocking"));
}

#[test]
fn java_selecting() {
    both(true, |arena| exercise(arena, "Selecting"));
}

#[test]
fn java_asynchronous() {
    both(true, |arena| exercise(arena, "Asynchronous"));
}

#[test]
fn java_web() {
    both(true, |arena| exercise(arena, "Web"));
}
