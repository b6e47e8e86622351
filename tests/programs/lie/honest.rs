//! The honest process: what it must not see, and that it does not stop.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::{Random, Stream, sys};

use crate::peers::STREAMS;
use crate::scribble::What;
use crate::shared;
use crate::traffic::{Fate, STYLES, Tally, exchange};

/// How long nothing may happen where something must, in ticks.
const WATCHDOG: u64 = 600;
/// The clock of the watchdog: on a machine that is too busy for this process it goes slower.
static TICKS: AtomicU64 = AtomicU64::new(0);
const TICK: Duration = Duration::from_millis(100);

fn tick() {
    loop {
        std::thread::sleep(TICK);
        TICKS.fetch_add(1, Ordering::Relaxed);
    }
}

fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// What comes out of there before the watchdog barks.
fn awaited<T>(from: &Receiver<T>, what: &str) -> T {
    let since = ticks();
    loop {
        match from.recv_timeout(TICK) {
            Ok(value) => return value,
            Err(_) if ticks() - since > WATCHDOG => stuck(what),
            Err(_) => {}
        }
    }
}

/// With both, the last part of a run in so many scribbles over the registry: nobody meets there afterwards.
const REGISTRY_PART: u32 = 4;

/// Runs for so long, with liars that scribble over their `segment`, the `registry`, or `both` one after the other.
pub fn run(seconds: u64, seed: u64, what: &str) {
    let limit = Duration::from_secs(seconds);
    let (began, mut random) = (Instant::now(), Random::new(seed));
    std::thread::spawn(tick);
    let friend = Friend::start();
    let (listener, port) = net::listen(Family::V4);
    let (mut fates, mut words, mut rounds) = (BTreeMap::new(), 0, 0);
    while began.elapsed() < limit {
        let late = began.elapsed() > limit - limit / REGISTRY_PART;
        let what = match what {
            "both" if late => What::Registry,
            "both" => What::Segment,
            other => What::of(other),
        };
        let liar_seed = random.number() >> 1;
        let mut liar =
            start(&["liar", &port.to_string(), &liar_seed.to_string(), what.word()], Stdio::null());
        let told = accept_all(listener, &friend);
        words += said(&mut liar, "words", &format!("liar of seed {liar_seed}, {}", what.word()));
        for _ in 0..STREAMS {
            // The liar is gone: whatever was scribbled, no call may stay behind.
            let fate = awaited(&told, &format!("liar of seed {liar_seed}"));
            *fates.entry(name(fate)).or_insert(0_u64) += 1;
        }
        friend.has_moved();
        rounds += 1;
    }
    let lives = friend.stop();
    let checked = friend_bytes();
    println!("words {words} liars {rounds} lives {lives} checked {checked} memory {}", memory());
    for (fate, count) in fates {
        println!("streams {fate} {count}");
    }
}

/// Right bytes of the friend's.
static FRIENDS: AtomicU64 = AtomicU64::new(0);

fn friend_bytes() -> u64 {
    FRIENDS.load(Ordering::Relaxed)
}

fn name(fate: Fate) -> String {
    match fate {
        Fate::End => "end".to_owned(),
        Fate::Early => "early".to_owned(),
        Fate::Error(error) => error.to_string(),
        Fate::Wrong(_) => "wrong".to_owned(),
    }
}

fn start(arguments: &[&str], input: Stdio) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).stdin(input).stdout(Stdio::piped()).spawn().expect("a peer")
}

/// Waits for a child's end, and for the number behind a word of what it has said.
fn said(child: &mut Child, word: &str, who: &str) -> u64 {
    let mut text = String::new();
    let mut output = child.stdout.take().expect("its output");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = output.read_to_string(&mut text);
        let _ = tell.send(text);
    });
    let text = awaited(&told, &format!("{who}, in its end"));
    let status = child.wait().expect("its end");
    assert!(is_fair(status), "{who}: {status}");
    let mut words = text.split_whitespace();
    let number =
        words.find(|found| *found == word).and_then(|_| words.next()).and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{who} has said {text:?}"))
}

/// Its own end, or by its own hand: its library must not fall over what is scribbled either.
fn is_fair(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.success() || status.signal() == Some(libc::SIGKILL)
}

/// Takes the streams of a liar and talks on each; tells how they end.
fn accept_all(listener: i32, friend: &Friend) -> Receiver<Fate> {
    let (tell, told) = mpsc::channel();
    for _ in 0..STREAMS {
        let since = ticks();
        while sys::poll_one(listener, libc::POLLIN, 100) == 0 {
            if ticks() - since > WATCHDOG {
                stuck("a liar that does not connect");
            }
        }
        let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        let tell = tell.clone();
        std::thread::spawn(move || {
            let tally = Tally::default();
            let fate = number(fd).map_or(Fate::Early, |number| {
                let style = STYLES[number as usize % STYLES.len()];
                exchange(&mut Stream::new(fd, number, false), style, true, &tally)
            });
            sys::close(fd).unwrap();
            // The main thread may have given up.
            let _ = tell.send(fate);
        });
        friend.has_moved();
    }
    told
}

