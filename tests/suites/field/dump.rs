//! `convoy dump` of programs that run, are stopped, or gone.

use super::talk::{Pair, arena, convoy};
use convoy_tests::Arena;
use serde_json::Value;
use std::fs;

/// What the command says of one process.
pub fn dump(arena: &Arena, arguments: &[&str]) -> Value {
    let mut all = vec!["dump", "--json"];
    all.extend(arguments);
    let output = convoy(arena, &all);
    assert!(output.status.success(), "{}", output.stderr);
    let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
    document["processes"][0].clone()
}

pub fn of(arena: &Arena, pid: u32) -> Value {
    dump(arena, &[&pid.to_string()])
}

/// The only stream of a process.
pub fn stream(process: &Value) -> Value {
    let channels = process["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 1, "{process}");
    let streams = channels[0]["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 1, "{process}");
    streams[0].clone()
}

#[test]
fn a_stream_is_shown_with_what_is_on_its_way() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 1000");
    let (server, client) = (of(&arena, pair.server.pid()), of(&arena, pair.client.pid()));
    let (here, there) = (stream(&server), stream(&client));
    let (own, other) = pair.server.ends.borrow().clone();
    assert_eq!((here["local"].as_str().unwrap(), here["peer"].as_str().unwrap()), (&own[..], &other[..]));
    assert_eq!((here["state"].as_str().unwrap(), here["peer_state"].as_str().unwrap()), ("open", "open"));
    let (incoming, outgoing) = (&here["receiving"], &there["sending"]);
    assert_eq!(
        (incoming["path"].as_str().unwrap(), outgoing["path"].as_str().unwrap()),
        ("channel", "channel")
    );
    let waiting = incoming["in_lane"]["bytes"].as_u64().unwrap() + incoming["unread"].as_u64().unwrap();
    assert_eq!(waiting, 1000, "{here}");
    let sent = outgoing["sent"].as_u64().unwrap();
    assert_eq!(sent, incoming["read"].as_u64().unwrap() + 1000, "{here}\n{there}");
    assert_eq!(outgoing["credit"].as_u64().unwrap(), outgoing["limit"].as_u64().unwrap() - sent);
    assert_eq!(incoming["limit"].as_u64().unwrap(), outgoing["limit"].as_u64().unwrap());
    let frame = &server["channels"][0]["receiving"]["listed"][0];
    assert_eq!((frame["kind"].as_str().unwrap(), frame["length"].as_u64().unwrap()), ("data", 1000));
    // It was not disturbed.
    pair.server.tell("take 1000");
    let after = stream(&of(&arena, pair.server.pid()));
    assert_eq!(after["receiving"]["read"].as_u64().unwrap(), sent);
    assert_eq!(after["receiving"]["in_lane"]["bytes"].as_u64().unwrap(), 0);
    let text = convoy(&arena, &["dump", &pair.server.pid().to_string()]).stdout;
    assert!(text.contains("receives by the channel"), "{text}");
    drop(pair);
    arena.finish(false);
}

#[test]
fn large_payloads_are_shown_with_their_blocks() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 16000");
    let client = of(&arena, pair.client.pid());
    let channel = &client["channels"][0];
    assert_eq!(channel["blocks_lent"].as_u64().unwrap(), 1, "{channel}");
    let frame = &channel["sending"]["listed"][0];
    assert_eq!((frame["kind"].as_str().unwrap(), frame["length"].as_u64().unwrap()), ("block", 16000));
    pair.server.tell("take 16000");
}

#[test]
fn who_waits_is_named() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[("CONVOY_SPIN_US", "0")]);
    pair.server.begin("take 5");
    arena.eventually("a thread that sleeps", || {
        let there = stream(&of(&arena, pair.client.pid()));
        there["peer_waiters"].as_array().unwrap().iter().any(|bell| {
            bell["owner"].as_u64().unwrap() == u64::from(pair.server.pid())
                && bell["sleepers"].as_u64().unwrap() > 0
        })
    });
    pair.client.tell("send 5");
    assert_eq!(pair.server.answer(), "done");
}

