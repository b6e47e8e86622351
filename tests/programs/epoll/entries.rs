//! Entries: added, changed, deleted, closed, and looked at with little room.

use std::time::{Duration, Instant};

use convoy_tests::kit::epoll::{ET, Epoll, IN, ONESHOT, OUT, RDHUP};
use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::arrive;

pub(crate) fn modify(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    say!("unknown: {}", show(epoll.modify(link.fd, IN, 1)));
    epoll.add(link.fd, IN, 1).unwrap();
    say!("reading: {}", epoll.look(0));
    say!("both: {}, {}", show(epoll.modify(link.fd, IN | OUT, 2)), epoll.look(-1));
    say!("none: {}, {}", show(epoll.modify(link.fd, 0, 3)), epoll.look(0));
    arrive(&mut link, 4);
    say!("none: {}", epoll.look(0));
    say!("reading: {}, {}", show(epoll.modify(link.fd, IN, 4)), epoll.look(-1));
    say!("writing: {}, {}", show(epoll.modify(link.fd, OUT, 5)), epoll.look(-1));
    for round in 0..40 {
        let wanted = if round % 2 == 0 { IN } else { OUT };
        say!("{round}: {}, {}", show(epoll.modify(link.fd, wanted, round)), epoll.look(-1));
    }
}

/// MOD looks at the state anew, also for edges.
pub(crate) fn modify_rearms_edge(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ET, 1).unwrap();
    arrive(&mut link, 10);
    for round in 0..5 {
        say!("{round}: {}", epoll.look(-1));
        say!("not again: {}", epoll.look(0));
        epoll.modify(link.fd, IN | ET, 2 + round).unwrap();
    }
    say!("read: {}, {}", show(link.recv_with(100, 0)), epoll.look(0));
    epoll.modify(link.fd, IN | OUT | ET, 9).unwrap();
    say!("writable: {} {}", epoll.look(-1), epoll.look(0));
}

pub(crate) fn delete(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    arrive(&mut link, 10);
    say!("there: {}", epoll.look(-1));
    say!("delete: {}, {}", show(epoll.delete(link.fd)), epoll.look(5));
    say!("again: {}", show(epoll.delete(link.fd)));
    say!("modify: {}", show(epoll.modify(link.fd, IN, 1)));
    say!("add: {}, {}", show(epoll.add(link.fd, IN | ET, 2)), epoll.look(-1));
    say!("delete: {}", show(epoll.delete(link.fd)));
    say!("add: {}, {}", show(epoll.add(link.fd, IN | ET, 3)), epoll.look(-1));
    // SAFETY: DEL takes no event.
    let deleted = unsafe { libc::epoll_ctl(epoll.fd, libc::EPOLL_CTL_DEL, link.fd, std::ptr::null_mut()) };
    say!("without an event: {}, {}", show(sys::status(deleted)), epoll.look(0));
    say!("the bytes: {}", show(link.recv_with(20, 0)));
}

pub(crate) fn control_errors(case: &mut Case) {
    let links = case.links(2);
    let (fd, epoll) = (links[0].fd, Epoll::new());
    epoll.add(fd, IN, 1).unwrap();
    say!("twice: {}", show(epoll.add(fd, IN, 1)));
    say!("itself: {}", show(epoll.add(epoll.fd, IN, 1)));
    say!("nothing there: {}", show(epoll.add(123_456, IN, 1)));
    say!("negative: {}", show(epoll.add(-1, IN, 1)));
    say!("unknown operation: {}", show(epoll.control(99, fd, IN, 1)));
    // SAFETY: a valid path.
    let file = sys::descriptor(unsafe { libc::open(c"/etc/passwd".as_ptr(), libc::O_CLOEXEC) });
    say!("a file: {}", show(epoll.add(file, IN, 1)));
    let event = std::ptr::null_mut();
    say!(
        "without an event: {}",
        // SAFETY: the missing event is to be refused.
        show(sys::status(unsafe { libc::epoll_ctl(epoll.fd, 1, links[1].fd, event) }))
    );
    let mut event = libc::epoll_event { events: IN, u64: 1 };
    say!(
        "no epoll: {}",
        // SAFETY: a valid event; the descriptor is no epoll.
        show(sys::status(unsafe { libc::epoll_ctl(fd, 1, links[1].fd, &raw mut event) }))
    );
    say!(
        "wait on a stream: {}",
        // SAFETY: room for one event.
        show(sys::status(unsafe { libc::epoll_wait(fd, &raw mut event, 1, 0) }))
    );
    say!(
        "no room: {}",
        // SAFETY: the count is to be refused.
        show(sys::status(unsafe { libc::epoll_wait(epoll.fd, &raw mut event, 0, 0) }))
    );
    say!(
        "negative room: {}",
        // SAFETY: as above.
        show(sys::status(unsafe { libc::epoll_wait(epoll.fd, &raw mut event, -1, 0) }))
    );
    links[0].ask("send 1");
    sys::poll_one(fd, libc::POLLIN, -1);
    // SAFETY: the address is to be refused.
    let bad = unsafe { libc::epoll_wait(epoll.fd, sys::nowhere().cast(), 1, 0) };
    say!("bad memory: {}", show(sys::status(bad)));
    say!("still there: {}", epoll.look(0));
}

