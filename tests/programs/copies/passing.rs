//! Descriptors in messages over Unix sockets.

use std::process::{Command, Stdio};

use convoy_tests::kit::passing::{receive_descriptor, send_descriptor, unix_pair};
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, Link, show, sys};
use convoy_tests::say;

use crate::check;

/// The receiver was there before the stream was, and is its only holder afterwards.
pub(crate) fn pass(case: &mut Case, after_traffic: bool) {
    let (ours, theirs) = unix_pair();
    let connects = case.connects();
    // The puppet, too, has to be there before.
    let _ = case.puppet();
    let pid = sys::fork(|| {
        sys::close(ours).unwrap();
        let fd = receive_descriptor(theirs);
        let mut stream = Stream::new(fd, 0, connects);
        let mut positions = [0; 16];
        assert_eq!(sys::recv(theirs, &mut positions, libc::MSG_WAITALL), Ok(16));
        stream.out.position = u64::from_ne_bytes(positions[..8].try_into().unwrap());
        stream.inn.position = u64::from_ne_bytes(positions[8..].try_into().unwrap());
        stream.ping(30, 100);
        assert_eq!(stream.send_all(200_000, 3000), (200_000, None));
        assert_eq!(stream.recv_all(200_000, 3000), (200_000, None));
        0
    });
    let mut link =
        if after_traffic { case.link() } else { case.cold_link_over(convoy_tests::kit::net::Family::V4) };
    if after_traffic {
        check(&mut link, "before");
    }
    hand_over(ours, &link);
    sys::close(link.fd).unwrap();
    link.ask("pong 30 100");
    say!("arrived: {}", link.ask("recv 200000"));
    say!("sent: {}", link.ask("send 200000"));
    say!("child: {}, end: {}", sys::wait(pid), link.ask("drain"));
}

/// Sends a stream with its positions.
fn hand_over(channel: i32, link: &Link) {
    send_descriptor(channel, link.fd);
    let positions = [link.stream.out.position.to_ne_bytes(), link.stream.inn.position.to_ne_bytes()].concat();
    assert_eq!(sys::write(channel, &positions), Ok(16));
}

/// Both holders use it afterwards, in turn.
pub(crate) fn pass_and_keep(case: &mut Case) {
    let (ours, theirs) = unix_pair();
    let mut link = case.link();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        sys::close(stream.fd).unwrap();
        for _ in 0..10 {
            stream.fd = receive_descriptor(theirs);
            stream.ping(5, 100);
            stream.out.advance(500);
            stream.inn.advance(500);
            sys::close(stream.fd).unwrap();
            sys::write(theirs, b"d").unwrap();
        }
        0
    });
    for round in 0..10 {
        send_descriptor(ours, link.fd);
        link.ask("pong 5 100");
        assert_eq!(sys::read(ours, &mut [0]), Ok(1));
        link.stream.out.advance(500);
        link.stream.inn.advance(500);
        check(&mut link, &format!("{round}: ours"));
    }
    say!("child: {}", sys::wait(pid));
    check(&mut link, "at last");
}

pub(crate) fn pass_to_itself(case: &mut Case) {
    let (ours, theirs) = unix_pair();
    let mut link = case.link();
    for round in 0..5 {
        send_descriptor(ours, link.fd);
        if round % 2 == 0 {
            // Only the message holds the stream now.
            sys::close(link.fd).unwrap();
            link.stream.fd = receive_descriptor(theirs);
        } else {
            let old = link.fd;
            link.stream.fd = receive_descriptor(theirs);
            sys::close(old).unwrap();
        }
        check(&mut link, "received");
    }
    say!("close: {}, end: {}", show(sys::close(link.fd)), link.ask("drain"));
}

