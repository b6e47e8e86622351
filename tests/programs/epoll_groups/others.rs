//! Other descriptors, other epolls, nested ones.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use convoy_tests::kit::epoll::{self, ET, Epoll, IN, OUT, RDHUP};
use convoy_tests::kit::net::Family;
use convoy_tests::kit::{Case, Filter, net, show, sys};
use convoy_tests::say;

use crate::arrive;

pub(crate) fn mixed_kinds(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    // SAFETY: no memory is involved.
    let timer = sys::descriptor(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) });
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    epoll.add(out, IN, 2).unwrap();
    epoll.add(timer, IN, 3).unwrap();
    for round in 0..20 {
        say!("{round}: {}", epoll.look(0));
        sys::write(inn, b"x").unwrap();
        say!("pipe: {}", epoll.look(-1));
        arrive(&mut link, 5);
        say!("both: {}", epoll.look(-1));
        sys::read(out, &mut [0]).unwrap();
        say!("stream: {}", epoll.look(-1));
        link.recv_with(5, 0).unwrap();
        let soon = libc::itimerspec { it_interval: sys::timespec(0), it_value: sys::timespec(2) };
        // SAFETY: a valid time; the old one is not asked for.
        sys::status(unsafe { libc::timerfd_settime(timer, 0, &raw const soon, std::ptr::null_mut()) })
            .unwrap();
        say!("timer: {}", epoll.look(-1));
        sys::read(timer, &mut [0; 8]).unwrap();
        let thread = std::thread::spawn(move || sys::write(inn, b"y").unwrap());
        say!("asleep: {}", epoll.look(-1));
        thread.join().unwrap();
        sys::read(out, &mut [0]).unwrap();
        link.start("send 5");
        say!("asleep: {}", epoll.look(-1));
        link.finish();
        link.recv_with(5, libc::MSG_WAITALL).unwrap();
    }
}

fn asleep(name: &str, wait: impl FnOnce() -> String) {
    let (worked, began) = (sys::thread_time(), Instant::now());
    let waited = wait();
    say!("{name}: {waited}, asleep: {}", sys::thread_time() - worked < began.elapsed() / 2);
}

/// Bytes that nobody asks for keep no thread awake that waits for something else.
pub(crate) fn sleep_beside_unread_bytes(case: &mut Case) {
    let mut links = case.links(2);
    let (out, _inn) = sys::pipe();
    let (strangers, streams) = (Epoll::new(), Epoll::new());
    strangers.add(out, IN, 1).unwrap();
    streams.add(links[1].fd, IN, 2).unwrap();
    links[0].ask("send 5");
    asleep("strangers", || strangers.look(100));
    links[0].ask("send 5");
    asleep("streams", || streams.look(100));
    links[0].ask("send 5");
    asleep("poll", || sys::events(sys::poll_one(links[1].fd, libc::POLLIN, 100)));
    say!("{}", show(links[0].recv_with(15, libc::MSG_WAITALL)));
}

/// A kernel, or a sandbox, that does not have epoll_pwait2.
fn without_epoll_pwait2(case: &mut Case, errno: i32) {
    Filter::refusing(libc::SYS_epoll_pwait2, errno).from_outside();
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    epoll.add(out, IN, 2).unwrap();
    for round in 0..20 {
        say!("{round}: {} {}", epoll.look(0), epoll.look(1));
        arrive(&mut link, 5);
        say!("stream: {}", epoll.look(-1));
        link.recv_with(5, 0).unwrap();
        sys::write(inn, b"x").unwrap();
        say!("pipe: {}", epoll.look(-1));
        sys::read(out, &mut [0]).unwrap();
        link.start("send 5");
        say!("asleep: {}", epoll.look(-1));
        link.finish();
        link.recv_with(5, libc::MSG_WAITALL).unwrap();
    }
}

pub(crate) fn older_kernel(case: &mut Case) {
    without_epoll_pwait2(case, libc::ENOSYS);
}

pub(crate) fn sandbox(case: &mut Case) {
    without_epoll_pwait2(case, libc::EPERM);
}

