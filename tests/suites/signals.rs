//! Signal handlers: what the program sees of them, handlers that never return, interrupted waits; cancelled
//! threads; fork handlers. The program is in C,
//! because a handler that leaves by siglongjmp is beyond what Rust allows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, Scratch, WARMTHS};
use std::path::Path;
use std::process::Command;

/// Compiles the program and compares one of its cases.
fn compare(case: &str, check: impl FnOnce(Check) -> Check) {
    let scratch = Scratch::new();
    let program = scratch.join("signals");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/signals.c");
    let status =
        Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("cc").success(), "the program does not compile");
    check(Check::new(program.to_str().unwrap(), case).variants(&WARMTHS[..1])).compare();
}

#[test]
fn actions() {
    compare("actions", Check::plain);
}

#[test]
fn jumps() {
    compare("jumps", |check| check);
}

#[test]
fn interruptions() {
    compare("interruptions", |check| check);
}

#[test]
fn cancellation() {
    compare("cancellation", |check| check);
}

#[test]
fn fork_handlers() {
    compare("fork_handlers", |check| check);
}
