//! Who becomes a peer of whom: keys, versions, oneself; and what is told about it.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

mod common;

use common::{Agent, address, config, connect, eventually, hello, key, talk};
use convoy_control::peers::{Config, Event, Probe};
use convoy_control::secure::handshake::{Role, Security, handshake};
use convoy_control::secure::wire::Kind;
use convoy_control::{Peers, Versions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

#[test]
fn peers_with_one_key_learn_of_each_other_and_talk() {
    let mut first = config(2, 0);
    first.hello.addresses = vec![address(2), "fd00::2".parse().unwrap()];
    first.hello.features = ["a", "b"].map(str::to_owned).into();
    first.hello.payload = vec![0, 255, 7];
    let instance = first.hello.instance;
    let one = Agent::start(first);
    let mut second = config(3, one.port());
    second.hello.features = ["b", "c"].map(str::to_owned).into();
    let other = Agent::start(second);
    assert_eq!(other.peers.probe(one.address()), Probe::Dialing);
    let (to_one, seen) = other.wait("up", |event| match event {
        Event::Up { peer, .. } => Some((*peer, event.clone())),
        _ => None,
    });
    assert_eq!(
        seen,
        Event::Up {
            peer: to_one,
            address: address(2),
            instance,
            protocol: 1,
            features: ["b".to_owned()].into(),
            name: "host2".to_owned(),
            addresses: vec![address(2), "fd00::2".parse().unwrap()],
            payload: vec![0, 255, 7],
            dialed: true,
        }
    );
    let (to_other, dialed, from) = one.wait("up", |event| match event {
        Event::Up { peer, dialed, address, .. } => Some((*peer, *dialed, *address)),
        _ => None,
    });
    assert!(!dialed);
    assert_eq!(from, address(3));
    talk(&one, to_other, &other, to_one);
    assert_eq!(other.peers.probe(one.address()), Probe::Known(to_one));
    let status = one.peers.status();
    assert!(status.keyed && status.half_open == 0);
    let [peer] = &status.peers[..] else { panic!("{status:?}") };
    let connection = peer.connection.as_ref().unwrap();
    assert_eq!((peer.address, connection.name.as_str(), connection.protocol), (address(3), "host3", 1));
    assert_eq!((connection.messages_in, connection.messages_out), (1, 1));
    assert!(connection.bytes_in > 4 && connection.bytes_out > 5 && !connection.dialed);
    serde_json::to_string(&status).unwrap();
}

#[test]
fn three_agents_are_peers_of_each_other() {
    let one = Agent::start(config(2, 0));
    let two = Agent::start(config(3, one.port()));
    let three = Agent::start(config(4, one.port()));
    let (two_at_one, one_at_two) = connect(&one, &two);
    let (three_at_two, two_at_three) = connect(&two, &three);
    let (one_at_three, three_at_one) = connect(&three, &one);
    talk(&one, two_at_one, &two, one_at_two);
    talk(&two, three_at_two, &three, two_at_three);
    talk(&three, one_at_three, &one, three_at_one);
}

#[test]
fn a_wrong_key_is_refused_on_both_sides() {
    let one = Agent::start(config(2, 0));
    let mut wrong = config(3, one.port());
    wrong.key = Some(key(9));
    let other = Agent::start(wrong);
    assert_eq!(other.peers.probe(one.address()), Probe::Dialing);
    let (from, reason) = other.unreachable();
    assert_eq!(from, one.address());
    assert!(reason.contains("different key") && reason.contains("key file"), "{reason}");
    eventually("counted", || one.refused("key") == 1);
    let (from, reason) = one.peers.status().last_refused.unwrap();
    assert!(from == other.address() && reason.contains("different key"), "{reason}");
    assert!(one.pending().is_empty() && other.pending().is_empty());
}

#[test]
fn plain_and_keyed_agents_refuse_each_other() {
    let one = Agent::start(config(2, 0));
    let mut plain = config(3, one.port());
    plain.key = None;
    let other = Agent::start(plain);
    other.peers.probe(one.address());
    let (_, reason) = other.unreachable();
    assert!(reason.contains("requires a key"), "{reason}");
    eventually("counted", || one.refused("mode") == 1);
    one.peers.probe(other.address());
    let (_, reason) = one.unreachable();
    assert!(reason.contains("has no key"), "{reason}");
    eventually("counted", || other.refused("mode") == 1);
}

#[test]
fn plain_agents_on_loopback_are_peers() {
    let plain = |host, port| Config { key: None, ..config(host, port) };
    let one = Agent::start(plain(2, 0));
    let other = Agent::start(plain(3, one.port()));
    let (to_other, to_one) = connect(&one, &other);
    talk(&one, to_other, &other, to_one);
    assert!(!one.peers.status().keyed);
    // Without a key and without permission, nothing leaves the host.
    one.peers.probe(Ipv4Addr::new(192, 0, 2, 1).into());
    let (_, reason) = one.unreachable();
    assert!(reason.contains("no key"), "{reason}");
}

#[test]
fn an_agent_without_a_key_listens_on_loopback_only_unless_permitted() {
    let open = |insecure| {
        let mut config = Config::new(hello("open"));
        config.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.insecure = insecure;
        Peers::start(config)
    };
    let line = open(false).err().unwrap().to_string();
    assert!(line.contains("needs a key file") && !line.contains('\n'), "{line}");
    open(true).unwrap();
}

#[test]
fn an_address_in_use_and_an_oversized_hello_are_refused_at_start() {
    let one = Agent::start(config(2, 0));
    let line = Peers::start(config(2, one.port())).err().unwrap().to_string();
    assert!(line.contains(&one.peers.local_addr().to_string()), "{line}");
    let mut large = config(3, 0);
    large.hello.payload = vec![0; 1 << 20];
    let line = Peers::start(large).err().unwrap().to_string();
    assert!(line.contains("payload"), "{line}");
}

fn versions(host: u8, port: u16, min: u32, max: u32) -> Config {
    let mut config = config(host, port);
    config.hello.protocol = Versions { min, max };
    config
}

#[test]
fn an_older_agent_is_spoken_to_in_its_version() {
    let one = Agent::start(versions(2, 0, 1, 5));
    let other = Agent::start(versions(3, one.port(), 1, 3));
    let protocol = |agent: &Agent| {
        agent.wait("up", |event| match event {
            Event::Up { peer, protocol, .. } => Some((*peer, *protocol)),
            _ => None,
        })
    };
    one.peers.probe(other.address());
    let ((to_other, here), (to_one, there)) = (protocol(&one), protocol(&other));
    assert_eq!((here, there), (3, 3));
    talk(&one, to_other, &other, to_one);
}

#[test]
fn without_a_common_version_both_sides_know_the_ranges() {
    let one = Agent::start(versions(2, 0, 4, 5));
    let other = Agent::start(versions(3, one.port(), 1, 3));
    for (dialer, listener, count) in [(&one, &other, 1), (&other, &one, 1)] {
        dialer.peers.probe(listener.address());
        let (_, reason) = dialer.unreachable();
        assert!(reason.contains("4 to 5") && reason.contains("1 to 3"), "{reason}");
        eventually("counted", || listener.refused("version") == count);
        let (_, reason) = listener.peers.status().last_refused.unwrap();
        assert!(reason.contains("4 to 5") && reason.contains("1 to 3"), "{reason}");
    }
}

#[test]
fn an_agent_is_not_its_own_peer() {
    let one = Agent::start(config(2, 0));
    one.peers.probe(one.address());
    let (_, reason) = one.unreachable();
    assert!(reason.contains("itself"), "{reason}");
    eventually("counted", || one.refused("myself") == 1);
}

#[test]
fn an_agent_that_says_only_what_it_must_is_a_peer() {
    let mut settings = config(2, 0);
    settings.hello.instance = 1;
    let one = Agent::start(settings);
    let mut stream = TcpStream::connect(one.peers.local_addr()).unwrap();
    let (mut sealer, mut opener) = handshake(&mut stream, &Security::Keyed(key(0)), Role::Dialer).unwrap();
    let mut say = |stream: &mut TcpStream, kind, body: &[u8]| {
        let mut out = Vec::new();
        sealer.seal(kind, body, &mut out).unwrap();
        stream.write_all(&out).unwrap();
    };
    let mut hear = |stream: &mut TcpStream| {
        let mut chunk = [0; 4096];
        loop {
            if let Some((kind, body)) = opener.record().unwrap() {
                return (kind, body.to_vec());
            }
            let count = stream.read(&mut chunk).unwrap();
            opener.push(&chunk[..count]);
        }
    };
    say(&mut stream, Kind::Hello, br#"{"protocol":{"min":1,"max":1},"instance":"2","new":"field"}"#);
    assert_eq!(hear(&mut stream).0, Kind::Hello);
    say(&mut stream, Kind::Propose, br#"{"number":1}"#);
    assert_eq!(hear(&mut stream).0, Kind::Accept);
    let peer = one.up();
    say(&mut stream, Kind::Last, b"hi");
    assert_eq!(one.message(peer), b"hi");
    one.peers.send(peer, b"ho".to_vec()).unwrap();
    while hear(&mut stream) != (Kind::Last, b"ho".to_vec()) {}
    // What belongs into a handshake ends a connection in use.
    say(&mut stream, Kind::Accept, b"{}");
    assert!(one.down(peer).contains("Accept"));
}
