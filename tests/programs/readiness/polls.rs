//! poll and ppoll.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use convoy_tests::kit::{Case, Link, show, sys};
use convoy_tests::say;
use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP};

use crate::{SIGNALS, count, serve};

const ALL: i16 = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;

fn ready(link: &Link, wanted: i16, milliseconds: i32) -> String {
    sys::events(sys::poll_one(link.fd, wanted, milliseconds))
}

pub(crate) fn poll_states(case: &mut Case) {
    let mut link = case.link();
    say!("fresh: {}", ready(&link, ALL, 0));
    say!("only reading: {}", ready(&link, POLLIN, 0));
    say!("nothing wanted: {}", ready(&link, 0, 0));
    link.ask("send 10");
    say!("data: {}", ready(&link, POLLIN, -1));
    say!("all: {}", ready(&link, ALL, 0));
    say!("some read: {}, {}", show(link.recv_with(4, 0)), ready(&link, ALL, 0));
    say!("all read: {}, {}", show(link.recv_with(10, 0)), ready(&link, ALL, 0));
    let sent = link.fill_up(30_000);
    say!("full: {}", ready(&link, ALL, 0));
    link.ask(&format!("recv {sent}"));
    say!("room: {}", ready(&link, POLLOUT, -1));
    link.ask("shutdown 1");
    say!("half closed: {}", ready(&link, POLLRDHUP, -1));
    say!("all: {}", ready(&link, ALL, 0));
    say!("end: {}, {}", show(link.recv_with(10, 0)), ready(&link, ALL, 0));
    sys::shutdown(link.fd, libc::SHUT_WR).unwrap();
    say!("both: {}", ready(&link, POLLHUP, -1));
    say!("all: {}", ready(&link, ALL, 0));
    let link = case.link();
    link.ask("reset");
    say!("reset: {}", ready(&link, POLLERR, -1));
    say!("all: {}", ready(&link, ALL, 0));
}

pub(crate) fn poll_time_limits(case: &mut Case) {
    let link = case.link();
    for milliseconds in [0, 1, 30] {
        let start = Instant::now();
        let result = ready(&link, POLLIN, milliseconds);
        let enough = start.elapsed() + Duration::from_millis(1)
            >= Duration::from_millis(u64::try_from(milliseconds).unwrap());
        say!("{milliseconds}: {result}, waited long enough: {enough}");
    }
    let mut set = [libc::pollfd { fd: link.fd, events: POLLIN, revents: 99 }];
    say!("nothing: {}, revents {}", show(sys::poll(&mut set, 5)), set[0].revents);
    say!(
        "no entries: {}",
        // SAFETY: no entries.
        show(sys::status(unsafe { libc::poll(std::ptr::null_mut(), 0, 5) }))
    );
    say!(
        "bad memory: {}",
        // SAFETY: the address is the kernel's to refuse.
        show(sys::status(unsafe { libc::poll(sys::nowhere().cast(), 1, 5) }))
    );
    // SAFETY: the entry is valid, the time is not.
    let wrong = unsafe {
        libc::ppoll(set.as_mut_ptr(), 1, &libc::timespec { tv_sec: 0, tv_nsec: -1 }, std::ptr::null())
    };
    say!("wrong time: {}", show(sys::status(wrong)));
}

/// A sleeping poll wakes for each kind of event.
pub(crate) fn poll_wakes(case: &mut Case) {
    let mut link = case.link();
    for round in 0..20 {
        link.start("send 10");
        say!("{round}: {}", ready(&link, POLLIN, -1));
        link.finish();
        say!("{}", show(link.recv_with(10, libc::MSG_WAITALL)));
    }
    let sent = link.fill_up(30_000);
    link.start(&format!("recv {sent}"));
    say!("room: {}", ready(&link, POLLOUT, -1));
    link.finish();
    link.start("shutdown 1");
    say!("half closed: {}", ready(&link, POLLIN | POLLRDHUP, -1) != "none");
    link.finish();
    link.start("reset");
    say!("reset: {}", ready(&link, 0, -1));
    link.finish();
}

