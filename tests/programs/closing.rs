//! How streams end: half close, close, reset, unread data, and the life of descriptor numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::puppet::reset;
use convoy_tests::kit::stream::told;
use convoy_tests::kit::{Case, Link, main as run, show, sys};
use convoy_tests::say;

unsafe extern "C" {
    fn dprintf(fd: libc::c_int, format: *const libc::c_char, ...) -> libc::c_int;
}

fn main() {
    run(&[
        ("shut_writing", shut_writing),
        ("shut_writing_with_data", shut_writing_with_data),
        ("shut_by_peer", shut_by_peer),
        ("shut_reading", shut_reading),
        ("shut_both", shut_both),
        ("shut_wakes_reader", shut_wakes_reader),
        ("shut_twice", shut_twice),
        ("close_plain", close_plain),
        ("close_with_data", close_with_data),
        ("close_with_unread", close_with_unread),
        ("closed_by_peer_with_unread", closed_by_peer_with_unread),
        ("write_after_peer_closed", write_after_peer_closed),
        ("reset_by_peer", reset_by_peer),
        ("reset_by_us", reset_by_us),
        ("socket_error_option", socket_error_option),
        ("end_is_repeated", end_is_repeated),
        ("number_reused", number_reused),
        ("closed_in_other_ways", closed_in_other_ways),
        ("ranges_closed", ranges_closed),
        ("stdio_on_a_stream", stdio_on_a_stream),
        ("many_short_lives", many_short_lives),
        ("end_without_close", end_without_close),
    ]);
}

fn shut_writing(case: &mut Case) {
    let mut link = case.link();
    link.start("drain");
    say!("shutdown: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("other end: {}", link.finish());
    say!("send: {}", show(link.send_with(1, libc::MSG_NOSIGNAL)));
    link.start("send 100000 1000");
    say!("data the other way: {}, {}", told(link.recv_all(100_000, 4096)), link.finish());
    link.ask("close");
    say!("end: {}", show(link.recv_with(10, 0)));
}

fn shut_writing_with_data(case: &mut Case) {
    for size in [1, 100, 10_000, 1_000_000] {
        let mut link = case.link();
        link.start("drain");
        say!("send {size}: {}", told(link.send_all(size, size)));
        say!("shutdown: {}, other end: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)), link.finish());
        link.start(&format!("send {size}"));
        say!("back: {}, {}", told(link.recv_all(size, size)), link.finish());
        say!("close: {}, other end: {}", show(sys::close(link.fd)), link.ask("drain"));
        link.ask("close");
    }
}

fn shut_by_peer(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.ask("shutdown 1");
    say!("data: {}", told(link.recv_all(20, 20)));
    say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, -1)));
    link.start("recv 200000");
    say!("we still send: {}, arrived {}", told(link.send_all(200_000, 3000)), link.finish());
    say!("shutdown: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("other end: {}", link.ask("drain"));
    say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN | libc::POLLRDHUP, -1)));
}

/// SHUT_RD is a matter of this end only: what is there can be read, then comes the end; more may arrive.
fn shut_reading(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.await_bytes(10);
    say!("shutdown: {}", show(sys::shutdown(link.fd, libc::SHUT_RD)));
    say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN | libc::POLLRDHUP, -1)));
    say!("data: {}", show(link.recv_with(4, 0)));
    say!("rest: {}", show(link.recv_with(10, 0)));
    say!("end: {}", show(link.recv_with(10, 0)));
    link.start("recv 50");
    say!("sending goes on: {}, arrived {}", show(link.send_with(50, 0)), link.finish());
    say!("peer sends: {}", link.ask("send 10"));
    link.await_bytes(10);
    say!("it is read: {}", show(link.recv_with(20, 0)));
    say!("end: {}", show(link.recv_with(10, 0)));
}

fn shut_both(case: &mut Case) {
    let mut link = case.link();
    link.start("drain");
    say!("shutdown: {}", show(sys::shutdown(link.fd, libc::SHUT_RDWR)));
    say!("other end: {}", link.finish());
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    link.ask("close");
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("close: {}", show(sys::close(link.fd)));
}

/// `shutdown` from another thread ends a blocked `recv`.
fn shut_wakes_reader(case: &mut Case) {
    for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
        let mut link = case.link();
        let fd = link.fd;
        let stream = &mut link.stream;
        std::thread::scope(|scope| {
            scope.spawn(move || say!("blocked: {}", show(stream.recv_with(10, 0))));
            // The reader has blocked, or will find the end at once; both must come to the same.
            std::thread::yield_now();
            sys::shutdown(fd, how).unwrap();
        });
        say!("and after: {}", show(sys::recv(fd, &mut [0; 4], 0)));
    }
}

fn shut_twice(case: &mut Case) {
    let mut link = case.link();
    say!("once: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("twice: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("wrong: {}", show(sys::shutdown(link.fd, 7)));
    say!("other end: {}", link.ask("drain"));
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(10, 0)));
    say!("after both: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("other end: {}", link.ask("shutdown 2"));
}

