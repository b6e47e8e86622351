//! A side that sleeps on its descriptor is woken, although nobody polls it.

use std::time::{Duration, Instant};

use convoy_fabric::LinkId;

use crate::harness::{Pair, Side, write};

/// Whether a descriptor is readable.
fn is_readable(descriptor: i32) -> bool {
    let mut entry = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, and no waiting.
    let count = unsafe { libc::poll(&mut entry, 1, 0) };
    count == 1
}

/// Lets `b` sleep, then does something, and from then on polls `b` only after its descriptor has become readable or it
/// may not sleep. Whether `b` was quiet before: it may be woken for nothing, but not always.
fn asleep_until(
    pair: &mut Pair,
    what: &str,
    action: impl FnOnce(&mut Pair),
    holds: impl Fn(&Pair) -> bool,
) -> bool {
    pair.until("there is nothing to do", |pair| pair.b.fabric.may_sleep());
    let descriptor = pair.b.fabric.wait_descriptor().expect("a descriptor to sleep on");
    let was_quiet = !is_readable(descriptor);
    action(pair);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        while !is_readable(descriptor) {
            assert!(Instant::now() < end, "never woken: {what}");
            pair.a.poll();
            std::thread::yield_now();
        }
        loop {
            assert!(Instant::now() < end, "never: {what}");
            pair.a.poll();
            pair.b.poll();
            if holds(pair) {
                return was_quiet;
            }
            if pair.b.fabric.may_sleep() {
                break;
            }
        }
    }
}

fn has_descriptor(side: &Side) -> bool {
    let has = side.fabric.wait_descriptor().is_some();
    if !has {
        println!("skipped: {} must be polled", side.fabric.name());
    }
    has
}

/// For a write, large or small, with and without others before it; and for its own.
pub fn wakes_for_a_write(pair: &mut Pair) {
    let link = pair.link();
    if !has_descriptor(&pair.b) {
        return;
    }
    let source = pair.a.source(&[1; 64 << 10]);
    let (_, remote) = pair.b.exported(64 << 10);
    let mut quiet = 0;
    for round in 0..20 {
        let size = if round % 2 == 0 { 64 } else { 64 << 10 };
        let next = write(source, 0..size, remote, 0, Some(round));
        let arrived = round as usize + 1;
        quiet += usize::from(asleep_until(
            pair,
            "the write arrives",
            |pair| {
                while pair.a.fabric.post(link, &next).is_err() {
                    pair.a.poll();
                }
            },
            |pair| pair.b.arrived(link).len() == arrived,
        ));
    }
    println!("{}: asleep before {quiet} of 20 writes", pair.b.fabric.name());
    assert!(quiet > 0);
    // Its own writes come to an end too while it sleeps.
    let source = pair.b.source(&[2; 64 << 10]);
    let (_, remote) = pair.a.exported(64 << 10);
    let next = write(source, 0..64 << 10, remote, 0, Some(1));
    let posted = pair.b.fabric.post(link, &next);
    assert_eq!(posted, Ok(()));
    pair.a.poll();
    let end = Instant::now() + Duration::from_secs(60);
    let descriptor = pair.b.fabric.wait_descriptor().expect("a descriptor to sleep on");
    while pair.b.written(link) == 0 {
        while pair.b.fabric.may_sleep() && !is_readable(descriptor) {
            assert!(Instant::now() < end, "never woken: the write is done");
            pair.a.poll();
        }
        pair.b.poll();
    }
}

/// For a peer that connects, and for one that goes.
pub fn wakes_for_a_connection(pair: &mut Pair) {
    if !has_descriptor(&pair.b) {
        return;
    }
    let connect = |pair: &mut Pair| pair.begin(LinkId(1), LinkId(2));
    asleep_until(pair, "the link is connected", connect, |pair| pair.b.connected == [LinkId(2)]);
    pair.until("on the other side as well", |pair| pair.a.connected == [LinkId(1)]);
    let disconnect = |pair: &mut Pair| pair.a.fabric.disconnect(LinkId(1));
    asleep_until(pair, "the link is down", disconnect, |pair| pair.b.is_down(LinkId(2)));
}