/// The 64 bits that the program gave come back, whatever they are.
pub(crate) fn data_kept(case: &mut Case) {
    let mut links = case.links(4);
    let epoll = Epoll::new();
    let data = [u64::MAX, 0, 0x7fff_1234_5678_9abc, 0x8000_0000_0000_0001];
    for (link, data) in links.iter().zip(data) {
        epoll.add(link.fd, IN, data).unwrap();
    }
    for round in 0..40 {
        arrive(&mut links[round % 4], 3);
        say!("{round}: {}", epoll.look(-1));
        links[round % 4].recv_with(3, 0).unwrap();
    }
}

/// A stream that already has bytes, and one that has ended, are reported at once.
pub(crate) fn added_late(case: &mut Case) {
    for flags in [0, ET, ONESHOT] {
        let mut link = case.link();
        arrive(&mut link, 10);
        let epoll = Epoll::new();
        epoll.add(link.fd, IN | flags, 1).unwrap();
        say!("data: {}", epoll.look(-1));
        link.recv_with(10, 0).unwrap();
        link.ask("shutdown 1");
        sys::poll_one(link.fd, libc::POLLRDHUP, -1);
        let epoll = Epoll::new();
        epoll.add(link.fd, IN | RDHUP | flags, 2).unwrap();
        say!("end: {}", epoll.look(-1));
    }
}

/// A socket that enters an epoll before it is connected, as event loops do.
pub(crate) fn added_before_connect(_: &mut Case) {
    use convoy_tests::kit::net::{self, Address, Family};
    use convoy_tests::kit::stream::Stream;
    let (listener, port) = net::listen(Family::V4);
    let epoll = Epoll::new();
    for number in 0..5 {
        let client = net::socket(Family::V4, libc::SOCK_NONBLOCK);
        epoll.add(client, IN | OUT | ET, number).unwrap();
        let seen = epoll.look(0);
        say!("unconnected: {}", seen != "nothing");
        say!("connect: {}", show(net::connect(client, &Address::loopback(Family::V4, port))));
        while sys::poll_one(client, libc::POLLOUT, -1) & libc::POLLHUP != 0 {}
        say!("connected: {}", epoll.look(-1));
        let mut two = Stream::new(net::accept(listener, 0).unwrap(), number, false);
        let mut one = Stream::new(client, number, true);
        epoll.modify(client, IN | ET, number).unwrap();
        for round in 0..40 {
            assert_eq!(one.send_all(20, 20), (20, None));
            assert_eq!(two.recv_all(20, 20), (20, None));
            assert_eq!(two.send_all(20, 20), (20, None));
            let seen = epoll.look(-1);
            assert_eq!(seen, format!("{number:x}:IN"), "round {round}");
            one.await_bytes(20);
            assert_eq!(one.recv_with(50, 0), Ok(20));
        }
        say!("worked: {}", epoll.look(0));
        sys::close(two.fd).unwrap();
        say!("end: {} {}", epoll.look(-1), show(one.recv_with(1, 0)));
        sys::close(client).unwrap();
    }
}