fn close_plain(case: &mut Case) {
    let link = case.link();
    link.start("drain");
    say!("close: {}, other end: {}", show(sys::close(link.fd)), link.finish());
    say!("other end closes: {}", link.ask("close"));
}

/// Bytes that were sent arrive although the sender has closed at once.
fn close_with_data(case: &mut Case) {
    for size in [1, 100, 4096, 65_536, 400_000] {
        let mut link = case.link();
        let expected = size;
        sys::set_nonblocking(link.fd, true);
        let mut sent = 0;
        while sent < expected {
            match link.send_with(expected - sent, 0) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        say!("close: {}", show(sys::close(link.fd)));
        say!("{size}: all that was sent arrived: {}", link.ask("drain") == format!("{sent} then end"));
        link.ask("close");
    }
}

/// Closing with unread bytes resets the connection.
fn close_with_unread(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.await_bytes(10);
    say!("close: {}", show(sys::close(link.fd)));
    say!("other end polls: {}", link.ask("poll 1"));
    say!("other end: {}", link.ask("drain"));
    say!("again: {}", link.ask("drain"));
    say!("sends: {}", link.ask("send 10"));
}

fn closed_by_peer_with_unread(case: &mut Case) {
    let mut link = case.link();
    say!("send: {}", show(link.send_with(10, 0)));
    link.ask("await 10");
    say!("close: {}", link.ask("close"));
    say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, -1)));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
}

/// The first write after the peer's close is accepted; its answer is a reset.
fn write_after_peer_closed(case: &mut Case) {
    let mut link = case.link();
    link.ask("close");
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("first: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    while sys::poll_one(link.fd, libc::POLLIN, -1) & libc::POLLHUP == 0 {}
    say!("second: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("third: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("recv: {}", show(link.recv_with(10, 0)));
}

fn reset_by_peer(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.await_bytes(10);
    say!("reset: {}", link.ask("reset"));
    while sys::poll_one(link.fd, libc::POLLIN, -1) & libc::POLLHUP == 0 {}
    say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, -1)));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    let mut link = case.link();
    let total = link.fill_up(30_000);
    say!("full: {}", total > 0);
    say!("reset: {}", link.ask("reset"));
    while sys::poll_one(link.fd, libc::POLLIN, -1) & libc::POLLHUP == 0 {}
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
}

fn reset_by_us(case: &mut Case) {
    let link = case.link();
    link.start("drain");
    say!("reset: {}, other end: {}", reset(link.fd), link.finish());
    say!("other end: {}", link.ask("send 10"));
}

fn socket_error_option(case: &mut Case) {
    let mut link = case.link();
    let error = |link: &Link| show(sys::getsockopt_int(link.fd, libc::SOL_SOCKET, libc::SO_ERROR));
    say!("at first: {}", error(&link));
    link.ask("reset");
    while sys::poll_one(link.fd, libc::POLLIN, -1) & libc::POLLHUP == 0 {}
    say!("a reset: {}", error(&link) == libc::ECONNRESET.to_string());
    say!("taken: {}", error(&link));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
}

fn end_is_repeated(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 5");
    link.ask("close");
    say!("data: {}", show(link.recv_with(5, libc::MSG_WAITALL)));
    for _ in 0..3 {
        say!("recv: {}", show(link.recv_with(10, 0)));
        say!("read: {}", show(link.get(10, sys::read)));
        say!("at once: {}", show(link.recv_with(10, libc::MSG_DONTWAIT)));
        say!("recvmsg: {:?}", sys::recvmsg(link.fd, &mut [&mut [0; 4]], 0));
        say!("poll: {}", sys::events(sys::poll_one(link.fd, libc::POLLIN, 0)));
    }
}

/// Makes descriptors of every kind on the number that a stream had, and uses them.
fn number_reused(case: &mut Case) {
    for round in 0..8 {
        let link = case.link();
        sys::close(link.fd).unwrap();
        // SAFETY: a valid path.
        let open =
            || sys::descriptor(unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) });
        let (mut pair, flags) = ([0; 2], libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
        let fd = match round {
            0 => open(),
            1 => sys::pipe().0,
            // SAFETY: no memory is involved.
            2 => sys::descriptor(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC) }),
            // SAFETY: no memory is involved.
            3 => sys::descriptor(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }),
            4 => net::socket(Family::V4, 0),
            5 => {
                // SAFETY: room for two descriptors.
                sys::status(unsafe { libc::socketpair(libc::AF_UNIX, flags, 0, pair.as_mut_ptr()) }).unwrap();
                pair[0]
            }
            // SAFETY: a valid path.
            6 => sys::descriptor(unsafe {
                libc::openat(libc::AT_FDCWD, c"/dev/zero".as_ptr(), libc::O_CLOEXEC)
            }),
            // SAFETY: no memory is involved.
            _ => sys::descriptor(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) }),
        };
        sys::set_nonblocking(fd, true);
        let mut buffer = [9; 8];
        say!("{round}: same {}", fd == link.fd);
        say!("read {} {buffer:?}", show(sys::read(fd, &mut buffer)));
        say!("send {}", show(sys::send(fd, b"x", libc::MSG_NOSIGNAL)));
        say!("poll {}", sys::events(sys::poll_one(fd, libc::POLLIN, 0)));
        say!("other end: {}, {}", link.ask("drain"), link.ask("close"));
        sys::close(fd).unwrap();
    }
}