pub(crate) fn several_epolls(case: &mut Case) {
    let mut link = case.link();
    let (level, edge, writing) = (Epoll::new(), Epoll::new(), Epoll::new());
    level.add(link.fd, IN, 1).unwrap();
    edge.add(link.fd, IN | ET, 2).unwrap();
    writing.add(link.fd, OUT | ET, 3).unwrap();
    for round in 0..20 {
        arrive(&mut link, 5);
        say!("{round}: {} {}", level.look(-1), edge.look(-1));
        say!("again: {} {}", level.look(0), edge.look(0));
        link.recv_with(5, 0).unwrap();
        say!("read: {} {}", level.look(0), edge.look(0));
    }
    say!("closed: {}", show(level.close()));
    arrive(&mut link, 5);
    say!("the other: {}", edge.look(-1));
}

pub(crate) fn nested(case: &mut Case) {
    let mut links = case.links(2);
    let (inner, middle, outer) = (Epoll::new(), Epoll::new(), Epoll::new());
    inner.add(links[0].fd, IN, 1).unwrap();
    say!("middle: {}", show(middle.add(inner.fd, IN, 2)));
    say!("outer: {}", show(outer.add(middle.fd, IN, 3)));
    outer.add(links[1].fd, IN, 4).unwrap();
    say!("round about: {}", show(inner.add(outer.fd, IN, 5)));
    for round in 0..20 {
        say!("{round}: {}", outer.look(0));
        links[0].start("send 5");
        say!("asleep: {}", outer.look(-1));
        links[0].finish();
        say!("inside: {} {}", middle.look(-1), inner.look(-1));
        say!("read: {} {}", show(links[0].recv_with(5, libc::MSG_WAITALL)), outer.look(0));
        links[1].start("send 5");
        say!("asleep: {}", outer.look(-1));
        links[1].finish();
        links[1].recv_with(5, libc::MSG_WAITALL).unwrap();
    }
    links[0].ask("shutdown 1");
    say!("end: {} {} {}", outer.look(-1), middle.look(-1), inner.look(-1));
}

pub(crate) fn nested_edge(case: &mut Case) {
    let mut link = case.link();
    let (inner, outer) = (Epoll::new(), Epoll::new());
    inner.add(link.fd, IN, 1).unwrap();
    outer.add(inner.fd, IN | ET, 2).unwrap();
    for round in 0..10 {
        arrive(&mut link, 5);
        say!("{round}: {}", outer.look(-1));
        say!("inside: {}", inner.look(-1));
        link.recv_with(5, 0).unwrap();
        say!("after: {} {}", inner.look(0), outer.look(0));
    }
}

/// An epoll that is ready, and then another one, joins a second that a thread already sleeps in.
pub(crate) fn nested_under_a_sleeper(case: &mut Case) {
    let mut links = case.links(2);
    let epolls = [Epoll::new(), Epoll::new()];
    for (epoll, link) in epolls.iter().zip(&mut links) {
        epoll.add(link.fd, IN, 1).unwrap();
        arrive(link, 5);
        say!("ready: {}", epoll.look(-1));
    }
    let outer = Epoll::new();
    for (number, epoll) in (2..).zip(&epolls) {
        let thread = AtomicI32::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                // SAFETY: no memory is involved.
                thread.store(unsafe { libc::gettid() }, Ordering::SeqCst);
                outer.look(-1)
            });
            while !epoll::sleeps(thread.load(Ordering::SeqCst)) {
                std::thread::yield_now();
            }
            outer.add(epoll.fd, IN, number).unwrap();
            say!("joined: {}", waiter.join().unwrap());
        });
        outer.delete(epoll.fd).unwrap();
    }
}

pub(crate) fn epoll_in_poll(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    for round in 0..20 {
        say!("{round}: {}", sys::events(sys::poll_one(epoll.fd, libc::POLLIN, 0)));
        link.start("send 5");
        say!("asleep: {}", sys::events(sys::poll_one(epoll.fd, libc::POLLIN, -1)));
        link.finish();
        say!("{} {}", epoll.look(0), show(link.recv_with(5, libc::MSG_WAITALL)));
    }
    let mut set = [epoll.fd, link.fd].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    arrive(&mut link, 5);
    say!("both: {} {}", show(sys::poll(&mut set, -1)), set.map(|entry| sys::events(entry.revents)).join(" "));
}

