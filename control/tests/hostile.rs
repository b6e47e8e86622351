//! Whatever arrives on the port: it is refused for a counted reason, and an honest peer does not notice.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

mod common;

use common::{Agent, WATCHDOG, config, connect, eventually, key, talk};
use convoy_control::secure::handshake::{Role, Security, handshake};
use convoy_control::secure::wire::{Kind, MAX_RECORD};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A listener with its port under attack, while an honest peer comes and talks.
fn attacked(attack: impl FnOnce(&Agent) -> Vec<TcpStream>) -> (Agent, Vec<TcpStream>) {
    let victim = Agent::start(config(2, 0));
    let held = attack(&victim);
    let honest = Agent::start(config(3, victim.port()));
    let begun = Instant::now();
    let (to_victim, to_honest) = connect(&honest, &victim);
    talk(&honest, to_victim, &victim, to_honest);
    assert!(begun.elapsed() < WATCHDOG / 2);
    (victim, held)
}

fn open(victim: &Agent) -> TcpStream {
    let stream = TcpStream::connect(victim.peers.local_addr()).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// The victim has closed the connection.
fn closed(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_megabyte_of_noise() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        let mut noise = vec![0u8; 1 << 20];
        getrandom::fill(&mut noise).unwrap();
        // So that it does not begin with a possible length by chance.
        noise[0] |= 1;
        // The victim may close it in between.
        let _ = stream.write_all(&noise);
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("not-convoy"), 1);
}

#[test]
fn an_http_request() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("not-convoy"), 1);
}

#[test]
fn a_port_scan() {
    let (victim, _held) = attacked(|victim| {
        drop(open(victim));
        Vec::new()
    });
    eventually("counted", || victim.refused("closed") == 1);
}

#[test]
fn an_oversized_record_where_a_handshake_message_is_due() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        let mut greeting = b"\0\0\0\x16convoy-control/1 keyed".to_vec();
        greeting.extend_from_slice(&60_000u32.to_be_bytes());
        stream.write_all(&greeting).unwrap();
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("oversized"), 1);
}

#[test]
fn an_oversized_record_of_one_who_has_the_key() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        handshake(&mut stream, &Security::Keyed(key(0)), Role::Dialer).unwrap();
        stream.write_all(&u32::try_from(MAX_RECORD + 1).unwrap().to_be_bytes()).unwrap();
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("oversized"), 1);
}

#[test]
fn a_truncated_record() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        let (mut sealer, _) = handshake(&mut stream, &Security::Keyed(key(0)), Role::Dialer).unwrap();
        let mut record = Vec::new();
        sealer.seal(Kind::Hello, b"{}", &mut record).unwrap();
        stream.write_all(&record[..record.len() - 1]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("closed"), 1);
}

#[test]
fn a_forged_record() {
    let (victim, _held) = attacked(|victim| {
        let mut stream = open(victim);
        let (mut sealer, _) = handshake(&mut stream, &Security::Keyed(key(0)), Role::Dialer).unwrap();
        let mut record = Vec::new();
        sealer.seal(Kind::Hello, b"{}", &mut record).unwrap();
        record[10] ^= 1;
        stream.write_all(&record).unwrap();
        assert!(closed(&mut stream));
        vec![stream]
    });
    assert_eq!(victim.refused("malformed"), 1);
}

/// Keeps what is written.
struct Recorder(TcpStream, Vec<u8>);

impl Read for Recorder {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_replayed_connection() {
    let (victim, _held) = attacked(|victim| {
        let mut honest = Recorder(open(victim), Vec::new());
        let (mut sealer, _) = handshake(&mut honest, &Security::Keyed(key(0)), Role::Dialer).unwrap();
        let mut record = Vec::new();
        let hello = common::hello("replayed").encode().unwrap();
        sealer.seal(Kind::Hello, &hello, &mut record).unwrap();
        honest.write_all(&record).unwrap();
        let mut stream = open(victim);
        stream.write_all(&honest.1).unwrap();
        assert!(closed(&mut stream));
        vec![honest.0, stream]
    });
    assert_eq!(victim.refused("malformed"), 1);
}

#[test]
fn bytes_that_drip_end_at_the_deadline() {
    let mut settings = config(2, 0);
    settings.timings.handshake = Duration::from_millis(500);
    let victim = Agent::start(settings);
    let mut stream = open(&victim);
    let begun = Instant::now();
    for byte in b"\0\0\0\x16convoy-control/1 keyed".iter().cycle() {
        if victim.refused("slow") == 1 {
            break;
        }
        assert!(begun.elapsed() < WATCHDOG);
        let _ = stream.write_all(&[*byte]);
        // The pace of the drip: each byte well before a timeout of its own would end it.
        std::thread::sleep(Duration::from_millis(60));
    }
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(closed(&mut stream));
    let honest = Agent::start(config(3, victim.port()));
    let (to_victim, to_honest) = connect(&honest, &victim);
    talk(&honest, to_victim, &victim, to_honest);
}

#[test]
fn two_hundred_connections_that_say_nothing() {
    let (victim, mut held) = attacked(|victim| (0..200).map(|_| open(victim)).collect());
    let limit = 64;
    eventually("the oldest gave way", || victim.refused("crowded") >= 200 - limit);
    assert!(victim.peers.status().half_open <= limit as usize);
    for stream in &mut held {
        assert!(closed(stream));
    }
    eventually("all are gone", || victim.peers.status().half_open == 0);
}

#[test]
fn two_hundred_connections_do_not_disturb_a_peer_that_is_up() {
    let victim = Agent::start(config(2, 0));
    let honest = Agent::start(config(3, victim.port()));
    let (to_victim, to_honest) = connect(&honest, &victim);
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = open(&victim);
        let _ = stream.write_all(b"\0\0\0\x16convoy");
        held.push(stream);
        talk(&honest, to_victim, &victim, to_honest);
    }
}
