//! Flags of single calls.

use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

pub(crate) fn peek(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 100");
    link.await_bytes(100);
    for size in [1, 50, 100, 200] {
        say!("peek {size}: {}", show(link.peek_with(size, 0)));
    }
    say!("recv 30: {}", show(link.recv_with(30, 0)));
    say!("peek: {}", show(link.peek_with(200, 0)));
    link.ask("send 10");
    link.await_bytes(80);
    say!("peek across: {}", show(link.peek_with(200, libc::MSG_DONTWAIT)));
    say!("recv: {}", show(link.recv_with(200, 0)));
    say!("peek at nothing: {}", show(link.peek_with(10, libc::MSG_DONTWAIT)));
    link.ask("shutdown 1");
    say!("peek at the end: {}", show(link.peek_with(10, 0)));
    say!("again: {}", show(link.peek_with(10, 0)));
    say!("recv at the end: {}", show(link.recv_with(10, 0)));
}

/// Peeking between every kind of read, and peeking with several parts.
pub(crate) fn peek_then_mixed(case: &mut Case) {
    let mut link = case.link();
    for round in 1..40_usize {
        let size = round * 37;
        link.start(&format!("send {size} {}", 1 + size / 3));
        link.finish();
        link.await_bytes(size);
        let fd = link.fd;
        let (mut head, mut tail) = (vec![0; 5], vec![0; size]);
        let (result, flags, _) = sys::recvmsg(fd, &mut [&mut head, &mut tail], libc::MSG_PEEK);
        let all: Vec<u8> = head.iter().chain(&tail[..size - 5]).copied().collect();
        link.stream.inn.verify(&all);
        let got = link.get(
            size,
            if round % 2 == 0 { sys::read } else { |fd, buffer: &mut [u8]| sys::recv(fd, buffer, 0) },
        );
        say!("{round}: peek {} flags {flags}, read {}", show(result), show(got));
    }
}

pub(crate) fn waitall(case: &mut Case) {
    let mut link = case.link();
    for (size, piece) in [(100, 1), (1000, 10), (100_000, 1000), (300_000, 300_000)] {
        link.start(&format!("send {size} {piece}"));
        let received = link.recv_with(size, libc::MSG_WAITALL);
        say!("{size} in pieces of {piece}: {}, sent {}", show(received), link.finish());
    }
    link.start("send 10");
    let some = link.peek_with(10, libc::MSG_WAITALL);
    say!("peek and wait for all: {}", show(some));
    link.finish();
    say!("the bytes: {}", show(link.recv_with(10, 0)));
}

pub(crate) fn waitall_cut_short(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 60");
    link.start("shutdown 1");
    say!("wait for 100: {}", show(link.recv_with(100, libc::MSG_WAITALL)));
    link.finish();
    say!("and then: {}", show(link.recv_with(100, libc::MSG_WAITALL)));
    let mut link = case.link();
    link.ask("send 60");
    sys::set_nonblocking(link.fd, true);
    link.await_bytes(60);
    say!("nonblocking: {}", show(link.recv_with(100, libc::MSG_WAITALL)));
    say!("and then: {}", show(link.recv_with(100, libc::MSG_WAITALL)));
}

pub(crate) fn dontwait(case: &mut Case) {
    let mut link = case.link();
    say!("nothing: {}", show(link.recv_with(10, libc::MSG_DONTWAIT)));
    link.ask("send 10");
    link.await_bytes(10);
    say!("half: {}", show(link.recv_with(5, libc::MSG_DONTWAIT)));
    say!("rest: {}", show(link.recv_with(50, libc::MSG_DONTWAIT)));
    say!("nothing: {}", show(link.recv_with(10, libc::MSG_DONTWAIT)));
    say!("nothing by recvmsg: {}", show(sys::recvmsg(link.fd, &mut [&mut [0; 4]], libc::MSG_DONTWAIT).0));
    let total = link.fill_up(30_000);
    link.start(&format!("recv {total}"));
    say!("all that fitted arrived: {}", link.finish() == total.to_string());
    link.ask("shutdown 1");
    sys::poll_one(link.fd, libc::POLLIN, -1);
    say!("end: {}", show(link.recv_with(10, libc::MSG_DONTWAIT)));
}

/// On TCP, MSG_TRUNC throws the bytes away without touching the buffer.
pub(crate) fn truncate(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 100");
    link.await_bytes(100);
    let mut buffer = [7_u8; 40];
    let result = sys::recv(link.fd, &mut buffer, libc::MSG_TRUNC);
    say!("thrown away: {}, buffer untouched: {}", show(result), buffer == [7; 40]);
    link.stream.inn.advance(40);
    say!("the rest: {}", show(link.recv_with(100, 0)));
    link.ask("send 10");
    link.await_bytes(10);
    // SAFETY: with MSG_TRUNC no memory is written.
    let result = sys::outcome(unsafe { libc::recv(link.fd, std::ptr::null_mut(), 10, libc::MSG_TRUNC) });
    say!("without a buffer: {}", show(result));
    link.stream.inn.advance(10);
    link.ask("send 10");
    link.await_bytes(10);
    say!("and on: {}", show(link.recv_with(100, 0)));
}

/// MSG_MORE may hold bytes back, but not for ever, and nothing is lost or turned round.
pub(crate) fn more(case: &mut Case) {
    let mut link = case.link();
    for round in 0..10_usize {
        link.start(&format!("recv {}", 310 + round));
        let results = [
            link.send_with(100, libc::MSG_MORE),
            link.send_with(200, libc::MSG_MORE),
            link.send_with(10 + round, 0),
        ];
        say!("{}: arrived {}", results.map(show).join(" "), link.finish());
    }
    link.start("recv 100");
    say!("held back, then: {}, arrived {}", show(link.send_with(100, libc::MSG_MORE)), link.finish());
    link.start("recv 50");
    say!("held back, then end: {}", show(link.send_with(50, libc::MSG_MORE)));
    say!("{} {}", show(sys::shutdown(link.fd, libc::SHUT_WR)), link.finish());
    say!("then: {}", link.ask("drain"));
}

pub(crate) fn out_of_band(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.await_bytes(10);
    say!("none there: {}", show(sys::recv(link.fd, &mut [0], libc::MSG_OOB)));
    say!("the bytes: {}", show(link.recv_with(10, 0)));
    link.start("recv 20");
    say!("urgent: {}", show(sys::send(link.fd, b"!", libc::MSG_OOB)));
    say!("ordinary: {}, arrived {}", show(link.send_with(20, 0)), link.finish());
    link.ask("send 20");
    link.await_bytes(20);
    say!("and back: {}", show(link.recv_with(20, 0)));
}
