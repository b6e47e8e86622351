//! Nothing remains of a service that was shut down. One test only: it counts what the whole process has.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

mod common;

use common::{Agent, config, connect, eventually, talk};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

#[test]
fn no_thread_and_no_descriptor_remains() {
    // Handshake and cipher code may keep what it opens first for ever.
    drop(Agent::start(config(9, 0)));
    eventually("the first threads are gone", || count("task") <= 2);
    let before = (count("task"), count("fd"));
    for round in 0..3 {
        let one = Agent::start(config(2, 0));
        let other = Agent::start(config(3, one.port()));
        let (to_other, to_one) = connect(&one, &other);
        talk(&one, to_other, &other, to_one);
        // In every state a connection can be in: unread messages, half open, being dialed, waiting.
        for _ in 0..100 {
            one.peers.send(to_other, vec![1; 128 << 10]).unwrap();
        }
        let mute = TcpListener::bind(SocketAddr::new(common::address(4), one.port())).unwrap();
        one.peers.probe(common::address(4));
        let mut half = TcpStream::connect(one.peers.local_addr()).unwrap();
        half.write_all(b"\0\0\0").unwrap();
        eventually("it is half open", || one.peers.status().half_open == 1);
        one.peers.reload(&[SocketAddr::new(common::address(5), 0)]);
        one.unreachable();
        assert!(count("task") > before.0 + 4 && count("fd") > before.1 + 6);
        let begun = Instant::now();
        one.peers.shutdown();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "round {round}: {took:?}");
        assert!(one.down(to_other).contains("shutting down"));
        one.peers.shutdown();
        other.down(to_one);
        assert!(TcpStream::connect(one.peers.local_addr()).is_err());
        drop((one, other, half, mute));
        // A joined thread leaves the list a moment later.
        eventually("threads and descriptors are gone", || (count("task"), count("fd")) == before);
    }
}
