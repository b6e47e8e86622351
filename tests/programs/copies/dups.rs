//! dup, dup2, dup3 and fcntl.

use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::{check, number};

pub(crate) fn dup3(fd: i32) -> usize {
    // SAFETY: no memory is involved.
    sys::status(unsafe { libc::dup3(fd, 301, libc::O_CLOEXEC) }).unwrap()
}

/// The stream lives as long as one of its descriptors, and each of them is as good as the others.
pub(crate) fn copied(case: &mut Case, copy: fn(i32) -> usize) {
    let mut link = case.link();
    let first = link.fd;
    let second = number(copy(first));
    say!("another number: {}", first != second);
    for round in 0..20 {
        link.stream.fd = if round % 2 == 0 { first } else { second };
        link.start("pong 2 50");
        link.ping(2, 50);
        link.finish();
    }
    say!("in turn");
    link.start("recv 100");
    link.stream.fd = first;
    link.send_with(50, 0).unwrap();
    link.stream.fd = second;
    link.send_with(50, 0).unwrap();
    say!("one after the other: {}", link.finish());
    say!("close: {}", show(sys::close(first)));
    check(&mut link, "the copy");
    link.start("both 1000000 1000000");
    link.both(1_000_000, 1_000_000, 10_000);
    say!("in bulk: {}", link.finish());
    say!("close: {}, end: {}", show(sys::close(second)), link.ask("drain"));
    say!("used: {}", show(sys::send(second, b"x", libc::MSG_NOSIGNAL)));
    link.ask("close");
}

pub(crate) fn dup_errors(case: &mut Case) {
    let mut link = case.link();
    say!("bad target: {}", show(sys::dup2(link.fd, -1)));
    say!("beyond the limit: {}", show(sys::dup2(link.fd, i32::MAX)));
    // SAFETY: no memory is involved.
    say!("dup3 of itself: {}", show(sys::status(unsafe { libc::dup3(link.fd, link.fd, 0) })));
    // SAFETY: as above.
    say!("dup3 with wrong flags: {}", show(sys::status(unsafe { libc::dup3(link.fd, 300, 0x1234) })));
    say!("no source: {}", show(sys::dup2(999, link.fd)));
    check(&mut link, "still there");
}

pub(crate) fn dup_onto_itself(case: &mut Case) {
    let mut link = case.link();
    say!("same: {}", sys::dup2(link.fd, link.fd) == Ok(usize::try_from(link.fd).unwrap()));
    check(&mut link, "still there");
}

pub(crate) fn dup_onto_a_stream(case: &mut Case) {
    let mut links = case.links(3);
    let (out, inn) = sys::pipe();
    say!("a pipe: {}", sys::dup2(out, links[0].fd).is_ok());
    say!("the stream's end: {}", links[0].ask("drain"));
    sys::write(inn, b"hello").unwrap();
    let mut buffer = [0; 10];
    say!("the pipe there: {}", show(sys::read(links[0].fd, &mut buffer)));
    say!("another stream: {}", sys::dup2(links[1].fd, links[2].fd).is_ok());
    say!("the stream's end: {}", links[2].ask("drain"));
    let number = links[2].fd;
    check(&mut links[1], "the source");
    links[1].stream.fd = number;
    check(&mut links[1], "the copy");
    say!("closed: {}", show(sys::close(number)));
}

/// Two streams change their numbers.
pub(crate) fn dup_swap(case: &mut Case) {
    let mut links = case.links(2);
    let (one, two) = (links[0].fd, links[1].fd);
    let spare = number(sys::dup(one).unwrap());
    sys::dup2(two, one).unwrap();
    sys::dup2(spare, two).unwrap();
    sys::close(spare).unwrap();
    links[0].stream.fd = two;
    links[1].stream.fd = one;
    for link in &mut links {
        check(link, "swapped");
    }
    say!("close: {}, end: {}", show(sys::close(two)), links[0].ask("drain"));
    check(&mut links[1], "the other");
}

/// A number that Convoy might have taken for its own descriptors.
pub(crate) fn dup_high(case: &mut Case) {
    let mut link = case.link();
    let limit = number(sys::getrlimit_nofile());
    let first = link.fd;
    let mut good = true;
    for target in (limit - 300..limit).rev() {
        good &= sys::dup2(first, target) == Ok(usize::try_from(target).unwrap());
        link.stream.fd = target;
        link.start("pong 1 10");
        link.ping(1, 10);
        link.finish();
    }
    say!("all numbers: {good}");
    (limit - 300..limit).for_each(|target| assert_eq!(sys::close(target), Ok(0)));
    link.stream.fd = first;
    check(&mut link, "still there");
}

/// Numbers that a library below the program may have taken for itself, while a thread sleeps in recv and afterwards.
pub(crate) fn dup_over_a_range(case: &mut Case) {
    let mut link = case.link();
    let (first, range) = (link.fd, 3990..4100);
    let mut good = true;
    for _ in 0..20 {
        link.start("pong 3 20");
        link.ping(3, 20);
        link.finish();
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let stream = &mut link.stream;
            let asleep = scope.spawn(move || {
                // SAFETY: no memory is involved.
                tell.send(unsafe { libc::gettid() }).unwrap();
                stream.recv_with(10, libc::MSG_WAITALL)
            });
            await_sleep(told.recv().unwrap());
            for target in range.clone() {
                good &= sys::dup2(first, target) == Ok(usize::try_from(target).unwrap());
            }
            case.puppet().ask("0 send 10");
            good &= asleep.join().unwrap() == Ok(10);
        });
        range.clone().for_each(|target| good &= sys::close(target) == Ok(0));
    }
    say!("all numbers: {good}");
    check(&mut link, "still there");
}

/// Waits until a thread of this process sleeps in the kernel.
fn await_sleep(thread: i32) {
    let path = format!("/proc/self/task/{thread}/stat");
    while std::fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") S")) {
        std::thread::yield_now();
    }
}

/// A process that puts a stream in the place of its standard descriptors and back again.
pub(crate) fn dup_as_standard_output(case: &mut Case) {
    let mut link = case.link();
    let saved = number(sys::dup(1).unwrap());
    sys::dup2(link.fd, 1).unwrap();
    link.start("recv 100");
    link.stream.fd = 1;
    link.send_with(100, 0).unwrap();
    let arrived = link.finish();
    sys::dup2(saved, 1).unwrap();
    say!("arrived: {arrived}");
    say!("to the transcript again");
}

pub(crate) fn copies_share_state(case: &mut Case) {
    let mut link = case.link();
    let copy = number(sys::dup(link.fd).unwrap());
    sys::set_nonblocking(copy, true);
    say!("nonblocking: {}", show(link.get(10, sys::read)));
    sys::set_nonblocking(link.fd, false);
    link.start("send 10");
    let mut through_copy = link.stream;
    through_copy.fd = copy;
    say!("blocking: {}", show(through_copy.recv_with(10, libc::MSG_WAITALL)));
    link.finish();
    link.stream.inn.advance(10);
    sys::shutdown(copy, libc::SHUT_WR).unwrap();
    say!("shut: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("other end: {}", link.ask("drain"));
}
