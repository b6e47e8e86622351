//! The end that listens. It ends after as many connections as it was told.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use convoy_tests::kit::{Stream, sys};
use convoy_tests::say;

use super::client::short_rounds;
use super::end::{End, Io};
use super::options::{Options, Random};

/// What the connections of a server share.
struct Shared {
    /// Before what only happens when all connections are so far.
    last: Barrier,
    ended: AtomicU64,
    results: Mutex<Vec<(u64, String)>>,
}

pub fn run(options: &Options) {
    let listener = TcpListener::bind(options.address).expect("bind");
    // The library's own backlog is too short for many clients at once.
    // SAFETY: no memory is involved.
    let listens = unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 4096) };
    assert_eq!(listens, 0, "listen");
    say!("listening");
    let shared = Shared {
        last: Barrier::new(usize::try_from(options.connections).unwrap()),
        ended: AtomicU64::new(0),
        results: Mutex::new(Vec::new()),
    };
    thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 0..options.connections {
            let (stream, _) = listener.accept().expect("accept");
            stream.set_nodelay(options.no_delay).unwrap();
            let (fd, shared) = (stream.into_raw_fd(), &shared);
            running.push(scope.spawn(move || connection(fd, options, shared)));
        }
    });
    let mut results = shared.results.into_inner().unwrap();
    results.sort();
    results.iter().for_each(|(number, result)| say!("connection {number}: {result}"));
}

/// Which connection it is, and then bytes to and fro.
fn greet(fd: i32, warm: bool) -> Option<u64> {
    let mut number = [0; 8];
    match sys::recv(fd, &mut number, libc::MSG_WAITALL) {
        Ok(8) => {}
        // Somebody has only looked whether there is a listener.
        _ => return None,
    }
    let mut word = *b"p";
    while warm && word == *b"p" {
        match sys::recv(fd, &mut word, 0) {
            Ok(1) => assert_eq!(sys::send(fd, &word, 0), Ok(1)),
            _ => return None,
        }
    }
    Some(u64::from_le_bytes(number))
}

fn connection(fd: i32, options: &Options, shared: &Shared) {
    let Some(number) = greet(fd, options.scenario != "short") else {
        assert!(options.tolerant, "a connection ended before it had begun");
        return;
    };
    let stream = Stream::new(fd, number, false);
    End::prepare(fd, options);
    let mut end = End::new(stream, options);
    let said = match options.scenario.as_str() {
        "echo" => echo(&mut end, options),
        "pingpong" => pingpong(&mut end, options),
        "oneway" => {
            let stop = end.receive_to_end();
            format!("received {} then {stop}", end.stream.inn.position)
        }
        "halfclose" => {
            let stop = end.receive_to_end();
            end.send_bytes(options.bytes).expect("the answer");
            format!("received {} then {stop}, answered", end.stream.inn.position)
        }
        "exit" => exit(&mut end, options, shared),
        "parting" => {
            let stop = if number > 0 { end.receive_to_end() } else { "nothing".into() };
            shared.last.wait();
            format!("received {} then {stop}", end.stream.inn.position)
        }
        "unread" => unread(&mut end, options),
        "slow" => {
            end.send_bytes(options.bytes).expect("data");
            "sent".into()
        }
        "short" => short(&mut end, number, options),
        other => panic!("no scenario is called {other}"),
    };
    drop(end);
    sys::close(fd).unwrap();
    if options.scenario != "short" {
        shared.results.lock().unwrap().push((number, said));
    }
}

/// As many bytes back as come.
fn echo(end: &mut End, options: &Options) -> String {
    loop {
        match end.receive() {
            Ok(0) => break,
            Ok(count) => {
                if let Err(error) = end.send_all(count) {
                    assert!(options.tolerant, "echo: {error}");
                    return error;
                }
            }
            Err(error) => {
                assert!(options.tolerant, "echo: {error}");
                return error.to_string();
            }
        }
    }
    if options.bytes > 0 { format!("echoed {}", end.stream.out.position) } else { "echoed".into() }
}

fn pingpong(end: &mut End, options: &Options) -> String {
    let mut sizes = Random::new(options.seed ^ end.stream.inn.seed);
    let mut rounds = 0;
    while end.stream.inn.position < options.bytes {
        let (ask, answer) = (sizes.size(11), sizes.size(11));
        end.receive_all(ask).and_then(|()| end.send_all(answer)).expect("pong");
        rounds += 1;
    }
    format!("{rounds} rounds then {}", end.receive_to_end())
}

/// The process ends with the last byte that it has sent on any connection.
fn exit(end: &mut End, options: &Options, shared: &Shared) -> String {
    let last = 1000;
    end.send_bytes(options.bytes - last).expect("data");
    if shared.last.wait().is_leader() {
        say!("everything but the last bytes is sent");
    }
    end.send_all(usize::try_from(last).unwrap()).expect("the last bytes");
    if shared.ended.fetch_add(1, Ordering::SeqCst) + 1 == options.connections {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    loop {
        thread::park();
    }
}

/// What the other end's close with unread bytes looks like.
fn unread(end: &mut End, options: &Options) -> String {
    end.send_bytes(options.bytes).expect("data");
    let fd = end.stream.fd;
    // Some look for the error by itself, and some meet it when they want to receive.
    let events = if options.io == Io::Blocking { 0 } else { sys::poll_one(fd, 0, -1) };
    let (first, second) = (end.receive_most(10), end.receive_most(10));
    let (third, fourth) = (end.send_all(10), end.send_all(10));
    let shown = |outcome: Result<usize, convoy_tests::kit::Errno>| match outcome {
        Ok(count) => count.to_string(),
        Err(error) => error.to_string(),
    };
    let first = [shown(first), shown(second)].join(" ");
    format!("{}, receive {first}, send {third:?} {fourth:?}", sys::events(events))
}

fn short(end: &mut End, number: u64, options: &Options) -> String {
    let mut sizes = Random::new(options.seed ^ end.stream.inn.seed);
    for round in 0..short_rounds(number) {
        let (ask, answer) = (sizes.size(11), sizes.size(11));
        let result = end.receive_all(ask).and_then(|()| end.send_all(answer));
        result.unwrap_or_else(|error| panic!("connection {number} round {round}: {error}"));
    }
    let stop = end.receive_to_end();
    assert_eq!(stop, "end", "connection {number}");
    String::new()
}