/// Streams beside a pipe, an event counter and a file.
pub(crate) fn poll_mixed(case: &mut Case) {
    let mut links = case.links(2);
    let (out, inn) = sys::pipe();
    // SAFETY: no memory is involved.
    let event = sys::descriptor(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    // SAFETY: a valid path.
    let file = sys::descriptor(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) });
    let look = |what: &str, fds: &[i32], milliseconds| {
        let mut set: Vec<_> = fds.iter().map(|&fd| libc::pollfd { fd, events: POLLIN, revents: 0 }).collect();
        let count = sys::poll(&mut set, milliseconds);
        let found: Vec<String> = set.iter().map(|entry| sys::events(entry.revents)).collect();
        say!("{what}: {} {}", show(count), found.join(" "));
    };
    let (one, two) = (links[0].fd, links[1].fd);
    look("nothing", &[one, out, two, event], 10);
    sys::write(inn, b"x").unwrap();
    look("the pipe", &[one, out, two, event], -1);
    links[1].ask("send 5");
    links[1].await_bytes(5);
    look("pipe and stream", &[one, out, two, event], -1);
    sys::read(out, &mut [0]).unwrap();
    look("the stream", &[one, out, two, event], -1);
    look("with a file", &[one, file, two, event], -1);
    links[1].recv_with(5, 0).unwrap();
    sys::write(event, &1_u64.to_ne_bytes()).unwrap();
    look("the counter", &[one, out, two, event], -1);
    sys::read(event, &mut [0; 8]).unwrap();
    look("nothing", &[one, out, two, event], 10);
    for round in 0..20 {
        let (ours, theirs) = if round % 2 == 0 { (one, 0) } else { (two, 1) };
        links[theirs].start("send 1");
        look("sleeping", &[one, out, two, event], -1);
        links[theirs].finish();
        assert_eq!(links[theirs].recv_with(1, 0), Ok(1), "{ours}");
        // The kernel's descriptor wakes a sleeper too.
        let thread = std::thread::spawn(move || sys::write(inn, b"y").unwrap());
        look("sleeping", &[one, out, two, event], -1);
        thread.join().unwrap();
        sys::read(out, &mut [0]).unwrap();
    }
}

pub(crate) fn poll_same_twice(case: &mut Case) {
    let link = case.link();
    link.ask("send 3");
    let entry = |events| libc::pollfd { fd: link.fd, events, revents: 0 };
    let mut set = [entry(POLLIN), entry(POLLOUT), entry(POLLIN | POLLOUT), entry(0)];
    sys::poll_one(link.fd, POLLIN, -1);
    let count = sys::poll(&mut set, -1);
    say!("{}: {}", show(count), set.map(|entry| sys::events(entry.revents)).join(" "));
}

pub(crate) fn poll_negative_and_closed(case: &mut Case) {
    let links = case.links(2);
    sys::close(links[1].fd).unwrap();
    let entry = |fd| libc::pollfd { fd, events: POLLIN, revents: 7 };
    let mut set = [entry(links[0].fd), entry(-1), entry(links[1].fd), entry(-links[0].fd), entry(123_456)];
    let count = sys::poll(&mut set, -1);
    say!("{}: {}", show(count), set.map(|entry| sys::events(entry.revents)).join(" "));
    let mut set = [entry(-1), entry(-7)];
    say!("only negative: {}, {}", show(sys::poll(&mut set, 5)), set[0].revents);
    links[1].ask("close");
}