pub(crate) fn pass_there_and_back(case: &mut Case) {
    let (ours, theirs) = unix_pair();
    let mut link = case.link();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        sys::close(stream.fd).unwrap();
        stream.fd = receive_descriptor(theirs);
        stream.ping(10, 100);
        send_descriptor(theirs, stream.fd);
        0
    });
    send_descriptor(ours, link.fd);
    sys::close(link.fd).unwrap();
    link.ask("pong 10 100");
    say!("child: {}", sys::wait(pid));
    link.stream.fd = receive_descriptor(ours);
    link.stream.out.advance(1000);
    link.stream.inn.advance(1000);
    check(&mut link, "back");
    link.start("both 500000 500000");
    link.both(500_000, 500_000, 7000);
    say!("in bulk: {}", link.finish());
}

pub(crate) fn pass_with_unread_bytes(case: &mut Case) {
    let (ours, theirs) = unix_pair();
    let mut link = case.link();
    link.ask("send 2000 13");
    link.await_bytes(2000);
    assert_eq!(link.recv_with(300, 0), Ok(300));
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        sys::close(stream.fd).unwrap();
        stream.fd = receive_descriptor(theirs);
        assert_eq!(stream.recv_all(1700, 100), (1700, None));
        assert_eq!(stream.recv_all(100, 100), (100, None));
        0
    });
    send_descriptor(ours, link.fd);
    sys::close(link.fd).unwrap();
    link.ask("send 100");
    say!("child: {}, end: {}", sys::wait(pid), link.ask("drain"));
}

/// A process of another image that only gets descriptors.
pub(crate) fn worker(words: &[String]) {
    let connects = words[0] == "true";
    while let Ok(1) = sys::recv(0, &mut [0], libc::MSG_PEEK) {
        let mut stream = Stream::new(receive_descriptor(0), words[1].parse().unwrap(), connects);
        let mut positions = [0; 16];
        assert_eq!(sys::recv(0, &mut positions, libc::MSG_WAITALL), Ok(16));
        stream.out.position = u64::from_ne_bytes(positions[..8].try_into().unwrap());
        stream.inn.position = u64::from_ne_bytes(positions[8..].try_into().unwrap());
        stream.ping(30, 100);
        sys::close(stream.fd).unwrap();
        sys::write(0, b"d").unwrap();
    }
}

pub(crate) fn pass_to_a_worker(case: &mut Case, preloaded: bool) {
    use std::os::fd::{FromRawFd, OwnedFd};
    let (ours, theirs) = unix_pair();
    let connects = case.connects().to_string();
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: the descriptor is ours to give away.
    let input = Stdio::from(unsafe { OwnedFd::from_raw_fd(theirs) });
    command.args(["worker", &connects, "0"]).stdin(input);
    if !preloaded {
        command.env_remove("LD_PRELOAD");
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut link = case.link();
    for round in 0..3 {
        hand_over(ours, &link);
        link.ask("pong 30 100");
        assert_eq!(sys::read(ours, &mut [0]), Ok(1));
        link.stream.out.advance(3000);
        link.stream.inn.advance(3000);
        check(&mut link, &format!("{round}: ours again"));
    }
    sys::close(ours).unwrap();
    say!("worker: {}", child.wait().unwrap());
    say!("close: {}, end: {}", show(sys::close(link.fd)), link.ask("drain"));
}

/// The puppet sends without a pause while the stream changes hands.
pub(crate) fn pass_in_flight(case: &mut Case) {
    let (ours, theirs) = unix_pair();
    let mut link = case.link();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        sys::close(stream.fd).unwrap();
        stream.fd = receive_descriptor(theirs);
        stream.inn.advance(500_000);
        assert_eq!(stream.recv_all(500_000, 3000), (500_000, None));
        assert_eq!(stream.send_all(1000, 1000), (1000, None));
        0
    });
    link.start("send 1000000 3000");
    say!("ours: {}", link.recv_all(500_000, 3000).0);
    send_descriptor(ours, link.fd);
    sys::close(link.fd).unwrap();
    say!("sent: {}, back: {}", link.finish(), link.ask("recv 1000"));
    say!("child: {}, end: {}", sys::wait(pid), link.ask("drain"));
}