/// The first bytes of a connection.
fn number(fd: i32) -> Option<u64> {
    let mut bytes = [0; 8];
    net::no_delay(fd);
    (sys::recv(fd, &mut bytes, libc::MSG_WAITALL) == Ok(8)).then(|| u64::from_le_bytes(bytes))
}

/// The process with which nothing may go wrong.
struct Friend {
    child: Child,
    /// What each of its long streams has received, and when that was last seen to grow.
    streams: Vec<Arc<Tally>>,
    seen: std::cell::RefCell<Vec<(u64, u64)>>,
    ended: Receiver<()>,
}

impl Friend {
    fn start() -> Self {
        let (listener, port) = net::listen(Family::V4);
        let child = start(&["friend", &port.to_string()], Stdio::piped());
        let (tell, ended) = mpsc::channel();
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let tally = Arc::new(Tally::default());
            streams.push(Arc::clone(&tally));
            let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
            let tell = tell.clone();
            std::thread::spawn(move || {
                talk(fd, &tally);
                tell.send(()).expect("the main thread");
            });
        }
        std::thread::spawn(move || short_lives(listener));
        let seen = vec![(0, ticks()); streams.len()].into();
        Self { child, streams, seen, ended }
    }

    /// Panics when a stream has stood still for too long.
    fn has_moved(&self) {
        for (number, (stream, (known, since))) in
            self.streams.iter().zip(self.seen.borrow_mut().iter_mut()).enumerate()
        {
            let now = stream.checked.load(Ordering::Relaxed);
            if now != *known {
                (*known, *since) = (now, ticks());
            } else if ticks() - *since > WATCHDOG {
                stuck(&format!("the friend's stream {number} at {now} bytes"));
            }
        }
    }

    /// Ends all streams in order; how many short ones there were.
    fn stop(mut self) -> u64 {
        self.streams.iter().for_each(|tally| tally.stop.store(true, Ordering::Relaxed));
        for _ in &self.streams {
            awaited(&self.ended, "the friend's streams, in their end");
        }
        FRIENDS.fetch_add(
            self.streams.iter().map(|tally| tally.checked.load(Ordering::Relaxed)).sum(),
            Ordering::Relaxed,
        );
        drop(self.child.stdin.take());
        said(&mut self.child, "lives", "the friend")
    }
}

fn talk(fd: i32, tally: &Tally) {
    let number = number(fd).expect("its number");
    let style = STYLES[number as usize % STYLES.len()];
    let fate = exchange(&mut Stream::new(fd, number, false), style, true, tally);
    // A panic of one thread would leave the process waiting for others.
    if fate != Fate::End {
        fail(&format!("stream {number} of the friend, {style:?}: {fate:?}"));
    }
    sys::close(fd).unwrap();
}

fn short_lives(listener: i32) {
    while let Ok(fd) = net::accept(listener, libc::SOCK_CLOEXEC) {
        std::thread::spawn(move || {
            let number = number(fd).expect("its number");
            let mut stream = Stream::new(fd, number, false);
            stream.pong(20, 100);
            FRIENDS.fetch_add(2000, Ordering::Relaxed);
            sys::close(fd).unwrap();
        });
    }
}

fn stuck(what: &str) -> ! {
    fail(&format!("nothing happens any more: {what}\n{}", convoy_tests::run::describe_group(group())))
}

fn group() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::getpgrp() }.cast_unsigned()
}

fn fail(what: &str) -> ! {
    eprintln!("{what}");
    std::process::abort()
}

/// The most memory that was in use, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Every shared mapping lies between two that nobody may touch.
pub fn guards() {
    let (listener, port) = net::listen(Family::V4);
    let mut one = Stream::new(net::connected(Family::V4, port), 0, true);
    let mut two = Stream::new(net::accept(listener, 0).unwrap(), 0, false);
    let thread = std::thread::spawn(move || two.pong(50, 100));
    one.ping(50, 100);
    thread.join().expect("the other end");
    let maps = shared::maps();
    let is_guard = |at: &dyn Fn(&shared::Mapping) -> bool| {
        maps.iter().any(|(mapping, rights, _)| at(mapping) && rights == "---p" && mapping.bytes() >= 4096)
    };
    let all: Vec<_> = shared::segments().into_iter().chain(shared::registry()).collect();
    for mapping in &all {
        let before = is_guard(&|other| other.end == mapping.start);
        let behind = is_guard(&|other| other.start == mapping.end);
        assert!(before && behind, "no guard: {mapping:x?} in {maps:#x?}");
    }
    println!("guarded {}", all.len());
}
