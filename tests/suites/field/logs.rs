//! Log lines: each names the stream, the peer and the reason.

use super::talk::{ERRORS, Pair, arena};
use std::fs;

#[test]
fn a_demotion_names_its_stream_and_reason() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[("CONVOY_LOG", "debug")]);
    pair.server.tell("fdopen");
    let said = fs::read_to_string(arena.path(ERRORS)).unwrap();
    let (own, other) = pair.server.ends.borrow().clone();
    let line = format!("stream {own} > {other} (descriptor ");
    let found = said
        .lines()
        .find(|text| text.contains("goes back to the kernel"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(found.contains(&line) && found.ends_with(": fdopen, dprintf and the like"), "{found}");
}

#[test]
fn a_broken_channel_names_its_peer_its_streams_and_the_reason() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[("CONVOY_LOG", "info")]);
    pair.client.overstate(&arena);
    assert_eq!(pair.server.tell("try"), "ConnectionReset");
    let said = fs::read_to_string(arena.path(ERRORS)).unwrap();
    let peer = pair.client.pid();
    let channel = format!(
        "convoy: warn: channel to process {peer} ended, its streams (1) are reset: impossible cursor"
    );
    assert!(said.lines().any(|line| line == channel), "{said}");
    let (own, other) = pair.server.ends.borrow().clone();
    let reset = format!("to process {peer} is reset: impossible cursor");
    assert!(
        said.lines().any(|line| line.contains(&format!("{own} > {other}")) && line.ends_with(&reset)),
        "{said}"
    );
}

#[test]
fn what_the_kernel_said_is_in_words() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[("CONVOY_DIR", "/proc/none")]);
    let said = fs::read_to_string(arena.path(ERRORS)).unwrap();
    assert!(said.contains("cannot use /proc/none: No such file or directory (ENOENT)"), "{said}");
    drop(pair);
}
