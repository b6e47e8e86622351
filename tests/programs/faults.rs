//! Ends that die, stop, or never were what they seemed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use convoy_tests::kit::epoll::{Epoll, IN, RDHUP};
use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::stream::{Stop, Stream};
use convoy_tests::kit::{Case, Errno, Link, main as run, show, sys};
use convoy_tests::say;

/// How soon a survivor has to notice. The kernel needs microseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn main() {
    run(&[
        ("killed_while_sending", killed_while_sending),
        ("killed_while_receiving", killed_while_receiving),
        ("killed_while_idle", killed_while_idle),
        ("killed_both_ways", killed_both_ways),
        ("killed_after_last_byte", killed_after_last_byte),
        ("killed_with_unread", killed_with_unread),
        ("killed_seen_by_poll", killed_seen_by_poll),
        ("killed_seen_by_epoll", killed_seen_by_epoll),
        ("killed_under_pressure", killed_under_pressure),
        ("killed_at_any_moment", killed_at_any_moment),
        ("killed_among_others", killed_among_others),
        ("killed_child_with_a_copy", killed_child_with_a_copy),
        ("killed_holder_of_the_only_copy", killed_holder_of_the_only_copy),
        ("survivor_goes_on", survivor_goes_on),
        ("stopped_and_continued", stopped_and_continued),
        ("terminated", terminated),
        ("we_are_killed", we_are_killed),
        ("registry_taken_away", registry_taken_away),
    ]);
}

/// Kills the peer's process.
fn kill(link: &Link) {
    sys::kill(link.puppet().pid(), libc::SIGKILL);
}

/// Receives until the end, in pieces; true when it came soon, and as an end or a reset.
fn ends_soon(stream: &mut Stream) -> bool {
    let start = Instant::now();
    let (_, stop) = stream.recv_all(usize::MAX, 10_000);
    let how = matches!(stop, Some(Stop::End | Stop::Error(Errno(libc::ECONNRESET))));
    how && start.elapsed() < SOON
}

/// Sends until it fails; true when that was soon, and with the right error.
fn refuses_soon(stream: &mut Stream) -> bool {
    let start = Instant::now();
    loop {
        match stream.send_with(10_000, libc::MSG_NOSIGNAL) {
            Ok(_) => {}
            Err(error) => {
                let how = error == Errno(libc::EPIPE) || error == Errno(libc::ECONNRESET);
                return how && start.elapsed() < SOON;
            }
        }
    }
}

/// Everything that has been received until the kill is a correct beginning; then comes the end.
fn killed_while_sending(case: &mut Case) {
    for size in [10, 1000, 5000, 100_000] {
        let mut link = case.link();
        link.start(&format!("send 1000000000 {size}"));
        say!("{size}: {}", link.recv_all(1_000_000, 3000).0);
        kill(&link);
        say!("ends: {}", ends_soon(&mut link));
        say!("poll: {}", sys::poll_one(link.fd, libc::POLLIN | libc::POLLRDHUP, -1) & libc::POLLRDHUP != 0);
        case.replace_puppet();
    }
}

fn killed_while_receiving(case: &mut Case) {
    for piece in [10, 5000, 100_000] {
        let mut link = case.link();
        link.start("recv 1000000000 3000");
        assert_eq!(link.send_all(1_000_000, piece), (1_000_000, None));
        kill(&link);
        say!("{piece}: refused: {}", refuses_soon(&mut link));
        say!("ends: {}", ends_soon(&mut link));
        say!("send: {}", show(link.send_with(1, libc::MSG_NOSIGNAL)));
        case.replace_puppet();
    }
}

fn killed_while_idle(case: &mut Case) {
    let mut link = case.link();
    std::thread::scope(|scope| {
        let mut stream = link.stream;
        let reader = scope.spawn(move || ends_soon(&mut stream));
        std::thread::yield_now();
        kill(&link);
        say!("blocked in recv: {}", reader.join().unwrap());
    });
    say!("refused: {}", refuses_soon(&mut link));
}

fn killed_both_ways(case: &mut Case) {
    let mut link = case.link();
    link.start("both 1000000000 1000000000 5000");
    link.both(2_000_000, 2_000_000, 7000);
    kill(&link);
    let (mut sender, mut receiver) = (link.stream, link.stream);
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || refuses_soon(&mut sender));
        let receiving = scope.spawn(move || ends_soon(&mut receiver));
        say!("refused: {}", sending.join().unwrap());
        say!("ends: {}", receiving.join().unwrap());
    });
}

