//! How connections come about and end: simultaneous dials, failures, restarts, static peers, the memory of
//! what was unreachable.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

mod common;

use common::{Agent, Proxy, address, config, connect, eventually, short, talk};
use convoy_control::peers::{Config, Event, PeerState, Probe};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

fn quick(host: u8, port: u16) -> Config {
    let mut config = config(host, port);
    config.timings = short();
    config
}

#[test]
fn simultaneous_dials_become_one_connection() {
    let one = Agent::start(config(2, 0));
    let other = Agent::start(config(3, one.port()));
    for round in 0..50u8 {
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (dialer, target) in [(&one.peers, other.address()), (&other.peers, one.address())] {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    dialer.probe(target)
                });
            }
        });
        let (to_other, to_one) = (one.up(), other.up());
        // Nothing said from the first moment on is lost.
        talk(&one, to_other, &other, to_one);
        for agent in [&one, &other] {
            eventually("both dials are over", || {
                let status = agent.peers.status();
                status.half_open == 0 && status.peers.len() == 1
            });
            let events = agent.pending();
            assert!(events.is_empty(), "round {round}: {events:?}");
        }
        one.peers.close(to_other, "next round");
        one.down(to_other);
        other.down(to_one);
    }
}

#[test]
fn many_probes_of_one_address_are_one_dial() {
    let one = Agent::start(config(2, 0));
    let other = Agent::start(config(3, one.port()));
    let first = one.peers.probe(other.address());
    assert_eq!(first, Probe::Dialing);
    for _ in 0..100 {
        assert!(matches!(one.peers.probe(other.address()), Probe::Dialing | Probe::Known(_)));
    }
    let (to_other, to_one) = (one.up(), other.up());
    talk(&one, to_other, &other, to_one);
    assert_eq!(one.peers.status().dials, 1);
    assert!(one.pending().is_empty());
}

#[test]
fn a_mapped_address_is_the_ipv4_one() {
    let one = Agent::start(config(2, 0));
    let other = Agent::start(config(3, one.port()));
    let std::net::IpAddr::V4(plain) = other.address() else { panic!() };
    one.peers.probe(plain.to_ipv6_mapped().into());
    let peer = one.up_from(plain.into());
    assert_eq!(one.peers.probe(plain.into()), Probe::Known(peer));
}

/// Two agents of which the first reaches the other through a proxy at `host3`'s address.
fn through_proxy(change: impl Fn(&mut Config, &mut Config)) -> (Agent, Agent, Proxy) {
    let (mut first, mut second) = (quick(2, 0), quick(4, 0));
    change(&mut first, &mut second);
    let other = Agent::start(second);
    let proxy = Proxy::start(SocketAddr::new(address(3), other.port()), other.peers.local_addr());
    first.dial_port = other.port();
    let one = Agent::start(first);
    (one, other, proxy)
}

#[test]
fn a_broken_connection_is_down_on_both_sides() {
    let (one, other, proxy) = through_proxy(|_, _| ());
    one.peers.probe(proxy.address.ip());
    let (to_other, to_one) = (one.up(), other.up());
    talk(&one, to_other, &other, to_one);
    proxy.cut();
    one.down(to_other);
    other.down(to_one);
    // And it can be made again.
    one.peers.probe(proxy.address.ip());
    let (to_other, to_one) = (one.up(), other.up());
    talk(&one, to_other, &other, to_one);
}

