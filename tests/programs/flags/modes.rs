//! Modes of a socket: nonblocking, time limits, counts.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use convoy_tests::kit::{Case, Link, show, sys};
use convoy_tests::say;

pub(crate) fn nonblock_toggled(case: &mut Case) {
    let mut link = case.link();
    for round in 0..10 {
        sys::set_nonblocking(link.fd, true);
        say!("{round}: nothing: {}", show(link.get(10, sys::read)));
        link.ask("send 10");
        sys::poll_one(link.fd, libc::POLLIN, -1);
        link.await_bytes(10);
        say!("there: {}", show(link.get(10, sys::read)));
        sys::set_nonblocking(link.fd, false);
        link.start("send 20");
        say!("blocking: {}", show(link.recv_with(20, libc::MSG_WAITALL)));
        link.finish();
    }
    let copy = sys::dup(link.fd).unwrap();
    sys::set_nonblocking(i32::try_from(copy).unwrap(), true);
    say!("set on a copy: {}", show(link.get(10, sys::read)));
    sys::close(i32::try_from(copy).unwrap()).unwrap();
}

pub(crate) fn nonblock_by_ioctl(case: &mut Case) {
    let mut link = case.link();
    let (on, off) = (1_i32, 0_i32);
    say!(
        "on: {}",
        // SAFETY: FIONBIO reads one int.
        show(sys::status(unsafe { libc::ioctl(link.fd, libc::FIONBIO, &raw const on) }))
    );
    say!("nothing: {}", show(link.get(10, sys::read)));
    say!("flag: {}", sys::fcntl(link.fd, libc::F_GETFL, 0).unwrap() & 0o4000 != 0);
    say!(
        "off: {}",
        // SAFETY: as above.
        show(sys::status(unsafe { libc::ioctl(link.fd, libc::FIONBIO, &raw const off) }))
    );
    link.start("send 10");
    say!("blocking: {}", show(link.recv_with(10, libc::MSG_WAITALL)));
    link.finish();
}

fn limit(link: &Link, name: i32, milliseconds: i64) {
    sys::setsockopt(link.fd, libc::SOL_SOCKET, name, &sys::timeval(milliseconds)).unwrap();
}

/// How long something took, as a class that does not depend on the machine's load.
fn class(start: Instant, at_least: u64) -> &'static str {
    if start.elapsed() >= Duration::from_millis(at_least) { "not before the time" } else { "too early" }
}

pub(crate) fn receive_time_limit(case: &mut Case) {
    let mut link = case.link();
    limit(&link, libc::SO_RCVTIMEO, 60);
    let start = Instant::now();
    say!("nothing: {}, {}", show(link.recv_with(10, 0)), class(start, 55));
    let start = Instant::now();
    say!("read: {}, {}", show(link.get(10, sys::read)), class(start, 55));
    link.ask("send 6");
    link.await_bytes(6);
    let start = Instant::now();
    say!("not all: {}, {}", show(link.recv_with(10, libc::MSG_WAITALL)), class(start, 55));
    limit(&link, libc::SO_RCVTIMEO, 20_000);
    link.start("send 10");
    say!("in time: {}", show(link.recv_with(10, libc::MSG_WAITALL)));
    link.finish();
    limit(&link, libc::SO_RCVTIMEO, 0);
    link.start("send 10");
    say!("without limit: {}", show(link.recv_with(10, libc::MSG_WAITALL)));
    link.finish();
}

/// More threads than a stream has places for those who wait.
pub(crate) fn receive_time_limits_of_threads(case: &mut Case) {
    let link = case.link();
    limit(&link, libc::SO_RCVTIMEO, 50_000);
    let fd = link.fd;
    let threads: Vec<AtomicI32> = (0..7).map(|_| AtomicI32::new(0)).collect();
    std::thread::scope(|scope| {
        let receive = move |number: &AtomicI32| {
            // SAFETY: no memory is involved.
            number.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            show(sys::recv(fd, &mut [0; 10], 0))
        };
        let running: Vec<_> = threads.iter().map(|number| scope.spawn(move || receive(number))).collect();
        for number in &threads {
            while !sys::sleeps(number.load(Ordering::SeqCst)) {
                std::thread::yield_now();
            }
        }
        link.ask("send 70 10");
        let received: Vec<String> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        say!("{}", received.join(" "));
    });
}