/// What was sent before the kill is received although nobody has read it yet.
fn killed_after_last_byte(case: &mut Case) {
    for size in [1, 100, 10_000, 60_000] {
        let mut link = case.link();
        link.ask(&format!("send {size} 500"));
        kill(&link);
        sys::poll_one(link.fd, libc::POLLRDHUP, -1);
        let (count, stop) = link.recv_all(size + 1, 700);
        say!("{size}: {count} {}", stop == Some(Stop::End));
        case.replace_puppet();
    }
}

/// The peer dies with bytes that it has not read: the kernel resets.
fn killed_with_unread(case: &mut Case) {
    let mut link = case.link();
    link.send_with(1000, 0).unwrap();
    link.ask("await 1000");
    kill(&link);
    say!("ends: {}", ends_soon(&mut link));
    say!("refused: {}", refuses_soon(&mut link));
}

fn killed_seen_by_poll(case: &mut Case) {
    for wanted in [libc::POLLIN, libc::POLLRDHUP] {
        let link = case.link();
        std::thread::scope(|scope| {
            let fd = link.fd;
            let waiter = scope.spawn(move || sys::poll_one(fd, wanted, 30_000));
            std::thread::yield_now();
            kill(&link);
            say!("seen: {}", waiter.join().unwrap() & wanted != 0);
        });
        case.replace_puppet();
    }
}

fn killed_seen_by_epoll(case: &mut Case) {
    let mut links = case.links(5);
    let epoll = Epoll::new();
    for (at, link) in links.iter().enumerate() {
        epoll.add(link.fd, IN | RDHUP, at as u64).unwrap();
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| !epoll.wait(8, 30_000).unwrap().is_empty());
        std::thread::yield_now();
        kill(&links[0]);
        say!("seen: {}", waiter.join().unwrap());
    });
    while epoll.wait(8, 30_000).unwrap().len() < 5 {}
    say!("all of them");
    for link in &mut links {
        say!("ends: {}", ends_soon(link));
    }
}

/// A writer that is blocked because the peer does not read is woken by its death.
fn killed_under_pressure(case: &mut Case) {
    let mut link = case.link();
    link.fill_up(50_000);
    std::thread::scope(|scope| {
        let mut stream = link.stream;
        let writer = scope.spawn(move || refuses_soon(&mut stream));
        std::thread::yield_now();
        kill(&link);
        say!("refused: {}", writer.join().unwrap());
    });
}

/// Many peers, each killed at another moment of its traffic, from before the connection moved on.
fn killed_at_any_moment(case: &mut Case) {
    for round in 0..40_usize {
        let link = case.cold_link_over(Family::V4);
        link.start("both 1000000000 1000000000 300");
        let bytes = round * round * 70;
        let mut mine = link.stream;
        if bytes > 0 {
            mine.both(bytes, bytes, 1 + round * 100);
        }
        kill(&link);
        assert!(ends_soon(&mut mine), "round {round}");
        assert!(refuses_soon(&mut mine), "round {round}");
        sys::close(mine.fd).unwrap();
        case.replace_puppet();
    }
    say!("40 deaths survived");
}

/// The death of one peer is nothing to the streams with another.
fn killed_among_others(case: &mut Case) {
    let mut doomed = case.link();
    let (listener, port) = net::listen(Family::V4);
    let mut one = Stream::new(net::connected(Family::V4, port), 50, true);
    let mut two = Stream::new(net::accept(listener, 0).unwrap(), 50, false);
    doomed.start("send 1000000000 777");
    let thread = std::thread::spawn(move || two.pong(3000, 64));
    one.ping(1000, 64);
    assert_eq!(doomed.recv_all(100_000, 5000), (100_000, None));
    kill(&doomed);
    one.ping(2000, 64);
    thread.join().unwrap();
    say!("the other worked");
    say!("ends: {}", ends_soon(&mut doomed));
}

/// A child with a copy of the stream is killed, perhaps in the middle of a call; the stream goes on.
fn killed_child_with_a_copy(case: &mut Case) {
    let mut link = case.link();
    for round in 0..10 {
        let (out, inn) = sys::pipe();
        let fd = link.fd;
        let pid = sys::fork(|| {
            sys::write(inn, b"x").unwrap();
            // Looks at bytes that only the parent takes.
            loop {
                sys::poll_one(fd, libc::POLLIN, -1);
                let _ = sys::recv(fd, &mut [0; 10], libc::MSG_PEEK | libc::MSG_DONTWAIT);
            }
        });
        assert_eq!(sys::read(out, &mut [0]), Ok(1));
        link.start("pong 20 10");
        link.ping(20, 10);
        link.finish();
        sys::kill(pid, libc::SIGKILL);
        link.start("pong 20 10");
        link.ping(20, 10);
        say!("{round}: {} {}", link.finish(), sys::wait(pid));
        sys::close(out).unwrap();
        sys::close(inn).unwrap();
    }
}

