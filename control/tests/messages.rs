//! Messages: all sizes, both ways, in order; and what happens when one end does not keep up.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

mod common;

use common::{Agent, config, connect, eventually, short};
use convoy_control::peers::{Config, Event, Events, PeerId, Peers, SendError};
use std::time::Duration;

/// The `index`th message of a run, which only it can be.
fn message(index: u32, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at as u32 ^ index) as u8).collect();
    let head = index.to_be_bytes();
    let count = head.len().min(size);
    bytes[..count].copy_from_slice(&head[4 - count..]);
    bytes
}

fn pair(change: impl Fn(&mut Config)) -> (Agent, Agent, PeerId, PeerId) {
    let mut first = config(2, 0);
    change(&mut first);
    let one = Agent::start(first);
    let mut second = config(3, one.port());
    change(&mut second);
    let other = Agent::start(second);
    let (to_other, to_one) = connect(&one, &other);
    (one, other, to_other, to_one)
}

#[test]
fn messages_of_all_sizes_arrive_in_order_both_ways() {
    for keyed in [true, false] {
        let (one, other, to_other, to_one) = pair(|config| {
            config.limits.queue_bytes = 64 << 20;
            if !keyed {
                config.key = None;
            }
        });
        let mut sizes: Vec<usize> = (0..=20).flat_map(|power| [(1 << power) - 1, 1 << power]).collect();
        sizes.extend([65_517, 65_518, 65_519, 65_535, 65_536, 65_537, 0, 1, 2, 3]);
        for (index, size) in (0u32..).zip(&sizes) {
            one.peers.send(to_other, message(index, *size)).unwrap();
            other.peers.send(to_one, message(index + 7, *size)).unwrap();
        }
        for (index, size) in (0u32..).zip(&sizes) {
            assert!(other.message(to_one) == message(index, *size), "{index} of {size}");
            assert!(one.message(to_other) == message(index + 7, *size), "{index} of {size}");
        }
    }
}

#[test]
fn many_small_messages_arrive_in_order() {
    const COUNT: u32 = 10_000;
    let (one, other, to_other, to_one) = pair(|_| ());
    for index in 0..COUNT {
        one.peers.send(to_other, index.to_be_bytes().to_vec()).unwrap();
    }
    for index in 0..COUNT {
        assert_eq!(other.message(to_one), index.to_be_bytes());
    }
}

#[test]
fn a_message_too_long_is_refused_and_harms_nothing() {
    let (one, other, to_other, to_one) = pair(|_| ());
    assert_eq!(one.peers.send(to_other, vec![0; (1 << 20) + 1]), Err(SendError::TooLong));
    common::talk(&one, to_other, &other, to_one);
}

#[test]
fn a_queue_that_overflows_closes_the_peer() {
    let (one, other, to_other, to_one) = pair(|config| {
        config.limits.queue_bytes = 1 << 20;
        config.limits.unread_bytes = 1 << 20;
    });
    // The other end takes nothing out of its events, so its reader stops, and the kernel's buffers fill.
    let mut sent = 0;
    let error = loop {
        match one.peers.send(to_other, vec![7; 256 << 10]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000);
    };
    assert_eq!(error, SendError::Overflow);
    assert!(one.down(to_other).contains("too much was waiting"));
    assert_eq!(one.peers.send(to_other, vec![1]), Err(SendError::Down));
    other.down(to_one);
}

#[test]
fn a_reader_that_waits_for_its_agent_loses_nothing() {
    const COUNT: u32 = 64;
    let (one, other, to_other, to_one) = pair(|config| config.limits.unread_bytes = 256 << 10);
    for index in 0..COUNT {
        one.peers.send(to_other, message(index, 128 << 10)).unwrap();
    }
    let received = || other.peers.status().peers[0].connection.as_ref().unwrap().messages_in;
    eventually("the reader waits", || received() >= 3);
    assert!(received() <= 3);
    for index in 0..COUNT {
        assert!(other.message(to_one) == message(index, 128 << 10));
    }
    let status = one.peers.status();
    assert_eq!(status.peers[0].connection.as_ref().unwrap().messages_out, u64::from(COUNT));
}

#[test]
fn what_is_queued_before_a_close_arrives_before_the_reason() {
    let (one, other, to_other, to_one) = pair(|_| ());
    for index in 0..20 {
        one.peers.send(to_other, message(index, 100_000)).unwrap();
    }
    one.peers.close(to_other, "enough\nof it");
    assert!(one.down(to_other).contains("enough"));
    assert_eq!(one.peers.send(to_other, vec![1]), Err(SendError::Down));
    for index in 0..20 {
        assert!(other.message(to_one) == message(index, 100_000));
    }
    let reason = other.down(to_one);
    assert!(reason.contains("enough of it"), "{reason}");
    one.peers.close(to_other, "again");
    assert!(one.pending().is_empty());
}

#[test]
fn every_event_makes_the_eventfd_readable() {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let mut settings = config(2, 0);
    settings.wake = Some(wake.try_clone().unwrap());
    let (peers, events): (Peers, Events) = Peers::start(settings).unwrap();
    let other = Agent::start(config(3, peers.local_addr().port()));
    // As an engine does: sleep, reset, take everything.
    let next = || loop {
        if let Ok(event) = events.try_recv() {
            return event;
        }
        let limit = Timespec::try_from(common::WATCHDOG).unwrap();
        let ready = poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "nobody woke the one who waits");
        let _ = rustix::io::read(&wake, &mut [0u8; 8]);
    };
    peers.probe(other.address());
    let Event::Up { peer, .. } = next() else { panic!() };
    let back = other.up();
    for index in 0..100 {
        other.peers.send(back, message(index, 10)).unwrap();
        assert_eq!(next(), Event::Message { peer, bytes: message(index, 10) });
    }
    other.peers.close(back, "done");
    assert!(matches!(next(), Event::Down { .. }));
}

#[test]
fn heartbeats_keep_an_idle_connection() {
    let (one, other, to_other, to_one) = pair(|config| config.timings = short());
    let begun = std::time::Instant::now();
    let bytes = |agent: &Agent| agent.peers.status().peers[0].connection.as_ref().unwrap().bytes_in;
    let before = (bytes(&one), bytes(&other));
    eventually("some heartbeats", || bytes(&one) > before.0 + 500 && bytes(&other) > before.1 + 500);
    assert!(begun.elapsed() > Duration::from_millis(500));
    common::talk(&one, to_other, &other, to_one);
}
