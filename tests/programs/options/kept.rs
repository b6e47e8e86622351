//! What the kernel keeps and the channel need not know, and what only looks as if it had to.

use std::time::{Duration, Instant};

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::{chat, pair};
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

use crate::control::{Message, receive};

/// Name, level, number, value; those whose value the kernel changes by itself are not asked for.
const KEPT: &[(&str, i32, i32, i32)] = &[
    ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
    ("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST, 1),
    ("SO_DONTROUTE", libc::SOL_SOCKET, libc::SO_DONTROUTE, 0),
    ("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
    ("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK, 0),
    ("SO_BUSY_POLL", libc::SOL_SOCKET, libc::SO_BUSY_POLL, 30),
    ("SO_PREFER_BUSY_POLL", libc::SOL_SOCKET, 69, 1),
    ("SO_SELECT_ERR_QUEUE", libc::SOL_SOCKET, 45, 1),
    ("SO_RXQ_OVFL", libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1),
    ("SO_TXREHASH", libc::SOL_SOCKET, 74, 1),
    ("SO_BUF_LOCK", libc::SOL_SOCKET, 72, 3),
    ("SO_RCVMARK", libc::SOL_SOCKET, 75, 1),
    ("SO_RCVPRIORITY", libc::SOL_SOCKET, 82, 1),
    ("SO_SNDLOWAT", libc::SOL_SOCKET, libc::SO_SNDLOWAT, 100),
    ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 100),
    ("TCP_KEEPINTVL", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10),
    ("TCP_KEEPCNT", libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
    ("TCP_SYNCNT", libc::IPPROTO_TCP, libc::TCP_SYNCNT, 4),
    ("TCP_LINGER2", libc::IPPROTO_TCP, libc::TCP_LINGER2, 20),
    ("TCP_USER_TIMEOUT", libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 20_000),
    ("TCP_NOTSENT_LOWAT", libc::IPPROTO_TCP, 25, 16_384),
    ("TCP_THIN_LINEAR_TIMEOUTS", libc::IPPROTO_TCP, 16, 1),
    ("TCP_SAVE_SYN", libc::IPPROTO_TCP, 27, 0),
    ("TCP_DEFER_ACCEPT", libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1),
    ("IP_TOS", libc::IPPROTO_IP, libc::IP_TOS, 16),
    ("IP_TTL", libc::IPPROTO_IP, libc::IP_TTL, 33),
    ("IP_RECVERR", libc::IPPROTO_IP, libc::IP_RECVERR, 1),
    ("IP_PKTINFO", libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    ("IP_RECVTOS", libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
    ("IP_RECVTTL", libc::IPPROTO_IP, libc::IP_RECVTTL, 1),
    ("IP_RECVOPTS", libc::IPPROTO_IP, 6, 1),
    ("IP_MTU_DISCOVER", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, 2),
    ("IP_FREEBIND", libc::IPPROTO_IP, libc::IP_FREEBIND, 1),
    ("IP_MINTTL", libc::IPPROTO_IP, libc::IP_MINTTL, 0),
    ("SO_TIMESTAMP as another level's", libc::IPPROTO_IPV6, libc::SO_TIMESTAMP, 1),
];

pub(crate) fn kept_by_the_kernel(case: &mut Case) {
    let mut link = case.link();
    for &(name, level, number, value) in KEPT {
        let set = sys::setsockopt(link.fd, level, number, &value);
        say!("{name}: {} {}", show(set), show(sys::getsockopt_int(link.fd, level, number)));
        link.start("pong 2 30");
        link.ping(2, 30);
        link.finish();
    }
    link.ask("send 10");
    link.await_bytes(10);
    let Message { result, control, flags } = receive(link.fd, 10, 0);
    say!("message: {}, control data {control:?}, flags {flags}", show(result));
    link.stream.inn.advance(10);
}

pub(crate) fn owners_and_queues(case: &mut Case) {
    const SIOCSPGRP: libc::Ioctl = 0x8902;
    const SIOCGPGRP: libc::Ioctl = 0x8904;
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let mut link = case.link();
    let own = i32::try_from(std::process::id()).unwrap();
    // SAFETY: reads one int.
    let set = sys::status(unsafe { libc::ioctl(link.fd, SIOCSPGRP, &raw const own) });
    let get = sys::ioctl_int(link.fd, SIOCGPGRP).map(|pid| usize::from(pid == own as usize));
    say!("owner: {} {}", show(set), show(get));
    say!("by fcntl: {}", sys::fcntl(link.fd, libc::F_GETOWN, 0) == Ok(own as usize));
    link.start("recv 50000");
    say!("sent: {} {}", show(link.send_with(50_000, 0)), link.finish());
    for request in [libc::TIOCOUTQ, SIOCOUTQNSD] {
        say!("all gone: {}", crate::until(|| sys::ioctl_int(link.fd, request) == Ok(0)));
    }
    link.ask("send 30");
    link.await_bytes(30);
    say!("to read: {}", show(sys::ioctl_int(link.fd, libc::FIONREAD)));
    say!("at the mark: {}", show(sys::ioctl_int(link.fd, sys::SIOCATMARK)));
    say!("read: {}", show(link.recv_with(100, 0)));
    say!("at the mark: {}", show(sys::ioctl_int(link.fd, sys::SIOCATMARK)));
    say!("no such request: {}", show(sys::ioctl_int(link.fd, 0x1234)));
}

/// Flags that TCP accepts and ignores.
pub(crate) fn flags_without_meaning(case: &mut Case) {
    let mut link = case.link();
    for flags in [libc::MSG_CONFIRM, libc::MSG_DONTROUTE, libc::MSG_EOR, libc::MSG_CTRUNC, libc::MSG_NOSIGNAL]
    {
        link.start("recv 20");
        say!("send {flags:#x}: {}, arrived {}", show(link.send_with(20, flags)), link.finish());
    }
    for flags in
        [libc::MSG_CMSG_CLOEXEC, libc::MSG_CTRUNC, libc::MSG_NOSIGNAL, libc::MSG_EOR, libc::MSG_WAITFORONE]
    {
        link.ask("send 20");
        link.await_bytes(20);
        let Message { result, control, flags: out } = receive(link.fd, 20, flags);
        say!("recvmsg {flags:#x}: {}, {control:?}, {out:#x}", show(result));
        link.stream.inn.advance(20);
    }
    say!("error queue: {}", show(sys::recv(link.fd, &mut [0; 10], libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)));
    link.ask("send 20");
    say!("and on: {}", show(link.recv_with(20, libc::MSG_WAITALL)));
}

/// A peek that touches no buffer and takes nothing.
pub(crate) fn peek_and_truncate(case: &mut Case) {
    let mut link = case.link();
    for size in [10_usize, 5000, 60_000] {
        link.start(&format!("send {size}"));
        link.finish();
        link.await_bytes(size);
        let mut buffer = [7_u8; 40];
        let result = sys::recv(link.fd, &mut buffer, libc::MSG_TRUNC | libc::MSG_PEEK);
        say!("looked at: {}, buffer untouched: {}", show(result), buffer == [7; 40]);
        let flags = libc::MSG_TRUNC | libc::MSG_PEEK;
        // SAFETY: with MSG_TRUNC no memory is written.
        let result = sys::outcome(unsafe { libc::recv(link.fd, std::ptr::null_mut(), 1 << 20, flags) });
        say!("without a buffer: {}", show(result));
        say!("all there: {}", show(link.recv_with(size, libc::MSG_WAITALL)));
    }
}

fn set_linger(fd: i32, seconds: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
}

/// Without patience closing resets the connection; what has arrived before can still be read.
pub(crate) fn linger(case: &mut Case) {
    for size in [100, 10_000] {
        let mut link = case.link();
        set_linger(link.fd, 0);
        say!("send: {}", show(link.send_with(size, 0)));
        link.ask(&format!("await {size}"));
        say!("close: {}", show(sys::close(link.fd)));
        say!("polled: {}", link.ask("poll 1"));
        say!("other end: {}", link.ask(&format!("recv {size}")));
        say!("and then: {}", link.ask("recv 10"));
        say!("and sends: {}", link.ask("send 10"));
    }
    let mut link = case.link();
    set_linger(link.fd, 20);
    link.start("drain");
    let sent = link.send_all(400_000, 100_000);
    say!("sent all: {}, close: {}", sent == (400_000, None), show(sys::close(link.fd)));
    say!("other end: {}", link.finish());
}

/// A small send buffer delays and shortens, but loses nothing and does not hang.
pub(crate) fn little_send_room(case: &mut Case) {
    let mut link = case.link();
    sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &2048_i32).unwrap();
    let total = link.fill_up(30_000);
    link.start(&format!("recv {total}"));
    say!("nonblocking: all that fitted arrived: {}", link.finish() == total.to_string());
    link.start("recv 300000");
    say!("blocking: {}, arrived {}", show(link.send_with(300_000, 0)), link.finish());
    link.ask("room 2048");
    link.start("recv 300000 1000");
    say!("and a small receive buffer: {}, arrived {}", show(link.send_with(300_000, 0)), link.finish());
}

/// A program that limits its own speed.
pub(crate) fn pacing(case: &mut Case) {
    let mut link = case.link();
    let rate = 500_000_i32;
    say!("set: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &rate)));
    // Without a limit it takes a millisecond, with it about a second; but the kernel does not always begin at once.
    let held = (0..10).any(|_| {
        let start = Instant::now();
        link.start("recv 400000");
        link.send_all(400_000, 20_000);
        assert_eq!(link.finish(), "400000");
        start.elapsed() > Duration::from_millis(50)
    });
    say!("held back: {held}");
}

/// Bytes that the kernel holds back because more is to come leave before those that go by the channel.
pub(crate) fn corked_before_the_channel(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let address = Address::loopback(Family::V4, port);
    let start = Instant::now();
    for round in 0..40 {
        let (mut one, mut two) = pair(listener, net::socket(Family::V4, 0), round, &address);
        // At every point at which the connection may be about to leave the kernel.
        for _ in 0..10 {
            one.send_with(100, libc::MSG_MORE).unwrap();
            let early = two.recv_with(100, libc::MSG_DONTWAIT).unwrap_or(0);
            one.send_with(50, 0).unwrap();
            assert_eq!(two.recv_all(150 - early, 150), (150 - early, None));
            chat(&mut two, &mut one, 1, 10);
        }
        sys::close(one.fd).unwrap();
        sys::close(two.fd).unwrap();
    }
    // Held back, each of them takes 0.2 s.
    say!("all arrived, in time: {}", start.elapsed() < Duration::from_secs(5));
}

/// TCP_CORK is what was asked for last, whoever asks: the program, a copy of it, and the kernel when it gets the stream.
pub(crate) fn corked_by_whom(case: &mut Case) {
    let mut link = case.link();
    let fd = link.fd;
    let set = |on: i32| show(sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CORK, &on));
    let get = || show(sys::getsockopt_int(fd, libc::IPPROTO_TCP, libc::TCP_CORK));
    for on in [1, 1, 0, 0, 1, 0, 1] {
        say!("set {on}: {} {}", set(on), get());
    }
    link.start("both 3000 3000");
    link.both(3000, 3000, 1000);
    let corked = || sys::getsockopt_int(fd, libc::IPPROTO_TCP, libc::TCP_CORK).map_or(-1, |on| on as i32);
    say!("uncorked: {} {}", set(0), link.finish());
    let off = sys::wait(sys::fork(corked));
    say!("corked: {}", set(1));
    let on = sys::wait(sys::fork(|| {
        let seen = corked();
        let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CORK, &0_i32);
        seen
    }));
    say!("children saw {off} {on}, left {}", get());
    say!("corked again: {} {}", set(1), get());
    say!("to the kernel: {}", show(sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &2_i32)));
    say!("there: {}", get());
    say!("uncorked: {} {}", set(0), get());
    say!("{}", show(link.send_with(10, 0)));
}
