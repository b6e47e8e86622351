//! The key of the agents is in nothing that anybody reads: logs at the highest level, counters, metrics, dumps, traces.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use convoy_tests::Mode;
use convoy_tests::hosts::peers::Job;
use convoy_tests::hosts::{Plan, World};

/// Whether the bytes, or any part of 8 of them, are in a text: as they are, or in hex of either case.
fn contains_any_of(text: &[u8], secret: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    secret.windows(8).any(|part| {
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let apart: String = part.iter().map(|byte| format!("{byte}, ")).collect();
        let is_in = |text: &[u8], what: &[u8]| text.windows(what.len()).any(|window| window == what);
        is_in(text, part)
            || is_in(&lower, hex.as_bytes())
            || is_in(text, apart.trim_end_matches(", ").as_bytes())
    })
}

#[test]
fn the_key_is_nowhere() {
    let Some(world) = World::new(Mode::Preloaded, "tcp", &Plan::pair()) else { return };
    let key = world.path("key").display().to_string();
    let mut make = world.host(0).plain(world.path("convoy"), &["agent", "--new-key", &key]);
    make.env("CONVOY_LOG", "debug");
    world.host(0).run(make);
    let hex = fs::read_to_string(&key).unwrap();
    let digits: Vec<u8> = hex.trim().bytes().collect();
    let secret: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let arguments = ["--key", &key, "--metrics", "127.0.0.1:9120"];
    (0..2).for_each(|host| world.host(host).start_agent_with(&arguments, &[("CONVOY_LOG", "debug")]));
    let job = Job::new(convoy_tests::program!("host_stream"), "echo", 2, "--bytes 0 --pace 300");
    let mut pair = job.start(world.host(1), world.host(0));
    pair.connected();
    pair.accelerated();
    pair.go();
    pair.goes_on(1);
    let host = world.host(0);
    let pid = pair.client.pid().to_string();
    let ask = |words: &[&str]| {
        let mut command = host.plain(world.path("convoy"), words);
        command.env("CONVOY_DIR", world.directory()).env("CONVOY_LOG", "debug");
        host.run(command)
    };
    let mut said = vec![
        ask(&["stat", "--json"]),
        ask(&["stat", &pid]),
        ask(&["dump", "--json"]),
        ask(&["trace", &pid, "--seconds", "0.5", "--bytes", "4096"]),
    ];
    for page in ["/metrics", "/status", "/health"] {
        said.push(world.network().inside(0, || {
            let mut stream = TcpStream::connect("127.0.0.1:9120").unwrap();
            write!(stream, "GET {page} HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }));
    }
    // A stranger without the key, and a wrong one: what is said about it names neither.
    world.host(1).end_agent();
    let other = world.file("wrong", "0123456789abcdef".repeat(4) + "\n").display().to_string();
    fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let peer = world.host(0).ip();
    world.host(1).start_agent_with(&["--key", &other, "--peer", &peer], &[("CONVOY_LOG", "debug")]);
    let refused = |number| world.host(number).agent_log_since().contains("refused");
    world.eventually("one of them says that the other is refused", || (0..2).any(refused));
    pair.stop();
    pair.succeeds();
    (0..2).for_each(|number| said.push(world.host(number).agent_log()));
    for text in &said {
        assert!(text.len() > 10, "nothing was said: {said:?}");
        assert!(!contains_any_of(text.as_bytes(), &secret), "the key is in\n{text}");
    }
    for entry in fs::read_dir(world.path("")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if [".err", ".out", ".log"].iter().any(|kind| name.ends_with(kind)) {
            assert!(!contains_any_of(&fs::read(entry.path()).unwrap(), &secret), "the key is in {name}");
        }
    }
    assert!(contains_any_of(hex.as_bytes(), &secret), "what is looked for would be found");
    world.finish();
}