fn closed_in_other_ways(case: &mut Case) {
    let (out, _inn) = sys::pipe();
    for round in 0..4 {
        let mut link = case.link();
        let fd = link.fd;
        let result = match round {
            // SAFETY: no memory is involved.
            0 => sys::outcome(unsafe { libc::syscall(libc::SYS_close, fd) } as isize),
            1 => sys::dup2(out, fd).map(|_| 0),
            // SAFETY: no memory is involved.
            2 => sys::status(unsafe { libc::dup3(out, fd, libc::O_CLOEXEC) }).map(|_| 0),
            // SAFETY: no memory is involved.
            _ => sys::outcome(unsafe { libc::syscall(libc::SYS_close_range, fd, fd, 0) } as isize),
        };
        say!("{round}: {}", show(result));
        say!("other end: {}", link.ask("drain"));
        say!("used: {}", show(link.send_with(3, libc::MSG_NOSIGNAL)));
        if round == 1 || round == 2 {
            sys::close(fd).unwrap();
        }
    }
}

/// A program that closes everything it does not know must not end Convoy's own descriptors.
fn ranges_closed(case: &mut Case) {
    let mut link = case.link();
    let other = case.link();
    // Everything above 400 and below the limit; nothing of the program lives there.
    say!(
        "range: {}",
        show(sys::outcome(
            // SAFETY: no memory is involved.
            unsafe { libc::syscall(libc::SYS_close_range, 400, u32::MAX, 0) } as isize
        ))
    );
    for fd in 400..1100 {
        // SAFETY: no memory is involved.
        unsafe { libc::close(fd) };
    }
    link.start("pong 10 100");
    link.ping(10, 100);
    say!("still working: {}", link.finish());
    // SAFETY: no memory is involved.
    let result =
        unsafe { libc::close_range(u32::try_from(other.fd).unwrap(), u32::try_from(other.fd).unwrap(), 0) };
    say!("the other: {}, {}", show(sys::status(result)), other.ask("drain"));
    link.start("pong 10 100");
    link.ping(10, 100);
    say!("still working: {}", link.finish());
}

/// `fdopen`, `fprintf`, `fgets`, `dprintf`, `fclose` on a stream.
fn stdio_on_a_stream(case: &mut Case) {
    let mut link = case.link();
    let text = |link: &mut Link, count: usize| {
        link.ask(&format!("count {count}"));
    };
    say!(
        "dprintf: {}",
        // SAFETY: a valid format without arguments.
        show(sys::status(unsafe { dprintf(link.fd, c"hello\n".as_ptr()) }))
    );
    text(&mut link, 6);
    // SAFETY: a valid mode.
    let file = unsafe { libc::fdopen(link.fd, c"r+".as_ptr()) };
    assert!(!file.is_null());
    // SAFETY: an open file and a valid format.
    say!("fprintf: {}", unsafe { libc::fprintf(file, c"number %d\n".as_ptr(), 42) });
    // SAFETY: an open file.
    say!("fflush: {}", unsafe { libc::fflush(file) });
    text(&mut link, 10);
    link.ask("send 100");
    let mut buffer = vec![0_u8; 100];
    // SAFETY: an open file and a writable buffer.
    say!("fread: {}", unsafe { libc::fread(buffer.as_mut_ptr().cast(), 1, 100, file) });
    link.stream.inn.accept(&buffer);
    say!(
        "fclose: {}, other end: {}",
        // SAFETY: an open file, which is not used afterwards.
        unsafe { libc::fclose(file) },
        link.ask("drain")
    );
    say!("closed: {}", show(sys::close(link.fd)));
}

fn many_short_lives(case: &mut Case) {
    for round in 0..100_usize {
        let mut link = case.link();
        link.start("pong 3 50");
        link.ping(3, 50);
        link.finish();
        if round % 2 == 0 {
            sys::close(link.fd).unwrap();
            assert_eq!(link.ask("drain"), "0 then end", "round {round}");
            link.ask("close");
        } else {
            link.ask("close");
            assert_eq!(link.recv_with(10, 0), Ok(0), "round {round}");
            sys::close(link.fd).unwrap();
        }
    }
    say!("100 lives");
}

/// A process that just ends gives its bytes and its end away as the kernel does.
fn end_without_close(case: &mut Case) {
    let mut link = case.link();
    let stream = &mut link.stream;
    let pid = sys::fork(|| {
        assert_eq!(stream.send_all(50_000, 1000), (50_000, None));
        0
    });
    sys::close(link.fd).unwrap();
    say!("child: {}", sys::wait(pid));
    say!("other end: {}", link.ask("drain"));
}
