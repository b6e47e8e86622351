//! The other two processes: a friend, who only talks, and a liar, who talks and scribbles.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::{Random, Stream, sys};

use crate::scribble::{self, Plan, What};
use crate::shared;
use crate::traffic::{Fate, STYLES, Tally, exchange};

/// Streams that a friend or a liar has.
pub const STREAMS: u64 = 8;
/// The connections of a friend that follow those, so many at a time: their ends meet at the same time.
const SHORT_LIVES: u64 = 1000;
const AT_ONCE: u64 = 4;

/// Talks until the honest process stops, and makes new connections meanwhile.
pub fn friend(port: u16) {
    let tally = Arc::new(Tally::default());
    let streams: Vec<_> = (0..STREAMS).map(|number| talk(port, number, Arc::clone(&tally))).collect();
    let (numbers, over) = (AtomicU64::new(SHORT_LIVES), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    short_life(port, numbers.fetch_add(1, Ordering::Relaxed));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        // The standard input ends when the friend is to end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
    });
    for stream in streams {
        assert_eq!(stream.join().expect("a stream"), Fate::End);
    }
    println!("lives {}", numbers.into_inner() - SHORT_LIVES);
}

/// A connection with its number, as the first bytes on it.
fn connect(port: u16, number: u64) -> Stream {
    let fd = net::connected(Family::V4, port);
    net::no_delay(fd);
    assert_eq!(sys::send(fd, &number.to_le_bytes(), 0), Ok(8), "the number");
    Stream::new(fd, number, true)
}

fn talk(port: u16, number: u64, tally: Arc<Tally>) -> std::thread::JoinHandle<Fate> {
    let mut stream = connect(port, number);
    let style = STYLES[number as usize % STYLES.len()];
    std::thread::spawn(move || {
        let fate = exchange(&mut stream, style, false, &tally);
        sys::close(stream.fd).unwrap();
        fate
    })
}

/// One of a few small messages.
fn short_life(port: u16, number: u64) {
    let mut stream = connect(port, number);
    stream.ping(20, 100);
    sys::close(stream.fd).unwrap();
}

/// Talks, and after a moment scribbles. Says how many words, and dies or ends.
pub fn liar(port: u16, seed: u64, what: What) {
    let tally = Arc::new(Tally::default());
    let open = Arc::new(AtomicUsize::new(STREAMS as usize));
    for number in 0..STREAMS {
        let stream = talk(port, number, Arc::clone(&tally));
        let open = Arc::clone(&open);
        std::thread::spawn(move || {
            let _ = stream.join();
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let patience = Instant::now();
    while shared::segments().is_empty() && patience.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut random = Random::new(seed);
    std::thread::sleep(Duration::from_millis(random.below(20)));
    let plan = Plan::new(&mut random, what);
    let words = scribble::scribble(&mut random, &plan, || open.load(Ordering::Relaxed) == 0);
    println!("words {words}");
    if random.below(2) == 0 {
        sys::kill(std::process::id() as i32, libc::SIGKILL);
    }
    // An end in order, with all the memory as it is now.
    std::process::exit(0);
}
