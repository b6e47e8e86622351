//! Programs that measure networks: iperf3 and sockperf.

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};
use convoy_tests::json::numbers;

/// One client run; what was sent and received must be at least what was asked for.
fn iperf3(arena: &Arena, arguments: &[&str]) {
    let number = free_port();
    let port = number.to_string();
    let program = find("iperf3", "iperf3");
    let server = arena
        .start("iperf3", arena.command(&program, &["-s", "-1", "-B", "127.0.0.1", "-p", &port, "-i", "0"]));
    let all =
        [&["-c", "127.0.0.1", "-p", &port, "-J", "-i", "0", "--connect-timeout", "5000"], arguments].concat();
    let mut output = None;
    arena.eventually("an iperf3 server", || {
        let run = arena.try_run(arena.command(&program, &all), std::time::Duration::from_secs(60));
        let refused = run.stdout.contains("refused");
        output = Some(run);
        !refused
    });
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{:?}: iperf3 {arguments:?}\n{}{}",
        arena.mode(),
        output.stdout,
        output.stderr
    );
    let end = &output.stdout[output.stdout.find("\"end\"").expect("a summary")..];
    let bytes = numbers(end, "bytes");
    assert!(!bytes.is_empty() && bytes.iter().all(|&count| count > 0.0), "bytes {bytes:?}\n{end}");
    server.ended();
}

#[test]
fn iperf3_one_stream() {
    both(true, |arena| {
        iperf3(arena, &["-n", "300M"]);
        iperf3(arena, &["-n", "100M", "-R"]);
        "done".into()
    });
}

#[test]
fn iperf3_several_streams() {
    both(true, |arena| {
        iperf3(arena, &["-t", "1", "-P", "4"]);
        iperf3(arena, &["-t", "1", "--bidir"]);
        iperf3(arena, &["-t", "1", "-l", "100", "-N"]);
        "done".into()
    });
}

fn sockperf(arena: &Arena, arguments: &[&str]) {
    let number = free_port();
    let port = number.to_string();
    let program = find("sockperf", "sockperf");
    let place = ["-i", "127.0.0.1", "-p", &port, "--tcp"];
    let server = arena.start("sockperf", arena.command(&program, &[&["sr"], &place[..]].concat()));
    arena.listening(number);
    let output = arena.run(arena.command(&program, &[arguments, &place[..], &["-t", "1"]].concat()));
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains("Summary"), "{:?}: sockperf {arguments:?}\n{text}", arena.mode());
    if text.contains("dropped messages") {
        assert!(text.contains("dropped messages = 0"), "{text}");
        assert!(text.contains("duplicated messages = 0"), "{text}");
        assert!(text.contains("out-of-order messages = 0"), "{text}");
    }
    server.end(libc::SIGINT);
}

/// With a bound on the messages in a second, because sockperf's own is 600,000, beyond which it ends with an error.
#[test]
fn sockperf_ping_pong() {
    both(true, |arena| {
        sockperf(arena, &["pp", "-m", "64", "--mps", "5000000"]);
        sockperf(arena, &["pp", "-m", "4000", "--full-rtt", "--mps", "5000000"]);
        "done".into()
    });
}

#[test]
fn sockperf_throughput() {
    both(true, |arena| {
        sockperf(arena, &["tp", "-m", "64"]);
        "done".into()
    });
}

#[test]
fn sockperf_under_load() {
    both(true, |arena| {
        sockperf(arena, &["ul", "-m", "64", "--mps", "10000", "--reply-every", "10"]);
        "done".into()
    });
}
