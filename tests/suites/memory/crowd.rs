//! Slow readers beside a fast one (`programs/readers`), within a host and between two.
//!
//! MEMORY_READERS (10000) is how many slow ones the long runs have, MEMORY_FAST (1000000000) how many bytes their fast one carries in
//! each of its two turns.

use std::time::Duration;

use convoy_tests::hosts::{Plan, Program, World};
use convoy_tests::{Mode, Task};

const PROGRAM: &str = convoy_tests::program!("readers");
/// With slow readers the fast one keeps at least so much of its speed, in percent: they take processor time too, here and there
/// with two processors for five threads.
const SHARE: u64 = 5;

fn setting(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The number behind some words in what the programs have said.
fn number(said: &str, words: &str) -> u64 {
    let line =
        said.lines().find_map(|line| line.split_once(words)).unwrap_or_else(|| panic!("{words}: {said}"));
    line.1.split_whitespace().next().unwrap().parse().unwrap()
}

/// Within one host: all of them leave the kernel, what the process keeps is within its limit, and the fast one goes on.
fn within_a_host(slow: u64, fast: u64, limit: u64) {
    let options = ["both", "--slow", &slow.to_string(), "--fast", &fast.to_string()].map(str::to_owned);
    let task = options.iter().fold(Task::new(PROGRAM), Task::arg);
    let task = task.set("CONVOY_MEMORY_LIMIT", limit.to_string()).mode(Mode::Preloaded);
    let run = task.limit(Duration::from_secs(300)).run();
    assert!(run.status.success(), "{}", run.report());
    println!("{}", run.stdout);
    assert_eq!(run.counters.get("streams_opened"), 2 * (slow + 1), "{}", run.report());
    assert!(
        run.counters.get("windows_widened") > 0,
        "the fast one has stayed with its first window\n{}",
        run.report()
    );
    // Nearly all of the fast one's bytes, which has come last.
    assert!(run.counters.get("bytes_received") > 2 * fast / 10 * 9, "{}", run.report());
    assert!(number(&run.stdout, "share ") >= SHARE, "{}", run.report());
    let shared = number(&run.stdout, "memory of the reader: ") << 10;
    // What is granted, the ends of the queues' chunks, the channel and the program itself.
    let most = limit * 3 / 2 + (32 << 20) + slow * 4096;
    assert!(shared <= most, "{shared} bytes of {most}\n{}", run.report());
}

#[test]
fn a_thousand_slow_readers_and_a_fast_one() {
    within_a_host(1000, 64 << 20, 16 << 20);
}

/// As `fn within_a_host`, whole: for `./dev memory`.
#[test]
#[ignore = "takes minutes; ./dev memory"]
fn ten_thousand_slow_readers_and_a_fast_one() {
    let (slow, fast) = (setting("MEMORY_READERS", 10_000), setting("MEMORY_FAST", 1_000_000_000));
    within_a_host(slow, fast, 256 << 20);
}

/// Between two hosts, over the kernel's TCP as a fabric.
fn between_hosts(slow: u64, fast: u64) {
    let Some(world) = World::new(Mode::Preloaded, "tcp", &Plan::pair()) else { return };
    let policy = world
        .file("policy.toml", "[defaults]\nstreams_per_user = 100000\noffers_per_second_per_user = 100000\n");
    let limit = [("CONVOY_AGENT_MEMORY_LIMIT", "32M")];
    for host in [0, 1] {
        world.host(host).start_agent_with(&["--insecure", "--policy", policy.to_str().unwrap()], &limit);
    }
    let go = world.path("go");
    let (slow_words, fast_words) = (slow.to_string(), fast.to_string());
    let address = format!("{}:7000", world.host(1).ip());
    let start = |host: usize, role: &str, name: &str| {
        let words = [
            role,
            &address,
            "--slow",
            &slow_words,
            "--fast",
            &fast_words,
            "--piece",
            "1000",
            "--go",
            go.to_str().unwrap(),
        ];
        let host = world.host(host);
        host.start(name, host.command(PROGRAM, &words))
    };
    let mut reader = start(1, "listen", "reader");
    reader.says("listening");
    let mut sender = start(0, "connect", "sender");
    sender.says("connected");
    let far = |program: &Program<'_>| program.live().get("streams_far");
    world.eventually("all streams are accelerated", || far(&reader) > slow && far(&sender) > slow);
    std::fs::write(&go, "").unwrap();
    sender.says("memory of the sender");
    let agents: Vec<u64> = [0, 1].map(|host| resident(world.host(host).agent_pid())).into();
    let said = reader.succeeds() + &sender.succeeds();
    println!("{said}memory of the agents: {agents:?} KiB\n{}", world.counters());
    world.check(number(&said, "share ") >= SHARE, &said);
    // Rings and buffers of a link, the programs' rings, and what is kept back for programs that do not take it.
    world.check(agents.iter().all(|kib| *kib < 200 << 10), &format!("memory of the agents: {agents:?} KiB"));
    world.finish();
}

/// KiB of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    number(&status, "VmRSS:")
}

#[test]
fn slow_readers_on_another_host() {
    between_hosts(300, 20_000_000);
}

/// As `fn slow_readers_on_another_host`, whole: for `./dev memory`.
#[test]
#[ignore = "takes minutes; ./dev memory"]
fn ten_thousand_slow_readers_on_another_host() {
    between_hosts(setting("MEMORY_READERS", 10_000), setting("MEMORY_FAST", 1_000_000_000) / 5);
}
