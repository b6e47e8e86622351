//! Very many slow readers beside a fast one: `readers both`, or `readers listen ADDRESS:PORT` and `readers connect ADDRESS:PORT`,
//! with `--slow N` (connections), `--bytes N` (on each slow one), `--fast N` (bytes on the fast one, twice), `--piece N` (of a
//! send on the fast one, which is the last to come), `--go FILE` (bytes go to and fro until it is there).
//!
//! The end that connects sends. First the fast connection alone; then, with the slow ones filled up and read by drops, the fast one
//! again; then the slow ones are drained. Every byte is checked. The reader says how fast the fast one was, and both ends how much
//! memory they had with the slow ones full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use convoy_tests::kit::pattern::{self, Flow};
use convoy_tests::kit::sys;
use convoy_tests::say;

/// Bytes of one drop, how many drops there are in a turn, and the pause between two.
const DROP: usize = 512;
const DROPS: usize = 10;
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of a send on a slow connection.
const SLOW_PIECE: usize = 2048;
/// Bytes after which the fast connection's pattern begins again; no power of two, so that a missing piece is noticed.
const TABLE: usize = 1_048_573;

struct Options {
    slow: usize,
    bytes: u64,
    fast: u64,
    piece: usize,
    go: Option<PathBuf>,
}

fn main() {
    sys::raise_nofile();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| words.iter().position(|word| word == name).map(|at| words[at + 1].as_str());
    let number = |name: &str, usual: u64| value(name).map_or(usual, |text| text.parse().expect("a number"));
    let options = Options {
        slow: number("--slow", 1000) as usize,
        bytes: number("--bytes", 65_536),
        fast: number("--fast", 64 << 20),
        piece: number("--piece", 16_384) as usize,
        go: value("--go").map(PathBuf::from),
    };
    match words[0].as_str() {
        "both" => both(&options),
        "listen" => read(&listener(&words[1]), &options),
        "connect" => send(words[1].parse().unwrap(), &options),
        other => panic!("readers both|listen|connect, not {other}"),
    }
}

fn both(options: &Options) {
    let listener = listener("127.0.0.1:0");
    let address = listener.local_addr().unwrap();
    let sender = sys::fork(|| {
        send(address, options);
        0
    });
    read(&listener, options);
    say!("sender: {}", sys::wait(sender));
}

fn listener(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    // More than std asks for: all come at once.
    // SAFETY: no memory is involved.
    sys::status(unsafe { libc::listen(listener.as_raw_fd(), 4096) }).unwrap();
    say!("listening");
    listener
}

/// The bytes of the fast connection, from every position on.
fn table() -> Vec<u8> {
    let mut table = vec![0; TABLE];
    pattern::fill(7, 0, &mut table);
    table.extend_from_within(..);
    table
}

fn read(listener: &TcpListener, options: &Options) {
    let mut fds = vec![-1; options.slow + 1];
    for fd in &mut fds {
        *fd = listener.accept().unwrap().0.into_raw_fd();
        // Each leaves the kernel before the next one comes: all at once would not find a place in the registry.
        (0..8).for_each(|_| assert_eq!(echo(*fd), b'p'));
    }
    while fds.iter().fold(b'p', |_, fd| echo(*fd)) == b'p' {}
    let (fast, slow) = fds.split_last().unwrap();
    let (fast, table) = (*fast, table());
    let alone = take_fast(fast, 0, options.fast, &table);
    assert_eq!(sys::send(fast, b"a", 0), Ok(1));
    let full = AtomicBool::new(false);
    let together = thread::scope(|scope| {
        let dripping = scope.spawn(|| drip(slow, options, &full));
        let together = take_fast(fast, options.fast, options.fast, &table);
        memory("reader");
        full.store(true, Ordering::Release);
        assert_eq!(sys::send(fast, b"b", 0), Ok(1));
        dripping.join().unwrap();
        together
    });
    say!("alone {alone} KB/s");
    say!("together {together} KB/s");
    say!("share {} percent", together * 100 / alone.max(1));
    say!("all {} slow connections have come to their end after {} bytes", options.slow, options.bytes);
}

fn echo(fd: i32) -> u8 {
    let mut word = [0];
    assert_eq!(sys::recv(fd, &mut word, 0), Ok(1));
    assert_eq!(sys::send(fd, &word, 0), Ok(1));
    word[0]
}

/// Receives so many bytes of the fast connection: kilobytes a second.
fn take_fast(fd: i32, from: u64, bytes: u64, table: &[u8]) -> u64 {
    let mut buffer = vec![0; 65_536];
    let (mut at, mut began) = (from, None);
    while at < from + bytes {
        let count = sys::recv(fd, &mut buffer, 0).expect("the fast connection");
        assert!(count > 0, "the fast connection has ended at {at}");
        began.get_or_insert_with(Instant::now);
        let place = (at % TABLE as u64) as usize;
        assert!(buffer[..count] == table[place..place + count], "wrong bytes at {at} of the fast connection");
        at += count as u64;
    }
    bytes / (began.unwrap().elapsed().as_millis() as u64).max(1)
}

