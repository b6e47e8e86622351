//! No more address space: connections are made and used while any further mapping, and with it any larger allocation, fails.
//! `exhausted` tries it with more and more left, in a child process each, and says how many of them came through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::sys;
use convoy_tests::say;

/// Bytes by which more is left in each try, and how many tries there are: up to a channel and its queue.
const STEP: u64 = 12 << 10;
const TRIES: u64 = 96;
/// Every so many tries a step is this many times as large.
const GROWS: (u64, u64) = (32, 24);
const BYTES: usize = 200_000;

fn main() {
    let (mut left, mut good) = (0, 0);
    for number in 0..TRIES {
        let child = sys::fork(|| exchange(left));
        match sys::wait(child).as_str() {
            "exit 0" => good += 1,
            other => say!("with {left} bytes left: {other}"),
        }
        left += STEP * GROWS.1.pow((number / GROWS.0) as u32);
    }
    say!("{good} of {TRIES} came through");
}

/// A few messages both ways, and one that is larger than any buffer, with nothing allocated here.
fn exchange(left: u64) -> i32 {
    let mut bytes = vec![0_u8; BYTES];
    let mut came = vec![0_u8; BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    let used = mapped();
    limit_to(used);
    eat();
    limit_to(used + left);
    let (listener, port) = net::listen(Family::V4);
    let one = net::connected(Family::V4, port);
    let two = net::accept(listener, 0).unwrap();
    for round in 0..20 {
        for (from, to) in [(one, two), (two, one)] {
            let length = 1 + round * 100;
            assert_eq!(sys::send(from, &bytes[..length], 0), Ok(length));
            assert_eq!(sys::recv(to, &mut came[..length], libc::MSG_WAITALL), Ok(length));
            assert!(came[..length] == bytes[..length]);
        }
    }
    sys::set_nonblocking(one, true);
    let (mut sent, mut received) = (0, 0);
    while received < BYTES {
        if sent < BYTES {
            sent += sys::send(one, &bytes[sent..], 0).unwrap_or(0);
        }
        received += sys::recv(two, &mut came[received..], 0).unwrap();
    }
    assert!(came == bytes);
    0
}

/// Takes what the allocator still has.
fn eat() {
    for size in (4..17).rev().map(|power| 1 << power) {
        // SAFETY: never freed, never used.
        while !unsafe { libc::malloc(size) }.is_null() {}
    }
}

/// Bytes that are mapped now.
fn mapped() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * pages.split(' ').next().unwrap().parse::<u64>().unwrap()
}

/// From now on no more than so many bytes can be mapped. Allocates nothing.
fn limit_to(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}