/// The parent has closed its copy; the child, which has the only one, is killed: the peer sees the end.
fn killed_holder_of_the_only_copy(case: &mut Case) {
    let link = case.link();
    let pid = sys::fork(|| {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    });
    sys::close(link.fd).unwrap();
    link.start("drain");
    sys::kill(pid, libc::SIGKILL);
    say!("{}, end: {}", sys::wait(pid), link.finish());
}

/// After the death of a peer, its place is taken by the next one.
fn survivor_goes_on(case: &mut Case) {
    for round in 0..8 {
        let mut link = case.link();
        link.start("pong 30 100");
        link.ping(30, 100);
        say!("{round}: {}", link.finish());
        link.start("both 500000 500000");
        link.both(500_000, 500_000, 5000);
        say!("in bulk: {}", link.finish());
        kill(&link);
        say!("ends: {}", ends_soon(&mut link));
        sys::close(link.fd).unwrap();
        case.replace_puppet();
    }
}

/// A peer that is stopped makes us wait; when it goes on, nothing is missing.
fn stopped_and_continued(case: &mut Case) {
    let mut link = case.link();
    let pid = link.puppet().pid();
    link.start("recv 30000000 20000");
    assert_eq!(link.send_all(1_000_000, 5000), (1_000_000, None));
    sys::kill(pid, libc::SIGSTOP);
    let sent = 1_000_000 + link.fill_up(40_000);
    sys::kill(pid, libc::SIGCONT);
    assert_eq!(link.send_all(30_000_000 - sent, 40_000), (30_000_000 - sent, None));
    say!("arrived: {}", link.finish());
    link.start("send 1000000");
    sys::kill(pid, libc::SIGSTOP);
    sys::kill(pid, libc::SIGCONT);
    say!("received: {}", link.recv_all(1_000_000, 5000).0);
    link.finish();
}

/// Signals end a process without any of our doing; what it has sent still arrives.
fn terminated(case: &mut Case) {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGALRM] {
        let mut link = case.link();
        link.ask("send 5000 100");
        sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &sys::timeval(30_000)).unwrap();
        sys::kill(link.puppet().pid(), signal);
        say!("{signal}: {}", show(link.recv_with(5000, libc::MSG_WAITALL)));
        say!("end: {}", show(link.recv_with(10, 0)));
        case.replace_puppet();
    }
}

/// The other way round: our side is killed in the middle, the puppet checks what it got.
fn we_are_killed(case: &mut Case) {
    for size in [10, 1000, 60_000] {
        let mut link = case.link();
        let (out, inn) = sys::pipe();
        let mut stream = link.stream;
        let pid = sys::fork(|| {
            let mut count = 0_u64;
            loop {
                stream.send_all(size, size);
                count += 1;
                if count == 200 {
                    sys::write(inn, b"x").unwrap();
                }
            }
        });
        sys::close(link.fd).unwrap();
        link.start("drain");
        assert_eq!(sys::read(out, &mut [0]), Ok(1));
        sys::kill(pid, libc::SIGKILL);
        say!("{size}: {}", sys::wait(pid));
        let answer = link.finish();
        let count: usize = answer.split(' ').next().unwrap().parse().unwrap();
        say!("a beginning of at least {}: {}", 200 * size, count >= 200 * size);
        say!("then an end: {}", answer.ends_with("then end"));
        link.stream.fd = -1;
        sys::close(out).unwrap();
        sys::close(inn).unwrap();
        link.ask("close");
    }
}

/// Somebody removes the directory in which processes find each other: streams live on, new ones are plain.
fn registry_taken_away(case: &mut Case) {
    let mut link = case.link();
    if let Ok(directory) = std::env::var("CONVOY_DIR") {
        for entry in std::fs::read_dir(&directory).unwrap().flatten() {
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
    }
    link.start("pong 30 100");
    link.ping(30, 100);
    say!("the old one: {}", link.finish());
    let mut link = case.link();
    link.start("both 300000 300000");
    link.both(300_000, 300_000, 5000);
    say!("a new one: {}", link.finish());
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(1, 0)));
}
