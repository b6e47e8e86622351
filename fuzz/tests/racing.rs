//! Both ends of a channel in one process, threads at work on each, and one that scribbles over their memory meanwhile: what
//! is checked may be another value when it is used. Under ASan in `./dev lie`; without it the guards around the mappings
//! and the processor find what is far off.
//!
//! RACING_SECONDS (2) is how long, RACING_SEED (1) the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_fuzz::memory::Memory;
use convoy_fuzz::mutate::Random;
use convoy_runtime::fuzz::{GEOMETRY, Mode, Pair, Received, Stream};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const STREAMS: usize = 4;
/// The ends of each; a channel lives about as long when nobody lies.
const ROUND: Duration = Duration::from_millis(20);

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn what_was_checked_may_change() {
    let limit = Duration::from_secs(setting("RACING_SECONDS", 2));
    let seed = setting("RACING_SEED", 1);
    let connections: Vec<[TcpStream; 2]> = (0..STREAMS).map(|_| connected()).collect();
    let mut random = Random::new(seed);
    let (began, mut tally) = (Instant::now(), Tally::default());
    while began.elapsed() < limit {
        round(&connections, &mut random, &mut tally);
    }
    let Tally { channels, ended, words, moved } = tally;
    println!(
        "{channels} channels, {ended} of which ended by a lie; {words} words scribbled while {moved} bytes moved; seed {seed}, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(ended > 0 && words > 0 && moved > 0, "nothing was tried");
}

#[derive(Default)]
struct Tally {
    channels: u64,
    ended: u64,
    words: u64,
    moved: u64,
}

fn connected() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let connected = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    [connected, listener.accept().expect("its other end").0]
}

/// The life of one channel.
fn round(connections: &[[TcpStream; 2]], random: &mut Random, tally: &mut Tally) {
    let pair = Pair::new();
    let memory = Memory::map(pair.file);
    let fds = |both: &[TcpStream; 2]| [0, 1].map(|end| both[end].as_raw_fd());
    let streams: Vec<Stream> = connections.iter().map(|both| pair.open(fds(both)).expect("a slot")).collect();
    let (over, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for side in 0..2 {
            let seed = random.number();
            let (streams, over, moved) = (&streams, &over, &moved);
            scope.spawn(move || send(streams, side, Random::new(seed), over));
            scope.spawn(move || receive(streams, side, Random::new(seed ^ 1), over, moved));
        }
        let (began, quiet) = (Instant::now(), Duration::from_micros(random.below(3000) as u64));
        std::thread::sleep(quiet);
        while began.elapsed() < ROUND && pair.ends.iter().any(|end| end.usable()) {
            tally.words += scribble(&memory, random);
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    tally.channels += 1;
    tally.ended += u64::from(pair.ends.iter().any(|end| !end.usable()));
    tally.moved += moved.into_inner();
    streams.iter().for_each(Stream::close);
    drop(memory);
    // SAFETY: the threads have ended, the streams are closed.
    unsafe { pair.end() };
}

fn send(streams: &[Stream], side: usize, mut random: Random, over: &AtomicBool) {
    // Of its own allocation, so that a read beyond its end is found.
    while !over.load(Ordering::Relaxed) {
        let bytes = vec![side as u8; 1 + random.below(6000)];
        if streams[random.below(STREAMS)].send(side, &bytes).is_err() {
            return;
        }
    }
}

fn receive(streams: &[Stream], side: usize, mut random: Random, over: &AtomicBool, moved: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let mut bytes = vec![0; 1 + random.below(9000)];
        let mode = if random.below(8) == 0 { Mode::Peek } else { Mode::Take };
        match streams[random.below(STREAMS)].receive(side, &mut bytes, mode) {
            Ok(Received::Bytes(count)) => {
                assert!(count <= bytes.len());
                moved.fetch_add(count as u64, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// One word of the cursors, of the streams' lines, of the rings or of anything.
fn scribble(memory: &Memory, random: &mut Random) -> u64 {
    let lines = u64::from(GEOMETRY.slots) * 128;
    let rings = 12288 + lines.next_multiple_of(4096) + u64::from(GEOMETRY.slots * 16).next_multiple_of(4096);
    let at = match random.below(8) {
        0 => 4096 + random.below(384) as u64,
        1 | 2 => 12288 + random.below(STREAMS * 128) as u64,
        3..=5 => rings + random.below(2 * GEOMETRY.ring_bytes as usize) as u64,
        6 => 0,
        _ => random.below(memory.bytes()) as u64,
    };
    let word = memory.word(at);
    let before = word.load(Ordering::Relaxed);
    let value = match random.below(6) {
        0 => before ^ 1 << random.below(64),
        1 => before.wrapping_add(8),
        2 => before.wrapping_sub(8),
        // A header of a frame: of any length, of a stream there is.
        3 => 2 | 1 << 8 | (random.below(STREAMS) as u64) << 16 | (random.below(1 << 13) as u64) << 40,
        4 => 3 | 1 << 8 | (random.below(STREAMS) as u64) << 16 | 8 << 40,
        _ => random.number(),
    };
    word.store(value, Ordering::Relaxed);
    1
}