pub(crate) fn send_time_limit(case: &mut Case) {
    let mut link = case.link();
    limit(&link, libc::SO_SNDTIMEO, 60);
    let mut total = link.fill_up(30_000);
    let start = Instant::now();
    let last = loop {
        match link.send_with(30_000, 0) {
            Ok(count) => total += count,
            Err(error) => break error,
        }
    };
    say!("full: {last}, {}", class(start, 55));
    link.start(&format!("recv {total}"));
    say!("all of it arrived: {}", link.finish() == total.to_string());
    link.start("recv 30000");
    say!("room again: {}, arrived {}", show(link.send_with(30_000, 0)), link.finish());
}

pub(crate) fn readable_count(case: &mut Case) {
    let mut link = case.link();
    let count = |link: &Link| show(sys::ioctl_int(link.fd, libc::FIONREAD));
    say!("nothing: {}", count(&link));
    link.ask("send 100 10");
    link.await_bytes(100);
    say!("all: {}", count(&link));
    say!("some read: {}", show(link.recv_with(30, 0)));
    say!("rest: {}", count(&link));
    link.ask("send 5000");
    link.await_bytes(5070);
    say!("more: {}", count(&link));
    say!("peeked: {}, {}", show(link.peek_with(60, 0)), count(&link));
    say!("read: {}", show(link.recv_with(10_000, 0)));
    say!("nothing: {}", count(&link));
    link.ask("send 3");
    link.ask("shutdown 1");
    link.await_bytes(3);
    say!("before the end: {}", count(&link));
    say!("read: {} {}", show(link.recv_with(10, 0)), show(link.recv_with(10, 0)));
    say!("at the end: {}", count(&link));
}

/// SIOCOUTQ comes to zero once everything has been received.
pub(crate) fn unsent_count(case: &mut Case) {
    let mut link = case.link();
    link.start("recv 1000");
    say!("send: {}", show(link.send_with(1000, 0)));
    link.finish();
    while sys::ioctl_int(link.fd, libc::TIOCOUTQ).unwrap() != 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    say!("all out");
    let total = link.fill_up(30_000);
    say!("some is on its way: {}", sys::ioctl_int(link.fd, libc::TIOCOUTQ).unwrap() > 0);
    link.start(&format!("recv {total}"));
    link.finish();
    while sys::ioctl_int(link.fd, libc::TIOCOUTQ).unwrap() != 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    say!("all out again");
}

/// SO_RCVLOWAT holds readiness and blocking reads back until enough has come.
pub(crate) fn low_water_mark(case: &mut Case) {
    let mut link = case.link();
    say!("set: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &10_i32)));
    link.ask("send 4");
    say!("too little: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN, 30)));
    link.ask("send 8");
    say!("enough: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN, -1)));
    say!("recv: {}", show(link.recv_with(100, 0)));
    say!("back: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &1_i32)));
    link.ask("send 4");
    say!("one is enough: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN, -1)));
    say!("recv: {}", show(link.recv_with(100, 0)));
}

pub(crate) fn errno_untouched(case: &mut Case) {
    let mut link = case.link();
    // SAFETY: the thread's own error number.
    let errno = unsafe { &mut *libc::__errno_location() };
    for round in 0..50 {
        link.start("pong 1 64");
        *errno = 77;
        let sent = link.stream.send_with(64, 0);
        let after_send = *errno;
        *errno = 78;
        let received = link.stream.recv_with(64, libc::MSG_WAITALL);
        let after_receive = *errno;
        *errno = 79;
        sys::poll_one(link.fd, libc::POLLOUT, 100);
        say!("{round}: {} {after_send}, {} {after_receive}, poll {}", show(sent), show(received), *errno);
        link.finish();
    }
}