#[test]
fn a_silent_connection_is_found_by_heartbeats() {
    let (one, other, proxy) = through_proxy(|_, _| ());
    one.peers.probe(proxy.address.ip());
    let (to_other, to_one) = (one.up(), other.up());
    talk(&one, to_other, &other, to_one);
    proxy.fall_silent();
    let begun = Instant::now();
    for reason in [one.down(to_other), other.down(to_one)] {
        assert!(reason.contains("nothing was received for 2s") || reason.contains("connection"), "{reason}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[test]
fn an_unreachable_address_is_remembered_for_a_while() {
    let mut settings = config(2, 0);
    settings.timings.negative = Duration::from_secs(1);
    let one = Agent::start(settings);
    let nobody = address(3);
    assert_eq!(one.peers.probe(nobody), Probe::Dialing);
    let (at, reason) = one.unreachable();
    assert!(at == nobody && reason.contains("refused"), "{reason}");
    let told = Instant::now();
    let again = one.peers.probe(nobody);
    // A machine that slept meanwhile has forgotten it rightly.
    assert!(again == Probe::Unreachable || told.elapsed() > Duration::from_millis(900));
    eventually("it is forgotten", || one.peers.probe(nobody) == Probe::Dialing);
    one.unreachable();
    one.peers.forget(nobody);
    assert_eq!(one.peers.probe(nobody), Probe::Dialing);
    one.unreachable();
    assert_eq!(one.peers.status().dials_failed, one.peers.status().dials);
}

#[test]
fn an_address_becomes_known_again_when_it_connects() {
    let one = Agent::start(config(2, 0));
    one.peers.probe(address(3));
    one.unreachable();
    assert_eq!(one.peers.probe(address(3)), Probe::Unreachable);
    let other = Agent::start(config(3, one.port()));
    let (_, at_one) = connect(&other, &one);
    assert_eq!(one.peers.probe(address(3)), Probe::Known(at_one));
    other.peers.close(other.peers.status().peers[0].connection.as_ref().unwrap().peer, "gone");
    one.down(at_one);
    assert_eq!(one.peers.probe(address(3)), Probe::Dialing);
    one.up();
}

#[test]
fn an_address_where_nobody_answers_is_given_up_in_time() {
    let mut settings = config(2, 0);
    settings.timings.handshake = Duration::from_millis(300);
    let one = Agent::start(settings);
    // Connections are taken by the kernel, and nobody reads them.
    let _mute = TcpListener::bind(SocketAddr::new(address(3), one.port())).unwrap();
    one.peers.probe(address(3));
    let (_, reason) = one.unreachable();
    assert!(reason.contains("in time"), "{reason}");
}

#[test]
fn a_peer_that_was_started_again_replaces_the_old_one() {
    let (one, other, proxy) = through_proxy(|_, _| ());
    one.peers.probe(proxy.address.ip());
    let (to_other, _) = (one.up(), other.up());
    // The old agent is out of reach at once, and one with another instance takes its address.
    proxy.fall_silent();
    let port = other.port();
    drop(other);
    let mut settings = config(3, 0);
    settings.listen.set_port(0);
    settings.dial_port = one.port();
    let new = Agent::start(settings);
    assert_ne!(new.port(), port);
    new.peers.probe(one.address());
    new.up();
    let mut order = Vec::new();
    while order.len() < 2 {
        order.push(one.wait("down, up", |event| match event {
            Event::Down { peer, .. } if *peer == to_other => Some("down"),
            Event::Up { .. } => Some("up"),
            _ => None,
        }));
    }
    assert_eq!(order, ["down", "up"]);
}

#[test]
fn an_agent_that_lost_a_connection_has_a_new_one_at_once() {
    // Whichever of the two decides: the end that noticed first must not have to wait for the other.
    for instances in [(1, 2), (2, 1)] {
        let (one, other, proxy) = through_proxy(|one, other| {
            (one.hello.instance, other.hello.instance) = instances;
            for config in [one, other] {
                // Found by heartbeats only long after the test.
                config.timings.dead = Duration::from_secs(300);
            }
        });
        one.peers.probe(proxy.address.ip());
        let (lost, stale) = (one.up(), other.up());
        proxy.fall_silent();
        one.peers.close(lost, "lost");
        one.down(lost);
        one.peers.probe(proxy.address.ip());
        let (to_other, to_one) = (one.up(), other.up());
        assert!(other.down(stale).contains("connected again"));
        talk(&one, to_other, &other, to_one);
        assert_eq!((one.peers.status().peers.len(), other.peers.status().peers.len()), (1, 1));
    }
}

#[test]
fn static_peers_are_dialed_until_they_answer_and_again_when_lost() {
    let probe = Agent::start(config(2, 0));
    let port = probe.port();
    drop(probe);
    let mut settings = quick(2, port);
    settings.peers = vec![SocketAddr::new(address(3), 0)];
    let one = Agent::start(settings);
    let (at, _) = one.unreachable();
    assert_eq!(at, address(3));
    eventually("it is dialed again", || one.peers.status().dials_failed >= 3);
    let status = one.peers.status();
    assert!(status.peers[0].state != PeerState::Up && status.peers[0].connection.is_none());
    for _ in 0..3 {
        let other = Agent::start(quick(3, port));
        let (to_other, to_one) = (one.up(), other.up());
        talk(&one, to_other, &other, to_one);
        assert_eq!(one.peers.status().peers.len(), 1);
        drop(other);
        let reason = one.down(to_other);
        assert!(reason.contains("shutting down"), "{reason}");
    }
}

#[test]
fn reloaded_static_peers_are_dialed() {
    let one = Agent::start(quick(2, 0));
    let other = Agent::start(quick(3, 0));
    let third = Agent::start(quick(4, 0));
    one.peers.reload(&[other.peers.local_addr()]);
    let to_other = one.up_from(other.address());
    one.peers.reload(&[third.peers.local_addr()]);
    let to_third = one.up_from(third.address());
    let (at_other, at_third) = (other.up(), third.up());
    // The connection to one that is no longer static stays, and is not made again once it ended.
    talk(&one, to_other, &other, at_other);
    other.peers.close(at_other, "end");
    one.down(to_other);
    third.peers.close(at_third, "end");
    one.down(to_third);
    one.up_from(third.address());
    assert_eq!(one.peers.status().peers.len(), 1);
}