/// Reads a drop of each slow connection in turn, until the fast one is through; then all of each.
fn drip(slow: &[i32], options: &Options, done: &AtomicBool) {
    let mut flows: Vec<Flow> = (1..=slow.len() as u64).map(Flow::new).collect();
    let mut turn = 0;
    while !done.load(Ordering::Acquire) && !slow.is_empty() {
        for at in (turn..turn + DROPS).map(|at| at % slow.len()) {
            take_slow(slow[at], &mut flows[at], DROP, libc::MSG_DONTWAIT);
        }
        turn += DROPS;
        thread::sleep(PAUSE);
    }
    for (fd, flow) in slow.iter().zip(&mut flows) {
        while take_slow(*fd, flow, 65_536, 0) {}
        assert_eq!(flow.position, options.bytes, "connection {}", flow.seed);
    }
}

/// Whether anything came; nothing at the end.
fn take_slow(fd: i32, flow: &mut Flow, most: usize, flags: i32) -> bool {
    let mut buffer = [0; 65_536];
    match sys::recv(fd, &mut buffer[..most], flags) {
        Ok(count) => {
            flow.accept(&buffer[..count]);
            count > 0
        }
        Err(error) => {
            assert_eq!(error.0, libc::EAGAIN, "connection {}", flow.seed);
            false
        }
    }
}

fn send(address: SocketAddr, options: &Options) {
    let connect = |number: usize| {
        let stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        stream.set_nodelay(true).unwrap();
        let fd = stream.into_raw_fd();
        (0..8).for_each(|_| {
            assert_eq!(sys::send(fd, b"p", 0), Ok(1));
            assert_eq!(sys::recv(fd, &mut [0], 0), Ok(1));
        });
        fd
    };
    let fds: Vec<i32> = (0..=options.slow).map(connect).collect();
    say!("connected");
    let exchange = |word: &[u8; 1]| {
        fds.iter().for_each(|fd| assert_eq!(sys::send(*fd, word, 0), Ok(1)));
        let mut answer = [0];
        fds.iter().for_each(|fd| assert_eq!(sys::recv(*fd, &mut answer, 0), Ok(1)));
    };
    while options.go.as_ref().is_some_and(|go| !go.exists()) {
        exchange(b"p");
        thread::sleep(PAUSE);
    }
    exchange(b"g");
    let (fast, slow) = fds.split_last().unwrap();
    let (fast, table) = (*fast, table());
    give_fast(fast, 0, options, &table);
    let (filled, done) = (AtomicBool::new(options.slow == 0), AtomicBool::new(false));
    thread::scope(|scope| {
        let filling = scope.spawn(|| fill(slow, options, &filled, &done));
        while !filled.load(Ordering::Acquire) {
            assert!(!filling.is_finished(), "the slow connections have failed");
            thread::sleep(PAUSE);
        }
        memory("sender");
        give_fast(fast, options.fast, options, &table);
        done.store(true, Ordering::Release);
        filling.join().unwrap();
    });
}

/// Sends the next bytes of the fast connection and waits until they are read.
fn give_fast(fd: i32, from: u64, options: &Options, table: &[u8]) {
    let (mut at, end) = (from, from + options.fast);
    while at < end {
        let place = (at % TABLE as u64) as usize;
        let piece = options.piece.min((end - at) as usize);
        at += sys::send(fd, &table[place..place + piece], 0).expect("the fast connection") as u64;
    }
    assert_eq!(sys::recv(fd, &mut [0], 0), Ok(1));
}

/// Sends on all slow connections what they take, again and again until the fast one is through; then all, one after the other.
fn fill(slow: &[i32], options: &Options, filled: &AtomicBool, done: &AtomicBool) {
    let mut flows: Vec<Flow> = (1..=slow.len() as u64).map(Flow::new).collect();
    let mut give = |at: usize, flags: i32| give_slow(slow[at], &mut flows[at], options.bytes, flags);
    (0..slow.len()).for_each(|at| give(at, libc::MSG_DONTWAIT));
    filled.store(true, Ordering::Release);
    let mut turn = 0;
    while !done.load(Ordering::Acquire) && !slow.is_empty() {
        (turn..turn + DROPS).for_each(|at| give(at % slow.len(), libc::MSG_DONTWAIT));
        turn += DROPS;
        thread::sleep(PAUSE);
    }
    (0..slow.len()).for_each(|at| give(at, 0));
    slow.iter().for_each(|fd| assert_eq!(sys::close(*fd), Ok(0)));
}

fn give_slow(fd: i32, flow: &mut Flow, bytes: u64, flags: i32) {
    while flow.position < bytes {
        let piece = flow.peek(SLOW_PIECE.min((bytes - flow.position) as usize));
        match sys::send(fd, &piece, flags) {
            Ok(count) => flow.advance(count),
            Err(error) => {
                assert_eq!(error.0, libc::EAGAIN, "connection {}", flow.seed);
                return;
            }
        }
    }
}

/// Says how much memory this process has.
fn memory(who: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or("0 0");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    say!("memory of the {who}: {} KiB, of which {} KiB shared", number("VmRSS:"), number("RssShmem:"));
}
