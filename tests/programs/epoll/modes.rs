//! Level, edge, one-shot, exclusive.

use convoy_tests::kit::epoll::{ET, EXCLUSIVE, Epoll, IN, ONESHOT, OUT, RDHUP};
use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::arrive;

pub(crate) fn level(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    say!("add: {}", show(epoll.add(link.fd, IN, 1)));
    say!("nothing: {}", epoll.look(0));
    arrive(&mut link, 10);
    say!("data: {}", epoll.look(-1));
    say!("again: {}", epoll.look(-1));
    say!("some read: {}, {}", show(link.recv_with(5, 0)), epoll.look(-1));
    say!("all read: {}, {}", show(link.recv_with(5, 0)), epoll.look(5));
    for round in 0..30 {
        link.start("send 10");
        say!("{round}: {}", epoll.look(-1));
        link.finish();
        say!("{}, {}", show(link.recv_with(10, libc::MSG_WAITALL)), epoll.look(0));
    }
}

pub(crate) fn level_states(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | OUT | RDHUP, 1).unwrap();
    say!("fresh: {}", epoll.look(-1));
    arrive(&mut link, 10);
    say!("data: {}", epoll.look(-1));
    link.recv_with(10, 0).unwrap();
    let sent = link.fill_up(30_000);
    say!("full: {}", epoll.look(5));
    link.ask(&format!("recv {sent}"));
    say!("room: {}", epoll.look(-1));
    arrive(&mut link, 10);
    link.ask("shutdown 1");
    sys::poll_one(link.fd, libc::POLLRDHUP, -1);
    say!("data and end: {}", epoll.look(-1));
    say!("data: {}, {}", show(link.recv_with(10, 0)), epoll.look(-1));
    say!("end: {}, {}", show(link.recv_with(10, 0)), epoll.look(-1));
    sys::shutdown(link.fd, libc::SHUT_WR).unwrap();
    sys::poll_one(link.fd, libc::POLLHUP, -1);
    say!("both ends: {}", epoll.look(-1));
    let link = case.link();
    epoll.add(link.fd, 0, 2).unwrap();
    link.ask("reset");
    sys::poll_one(link.fd, libc::POLLERR, -1);
    say!("reset, nothing wanted: {}", epoll.look(-1));
    epoll.modify(link.fd, IN | OUT | RDHUP, 2).unwrap();
    say!("reset: {}", epoll.look(-1));
}

pub(crate) fn edge(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ET, 1).unwrap();
    say!("nothing: {}", epoll.look(0));
    for round in 0..30 {
        arrive(&mut link, 10);
        say!("{round}: data: {}", epoll.look(-1));
        say!("not again: {}", epoll.look(0));
        if round % 3 != 0 {
            say!("read: {}", show(link.recv_with(1000, 0)));
        }
    }
    say!("nothing left: {}", show(link.recv_with(1000, libc::MSG_DONTWAIT)));
    say!("nothing: {}", epoll.look(0));
    for round in 0..30 {
        link.start("send 10");
        say!("{round}: asleep: {}", epoll.look(-1));
        link.finish();
        say!("{}", show(link.recv_with(10, libc::MSG_WAITALL)));
    }
}