pub(crate) fn close_without_delete(case: &mut Case) {
    let epoll = Epoll::new();
    for round in 0..10 {
        let mut link = case.link();
        epoll.add(link.fd, IN | OUT, round).unwrap();
        arrive(&mut link, 3);
        say!("{round}: {}", epoll.look(-1));
        link.recv_with(3, 0).unwrap();
        sys::close(link.fd).unwrap();
        say!("closed: {}, other end: {}", epoll.look(5), link.ask("drain"));
        say!("delete: {}", show(epoll.delete(link.fd)));
        link.ask("close");
    }
}

/// An entry lives as long as the open file does: a copy keeps it alive under the old number.
pub(crate) fn close_one_copy(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    let copy = i32::try_from(sys::dup(link.fd).unwrap()).unwrap();
    say!("copy added: {}", show(epoll.add(copy, IN, 2)));
    arrive(&mut link, 5);
    say!("both: {}", epoll.look(-1));
    say!("copy closed: {}", show(sys::close(copy)));
    say!("seen at all: {}", epoll.look(-1) != "nothing");
    link.recv_with(5, 0).unwrap();
    say!("close: {}, other end: {}", show(sys::close(link.fd)), link.ask("drain"));
    say!("nothing: {}", epoll.look(5));
}

/// A new stream on the number of an old one is a new entry.
pub(crate) fn number_reused(case: &mut Case) {
    let epoll = Epoll::new();
    for round in 0..10 {
        let mut link = case.link();
        say!("modify: {}", show(epoll.modify(link.fd, IN, 99)));
        say!("add: {}, {}", show(epoll.add(link.fd, IN, round)), epoll.look(0));
        arrive(&mut link, 5);
        say!("data: {}", epoll.look(-1));
        sys::close(link.fd).unwrap();
        link.ask("close");
    }
}

pub(crate) fn time_limits(case: &mut Case) {
    let link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    for milliseconds in [0, 1, 30] {
        let start = Instant::now();
        let seen = epoll.look(milliseconds);
        let wanted = Duration::from_millis(u64::try_from(milliseconds).unwrap());
        say!("{milliseconds}: {seen}, {}", start.elapsed() + Duration::from_millis(1) >= wanted);
    }
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let start = Instant::now();
    let time = sys::timespec(15);
    // SAFETY: room for one event, a valid time, no mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.fd,
            &raw mut event,
            1,
            &raw const time,
            std::ptr::null::<u8>(),
            8,
        )
    };
    let waited = start.elapsed() >= Duration::from_millis(14);
    say!("epoll_pwait2: {}, {waited}", show(sys::outcome(result as isize)));
    // SAFETY: room for one event, no mask.
    let result = unsafe { libc::epoll_pwait(epoll.fd, &raw mut event, 1, 10, std::ptr::null()) };
    say!("epoll_pwait: {}", show(sys::status(result)));
    link.start("send 1");
    // SAFETY: as above.
    let result = unsafe { libc::epoll_pwait(epoll.fd, &raw mut event, 1, -1, std::ptr::null()) };
    say!("data: {}", show(sys::status(result)));
    link.finish();
}

pub(crate) fn little_room(case: &mut Case) {
    let mut links = case.links(6);
    let epoll = Epoll::new();
    for (number, link) in links.iter_mut().enumerate() {
        epoll.add(link.fd, IN | ET, number as u64).unwrap();
        arrive(link, 1);
    }
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let events = epoll.wait(2, -1).unwrap();
        say!("{} at once", events.len());
        seen.extend(events);
    }
    seen.sort_unstable();
    say!("{seen:?}, {}", epoll.look(0));
}

/// With room for one event, every ready stream gets its turn, and so does a pipe.
pub(crate) fn fair_with_little_room(case: &mut Case) {
    let mut links = case.links(5);
    let epoll = Epoll::new();
    let (out, inn) = sys::pipe();
    epoll.add(out, IN, 100).unwrap();
    sys::write(inn, b"x").unwrap();
    for (number, link) in links.iter_mut().enumerate() {
        epoll.add(link.fd, IN, number as u64).unwrap();
        arrive(link, 1);
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut rounds = 0;
    while seen.len() < 6 && rounds < 1000 {
        seen.extend(epoll.wait(1, -1).unwrap().iter().map(|event| event.0));
        rounds += 1;
    }
    say!("seen: {seen:?}");
}