pub(crate) fn poll_many(case: &mut Case) {
    let mut links = case.links(60);
    for round in 0..120_usize {
        let chosen = (round * 37) % 60;
        links[chosen].start("send 8");
        let mut set: Vec<_> =
            links.iter().map(|link| libc::pollfd { fd: link.fd, events: POLLIN, revents: 0 }).collect();
        let count = sys::poll(&mut set, -1);
        let found: Vec<usize> = (0..60).filter(|&at| set[at].revents != 0).collect();
        assert_eq!((count, found), (Ok(1), vec![chosen]), "round {round}");
        links[chosen].finish();
        links[chosen].await_bytes(8);
        assert_eq!(links[chosen].recv_with(100, 0), Ok(8));
    }
    say!("each found alone");
    links.iter().for_each(|link| link.start("send 8"));
    links.iter().for_each(|link| assert_eq!(link.finish(), "8"));
    links.iter_mut().for_each(|link| link.await_bytes(8));
    let mut set: Vec<_> =
        links.iter().map(|link| libc::pollfd { fd: link.fd, events: POLLIN, revents: 0 }).collect();
    say!("all: {}", show(sys::poll(&mut set, -1)));
}

pub(crate) fn poll_listener(case: &mut Case) {
    use convoy_tests::kit::net::{self, Family};
    let mut link = case.link();
    let (listener, port) = net::listen(Family::V4);
    let entry = |fd| libc::pollfd { fd, events: POLLIN, revents: 0 };
    for _ in 0..10 {
        let thread = std::thread::spawn(move || net::connected(Family::V4, port));
        let mut set = [entry(link.fd), entry(listener)];
        say!("{} {}", show(sys::poll(&mut set, -1)), set.map(|entry| sys::events(entry.revents)).join(" "));
        let client = thread.join().unwrap();
        let server = net::accept(listener, 0).unwrap();
        sys::close(client).unwrap();
        sys::close(server).unwrap();
        link.start("pong 2 20");
        link.ping(2, 20);
        link.finish();
    }
}

/// A signal that is blocked but for the time of the sleep ends the sleep, and only then.
pub(crate) fn ppoll_signals(case: &mut Case) {
    sys::on_signal(libc::SIGUSR1, count, 0);
    let mut link = case.link();
    sys::block(libc::SIGUSR1);
    let mut set = [libc::pollfd { fd: link.fd, events: POLLIN, revents: 0 }];
    for round in 0..5 {
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGUSR1) };
        say!("{round}: blocked: {}", SIGNALS.load(Ordering::SeqCst));
        say!("poll: {}", show(sys::poll(&mut set, 5)));
        say!("still: {}", SIGNALS.load(Ordering::SeqCst));
        // SAFETY: valid entries and a valid mask.
        let result = unsafe { libc::ppoll(set.as_mut_ptr(), 1, std::ptr::null(), &sys::mask(&[])) };
        say!("ppoll: {}, signals {}", show(sys::status(result)), SIGNALS.load(Ordering::SeqCst));
        link.ask("send 4");
        link.await_bytes(4);
        // SAFETY: as above.
        let result = unsafe { libc::ppoll(set.as_mut_ptr(), 1, std::ptr::null(), &sys::mask(&[])) };
        say!("data: {} {}", show(sys::status(result)), show(link.recv_with(10, 0)));
    }
}

/// Several threads poll the same stream; all of them see it.
pub(crate) fn poll_threads(case: &mut Case) {
    let mut link = case.link();
    let fd = link.fd;
    for _ in 0..10 {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(move || sys::events(sys::poll_one(fd, POLLIN, -1)))).collect();
        link.ask("send 1");
        let found: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        say!("{}: {}", found.join(" "), show(link.recv_with(1, 0)));
    }
}

pub(crate) fn poll_loop_traffic(case: &mut Case) {
    serve(case, |fds| {
        let mut set: Vec<_> = fds.iter().map(|&fd| libc::pollfd { fd, events: POLLIN, revents: 0 }).collect();
        assert_ne!(sys::poll(&mut set, -1), Ok(0));
        set.iter().filter(|entry| entry.revents != 0).map(|entry| entry.fd).collect()
    });
}