/// New bytes are a new edge, although old ones are still there; reading makes no edge.
pub(crate) fn edge_partial_reads(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ET, 1).unwrap();
    arrive(&mut link, 100);
    say!("data: {}", epoll.look(-1));
    say!("some read: {}, {}", show(link.recv_with(10, 0)), epoll.look(0));
    say!("more read: {}, {}", show(link.recv_with(10, 0)), epoll.look(0));
    link.ask("send 5");
    link.await_bytes(85);
    say!("more came: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
    say!("all: {}", show(link.recv_with(500, 0)));
    say!("nothing: {}", show(link.recv_with(500, libc::MSG_DONTWAIT)));
    link.ask("shutdown 1");
    say!("end: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
    say!("read: {}", show(link.recv_with(500, 0)));
    say!("nothing: {}", epoll.look(0));
}

pub(crate) fn edge_writable(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, OUT | ET, 1).unwrap();
    say!("at first: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
    say!("sent: {}, {}", show(link.send_with(10, 0)), epoll.look(0));
    for round in 0..5 {
        let sent = link.fill_up(30_000);
        say!("{round}: full: {}", epoll.look(0));
        // On the first connection ten more bytes are on their way.
        let more = if round == 0 { 10 } else { 0 };
        link.start(&format!("recv {}", sent + more));
        say!("room: {}", epoll.look(-1));
        link.finish();
        while epoll.look(0) != "nothing" {}
        say!("sent: {}", show(link.send_with(10, 0)));
        link.ask("recv 10");
        while epoll.look(0) != "nothing" {}
    }
}

pub(crate) fn edge_states(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | OUT | RDHUP | ET, 1).unwrap();
    say!("fresh: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
    arrive(&mut link, 10);
    say!("data: {}", epoll.look(-1));
    link.ask("shutdown 1");
    sys::poll_one(link.fd, libc::POLLRDHUP, -1);
    say!("end: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
    say!("read: {} {}, {}", show(link.recv_with(50, 0)), show(link.recv_with(50, 0)), epoll.look(0));
    sys::shutdown(link.fd, libc::SHUT_WR).unwrap();
    sys::poll_one(link.fd, libc::POLLHUP, -1);
    say!("both: {}", epoll.look(-1));
    say!("not again: {}", epoll.look(0));
}

pub(crate) fn oneshot(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ONESHOT, 1).unwrap();
    for round in 0..20 {
        arrive(&mut link, 10);
        say!("{round}: {}", epoll.look(-1));
        say!("not again: {}", epoll.look(0));
        arrive(&mut link, 20);
        say!("nor for more: {}", epoll.look(0));
        say!("set again: {}, {}", show(epoll.modify(link.fd, IN | ONESHOT, 2)), epoll.look(-1));
        say!("read: {}", show(link.recv_with(100, 0)));
        say!("set again: {}, {}", show(epoll.modify(link.fd, IN | ONESHOT, 1)), epoll.look(0));
    }
    epoll.modify(link.fd, OUT | ONESHOT, 3).unwrap();
    say!("writable: {} {}", epoll.look(-1), epoll.look(0));
    link.ask("reset");
    sys::poll_one(link.fd, libc::POLLERR, -1);
    say!("silent even for errors: {}", epoll.look(0));
}

pub(crate) fn oneshot_edge(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ONESHOT | ET, 1).unwrap();
    for round in 0..20 {
        link.start("send 10");
        say!("{round}: {}", epoll.look(-1));
        link.finish();
        link.await_bytes(10);
        say!("not again: {}", epoll.look(0));
        say!("set again: {}, {}", show(epoll.modify(link.fd, IN | ONESHOT | ET, 1)), epoll.look(-1));
        say!("read: {}", show(link.recv_with(100, 0)));
        say!("set again: {}, {}", show(epoll.modify(link.fd, IN | ONESHOT | ET, 1)), epoll.look(0));
    }
}

pub(crate) fn exclusive(case: &mut Case) {
    let mut link = case.link();
    let (one, two) = (Epoll::new(), Epoll::new());
    say!("add: {}", show(one.add(link.fd, IN | EXCLUSIVE, 1)));
    say!("add: {}", show(two.add(link.fd, IN | EXCLUSIVE, 2)));
    say!("modify: {}", show(one.modify(link.fd, IN, 1)));
    say!("with oneshot: {}", show(Epoll::new().add(link.fd, IN | EXCLUSIVE | ONESHOT, 1)));
    for round in 0..20 {
        arrive(&mut link, 5);
        say!("{round}: {}", [one.look(0), two.look(0)].iter().any(|seen| seen != "nothing"));
        say!("{}", show(link.recv_with(5, 0)));
    }
    say!("delete: {} {}", show(one.delete(link.fd)), show(two.delete(link.fd)));
}