#[test]
fn a_stopped_process_is_seen_and_stays_stopped() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.server.signal(libc::SIGSTOP);
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pair.server.pid())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next()
    };
    arena.eventually("a stop", || state() == Some('T'));
    pair.client.tell("send 77");
    let here = stream(&of(&arena, pair.server.pid()));
    assert_eq!(here["receiving"]["in_lane"]["bytes"].as_u64().unwrap(), 77);
    assert_eq!(state(), Some('T'));
    pair.server.signal(libc::SIGCONT);
    pair.server.tell("take 77");
}

#[test]
fn looking_takes_no_memory_of_the_program() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let shared = || {
        let status = fs::read_to_string(format!("/proc/{}/status", pair.server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssShmem")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = shared();
    for _ in 0..3 {
        of(&arena, pair.server.pid());
    }
    // The kernel's own count is not exact. The lines of all slots would be 2048 kB, the registry 1300.
    let more = shared().saturating_sub(before);
    assert!(more < 200, "{more} kB more than {before}");
}

#[test]
fn streams_that_returned_and_connections_that_never_left() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.server.tell("fdopen");
    let sending = &stream(&of(&arena, pair.server.pid()))["sending"];
    assert_eq!(sending["path"].as_str().unwrap(), "kernel");
    assert!(sending["stays"].as_bool().unwrap(), "{sending}");
    drop(pair);

    let kept = Pair::accelerated(&arena, &[("CONVOY_PROMOTE_AFTER", "1000")]);
    // Somebody else has to be there for the process to be found by its counters; by its number it is found anyway.
    let process = of(&arena, kept.server.pid());
    let candidate = &process["candidates"][0];
    assert!((20..30).contains(&candidate["calls"].as_u64().unwrap()), "{candidate}");
    assert_eq!(process["channels"].as_array().unwrap().len(), 0);
}

#[test]
fn what_peers_hold_of_a_dead_process() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 300");
    pair.client.kill();
    let seen = of(&arena, pair.client.pid());
    assert_eq!(seen["source"].as_str().unwrap(), "peer");
    assert_eq!(seen["pid"].as_u64().unwrap(), u64::from(pair.server.pid()));
    let receiving = &stream(&seen)["receiving"];
    assert_eq!(receiving["in_lane"]["bytes"].as_u64().unwrap() + receiving["unread"].as_u64().unwrap(), 300);
    assert!(seen["notes"][0].as_str().unwrap().contains("cannot be seen"));
    pair.server.tell("take 300");

    pair.server.kill();
    let output = convoy(&arena, &["dump", &pair.client.pid().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

#[test]
fn damaged_cursors_are_said() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 300");
    let lane = |pair: &Pair| {
        let process = of(&arena, pair.server.pid());
        process["channels"][0]["receiving"]["wrong"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(lane(&pair), "");
    pair.client.overstate(&arena);
    assert_eq!(lane(&pair), "the cursors cannot be");
}

#[test]
fn another_version_is_refused_by_one_line() {
    let arena = arena();
    let mut library = fs::read(convoy_tests::library::path()).unwrap();
    let at = library.windows(8).position(|bytes| bytes == b"convoyA1").expect("the anchor");
    library[at + 16] ^= 1;
    let other = arena.file("libother.so", library);
    let pair = Pair::accelerated(&arena, &[("LD_PRELOAD", other.to_str().unwrap())]);
    let output = convoy(&arena, &["dump", &pair.server.pid().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("another version"), "{}", output.stderr);
}

#[test]
fn a_process_without_convoy_is_refused_by_one_line() {
    let arena = arena();
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let output = convoy(&arena, &["dump", &sleeper.id().to_string()]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    assert!(output.stderr.contains("does not run under Convoy"), "{}", output.stderr);
}
