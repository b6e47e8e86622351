//! Processes that may do less than others: confined by seccomp(2), with another root directory, without room for files.

use std::time::Duration;

use convoy_tests::kit::epoll::{Epoll, IN};
use convoy_tests::kit::net::Family;
use convoy_tests::kit::{Case, Filter, Stream, net, show, sys};
use convoy_tests::say;

use crate::{catch_up, check};

/// What a confined child may still do: what it needs for its stream, and to end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_poll,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A child that has confined itself reads what had come before, and goes on with the stream; then so does its parent.
fn confined(case: &mut Case, confine: fn()) {
    let mut link = case.link();
    say!("{}", link.ask("send 3000"));
    link.stream.await_bytes(3000);
    let pid = sys::fork(|| {
        confine();
        assert_eq!(link.stream.recv_all(3000, 1000), (3000, None));
        link.stream.ping(20, 100);
        0
    });
    link.ask("pong 20 100");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 2000, 5000);
    check(&mut link, "parent");
}

pub(crate) fn confined_by_prctl(case: &mut Case) {
    confined(case, || Filter::allowing(ALLOWED).by_prctl());
}

pub(crate) fn confined_by_seccomp(case: &mut Case) {
    confined(case, || Filter::allowing(ALLOWED).by_seccomp());
}

/// One that never had a stream before it confined itself: its connections are the kernel's.
pub(crate) fn confined_from_the_start(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        let (listener, port) = net::listen(Family::V4);
        let fd = net::connected(Family::V4, port);
        let mut calls = ALLOWED.to_vec();
        calls.push(libc::SYS_accept4);
        Filter::allowing(&calls).by_seccomp();
        let mut one = Stream::new(fd, 3, true);
        let mut two = Stream::new(net::accept(listener, libc::SOCK_CLOEXEC).unwrap(), 3, false);
        exchange(&mut one, &mut two);
        0
    });
    say!("child: {}", sys::wait(pid));
    check(&mut link, "parent");
}

fn exchange(one: &mut Stream, two: &mut Stream) {
    for _ in 0..30 {
        assert_eq!(one.send_all(10, 10), (10, None));
        assert_eq!(two.recv_all(10, 10), (10, None));
        assert_eq!(two.send_all(10, 10), (10, None));
        assert_eq!(one.recv_all(10, 10), (10, None));
    }
}

/// A process that changes its root directory can still wake the other end, also where that waits in a new way.
pub(crate) fn new_root(_: &mut Case) {
    const ROUNDS: usize = 5;
    let (listener, port) = net::listen(Family::V4);
    let server = sys::fork(|| {
        let mut stream = Stream::new(net::accept(listener, 0).unwrap(), 1, false);
        stream.pong(20, 100);
        let epoll = Epoll::new();
        epoll.add(stream.fd, IN, 1).unwrap();
        for _ in 0..ROUNDS {
            assert_eq!(epoll.look(30_000), "1:IN");
            stream.pong(1, 100);
        }
        0
    });
    let client = sys::fork(|| {
        let mut stream = Stream::new(net::connected(Family::V4, port), 1, true);
        stream.ping(20, 100);
        let folder =
            std::ffi::CString::new(std::env::temp_dir().into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: a terminated path; without the right for it, it fails, and the case goes on as it is.
        let _ = unsafe { libc::chroot(folder.as_ptr()) };
        for _ in 0..ROUNDS {
            // So that the server is asleep, as a rule.
            std::thread::sleep(Duration::from_millis(5));
            stream.ping(1, 100);
        }
        0
    });
    say!("client: {}, server: {}", sys::wait(client), sys::wait(server));
}

/// No file may grow: neither Convoy's own files nor its lines may bring the signal for that.
pub(crate) fn no_room_for_files(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid limit.
        sys::status(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const none) }).unwrap();
        let (listener, port) = net::listen(Family::V4);
        let mut one = Stream::new(net::connected(Family::V4, port), 3, true);
        let mut two = Stream::new(net::accept(listener, 0).unwrap(), 3, false);
        exchange(&mut one, &mut two);
        0
    });
    say!("child: {}", sys::wait(pid));
    check(&mut link, "parent");
}

/// A child closes what it holds, also where an epoll has it: the stream is its parent's as before.
pub(crate) fn confined_child_closes(case: &mut Case) {
    let mut link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    let pid = sys::fork(|| {
        Filter::allowing(ALLOWED).by_seccomp();
        sys::close(link.fd).unwrap();
        0
    });
    say!("child: {}", sys::wait(pid));
    check(&mut link, "parent");
    link.ask("send 5");
    say!("event: {}, {}", epoll.look(-1), show(link.recv_with(10, 0)));
}