pub(crate) fn epoll_in_select(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    let none = std::ptr::null_mut();
    for round in 0..20 {
        link.start("send 5");
        let mut readers = [0_u64; 16];
        readers[usize::try_from(epoll.fd).unwrap() / 64] = 1 << (epoll.fd % 64);
        // SAFETY: a set with room for 1024 descriptors, and no time limit.
        let result = unsafe {
            libc::select(epoll.fd + 1, readers.as_mut_ptr().cast(), none, none, std::ptr::null_mut())
        };
        link.finish();
        say!("{round}: {result} {} {}", epoll.look(0), show(link.recv_with(5, libc::MSG_WAITALL)));
    }
}

pub(crate) fn wake_by_event_counter(case: &mut Case) {
    let link = case.link();
    // SAFETY: no memory is involved.
    let event = sys::descriptor(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) });
    let epoll = Epoll::new();
    epoll.add(link.fd, IN | ET, 1).unwrap();
    epoll.add(event, IN | ET, 2).unwrap();
    for round in 0..100 {
        std::thread::scope(|scope| {
            scope.spawn(|| sys::write(event, &1_u64.to_ne_bytes()).unwrap());
            assert_eq!(epoll.look(-1), "2:IN", "round {round}");
        });
        sys::read(event, &mut [0; 8]).unwrap();
    }
    say!("100 times");
}

pub(crate) fn listener_and_streams(case: &mut Case) {
    let mut link = case.link();
    let (listener, port) = net::listen(Family::V4);
    let epoll = Epoll::new();
    epoll.add(listener, IN, 1).unwrap();
    epoll.add(link.fd, IN, 2).unwrap();
    for round in 0..20 {
        let client = net::connected(Family::V4, port);
        say!("{round}: {}", epoll.look(-1));
        let server = net::accept(listener, 0).unwrap();
        epoll.add(server, IN | RDHUP, 3).unwrap();
        link.start("pong 1 10");
        assert_eq!(link.send_all(10, 10), (10, None));
        say!("{}", epoll.look(-1));
        link.recv_all(10, 10);
        link.finish();
        sys::close(client).unwrap();
        say!("{}", epoll.look(-1));
        sys::close(server).unwrap();
    }
}

/// Streams that are always ready do not hide a listener.
pub(crate) fn busy_streams_and_listener(case: &mut Case) {
    let mut links = case.links(4);
    let (listener, port) = net::listen(Family::V4);
    let epoll = Epoll::new();
    for (at, link) in links.iter_mut().enumerate() {
        arrive(link, 10);
        epoll.add(link.fd, IN, at as u64).unwrap();
    }
    epoll.add(listener, IN, 100).unwrap();
    for round in 0..20 {
        let client = net::connected(Family::V4, port);
        let mut looks = 0;
        while !epoll.wait(4, -1).unwrap().iter().any(|event| event.0 == 100) {
            looks += 1;
            assert!(looks < 100_000, "the listener starves");
        }
        say!("{round}: accepted");
        sys::close(net::accept(listener, 0).unwrap()).unwrap();
        sys::close(client).unwrap();
    }
}

pub(crate) fn copies_of_the_epoll(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    let copy = i32::try_from(sys::dup(epoll.fd).unwrap()).unwrap();
    let other = Epoll::new();
    sys::dup2(copy, other.fd).unwrap();
    for round in 0..10 {
        link.start("send 5");
        say!("{round}: {}", other.look(-1));
        link.finish();
        link.await_bytes(5);
        say!("{} {}", epoll.look(-1), show(link.recv_with(5, 0)));
    }
    say!("modified through a copy: {}, {}", show(other.modify(link.fd, OUT, 2)), epoll.look(-1));
    say!("closed: {}, {}", show(sys::close(copy)), epoll.look(-1));
}

/// The child of a process with an epoll makes its own, as servers do.
pub(crate) fn fork_with_an_epoll(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    arrive(&mut link, 5);
    say!("before: {}", epoll.look(-1));
    link.recv_with(5, 0).unwrap();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        let own = Epoll::new();
        own.add(stream.fd, IN, 7).unwrap();
        say!("child: {}", own.look(-1));
        assert_eq!(stream.recv_all(10, 10), (10, None));
        say!("child read it");
        0
    });
    link.ask("send 10");
    say!("child: {}", sys::wait(pid));
    link.stream.inn.advance(10);
    for _ in 0..10 {
        link.start("send 5");
        say!("after: {}", epoll.look(-1));
        link.finish();
        link.recv_with(5, libc::MSG_WAITALL).unwrap();
    }
}
