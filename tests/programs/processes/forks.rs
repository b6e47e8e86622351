//! fork in all its uses.

use convoy_tests::kit::net::Family;
use convoy_tests::kit::stream::{Stream, told};
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

use crate::places::own_connection;
use crate::{catch_up, check};

/// accept, fork, the child serves: inetd, PostgreSQL, sshd.
pub(crate) fn child_serves(case: &mut Case) {
    [10, 1000, 100_000].into_iter().for_each(|size| a_child_serves(case, size));
}

/// Many of them in turn: what each connection takes of the parent must come back.
pub(crate) fn many_children_serve(case: &mut Case) {
    (0..200).for_each(|_| a_child_serves(case, 10));
}

fn a_child_serves(case: &mut Case, size: usize) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        link.stream.ping(20, 10);
        assert_eq!(link.stream.recv_all(size, size), (size, None));
        assert_eq!(link.stream.send_all(size, size), (size, None));
        0
    });
    sys::close(link.fd).unwrap();
    link.ask("pong 20 10");
    say!("{size}: {}", link.ask(&format!("send {size}")));
    say!("back: {}", link.ask(&format!("recv {size}")));
    say!("child: {}", sys::wait(pid));
    say!("end: {}", link.ask("drain"));
    link.ask("close");
}

pub(crate) fn children_serve_in_turn(case: &mut Case) {
    let mut link = case.link();
    for round in 0..10 {
        let pid = sys::fork(|| {
            link.stream.ping(10, 50);
            0
        });
        link.ask("pong 10 50");
        say!("{round}: {}", sys::wait(pid));
        catch_up(&mut link, 500, 500);
        check(&mut link, "parent");
    }
}

/// Workers that wait in `accept` on an inherited listener.
pub(crate) fn prefork(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let workers: Vec<i32> = (0..4)
        .map(|_| {
            sys::fork(|| {
                loop {
                    let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
                    let mut buffer = [0; 1000];
                    while let Ok(count @ 1..) = sys::read(fd, &mut buffer) {
                        if buffer[0] == b'q' {
                            return 0;
                        }
                        assert_eq!(sys::write(fd, &buffer[..count]), Ok(count));
                    }
                    sys::close(fd).unwrap();
                }
            })
        })
        .collect();
    for round in 0..40_u8 {
        let fd = net::connected(Family::V4, port);
        for size in [1_usize, 30, 500] {
            let message = vec![round; size];
            let mut answer = vec![0; size];
            for _ in 0..10 {
                assert_eq!(sys::send(fd, &message, 0), Ok(size));
                assert_eq!(sys::recv(fd, &mut answer, libc::MSG_WAITALL), Ok(size));
                assert_eq!(message, answer);
            }
        }
        sys::close(fd).unwrap();
    }
    say!("40 served");
    for _ in &workers {
        let fd = net::connected(Family::V4, port);
        sys::write(fd, b"q").unwrap();
        assert_eq!(sys::recv(fd, &mut [0], 0), Ok(0));
        sys::close(fd).unwrap();
    }
    workers.iter().for_each(|&pid| say!("worker: {}", sys::wait(pid)));
}

/// Both ends come from one process, which has streams of its own already.
pub(crate) fn fork_before_connect(case: &mut Case) {
    let mut link = case.link();
    let (listener, port) = net::listen(Family::V4);
    let pid = sys::fork(|| {
        let mut stream = Stream::new(net::connected(Family::V4, port), 7, true);
        net::no_delay(stream.fd);
        stream.ping(40, 100);
        0
    });
    let mut stream = Stream::new(net::accept(listener, 0).unwrap(), 7, false);
    net::no_delay(stream.fd);
    stream.pong(40, 100);
    say!("end: {}", show(stream.recv_with(10, 0)));
    say!("child: {}", sys::wait(pid));
    check(&mut link, "the old one");
}

/// Parent and child use one stream in turn, in both directions.
pub(crate) fn alternate(case: &mut Case) {
    let mut link = case.link();
    let (to_child, from_parent) = sys::pipe();
    let (to_parent, from_child) = sys::pipe();
    let rounds = 30;
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        for _ in 0..rounds {
            assert_eq!(sys::read(to_child, &mut [0]), Ok(1));
            stream.out.advance(70);
            stream.inn.advance(20);
            assert_eq!(stream.send_all(50, 50), (50, None));
            assert_eq!(sys::read(to_child, &mut [0]), Ok(1));
            assert_eq!(stream.recv_all(30, 30), (30, None));
            assert_eq!(sys::write(from_child, b"x"), Ok(1));
        }
        0
    });
    for round in 0..rounds {
        link.start("recv 120");
        assert_eq!(link.send_all(70, 70), (70, None));
        assert_eq!(sys::write(from_parent, b"x"), Ok(1));
        let arrived = link.finish();
        link.start("send 20");
        // The parent reads its part before the child may read.
        let before = link.recv_all(20, 20);
        link.finish();
        link.start("send 30");
        assert_eq!(sys::write(from_parent, b"x"), Ok(1));
        assert_eq!(sys::read(to_parent, &mut [0]), Ok(1));
        link.finish();
        say!("{round}: {arrived}, {}", told(before));
        catch_up(&mut link, 50, 30);
    }
    say!("child: {}", sys::wait(pid));
    check(&mut link, "parent");
}

pub(crate) fn child_writes_parent_reads(case: &mut Case) {
    let mut link = case.link();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        assert_eq!(stream.send_all(3_000_000, 10_000), (3_000_000, None));
        0
    });
    link.start("both 3000000 3000000");
    say!("parent: {}", told(link.recv_all(3_000_000, 20_000)));
    say!("child: {}, other end: {}", sys::wait(pid), link.finish());
    catch_up(&mut link, 3_000_000, 0);
    check(&mut link, "parent");
}

pub(crate) fn child_outlives_parent(case: &mut Case) {
    let link = case.link();
    let (out, inn) = sys::pipe();
    let mut stream = link.stream;
    let pid = sys::fork(|| {
        sys::fork(|| {
            // Only goes on once the one that has forked it has gone.
            assert_eq!(sys::read(out, &mut [0]), Ok(1));
            stream.ping(50, 100);
            0
        });
        0
    });
    say!("parent: {}", sys::wait(pid));
    sys::close(link.fd).unwrap();
    link.start("pong 50 100");
    sys::write(inn, b"x").unwrap();
    say!("other end: {}", link.finish());
    say!("end: {}", link.ask("drain"));
}

/// What redis does to save its data: the child holds everything, uses nothing, and exits.
pub(crate) fn child_only_exits(case: &mut Case) {
    let mut links = case.links(5);
    for round in 0..10 {
        let (out, inn) = sys::pipe();
        let pid = sys::fork(|| {
            sys::close(inn).unwrap();
            assert_eq!(sys::read(out, &mut [0]), Ok(0));
            0
        });
        for link in &mut links {
            check(link, "while it lives");
        }
        sys::close(inn).unwrap();
        sys::close(out).unwrap();
        say!("{round}: {}", sys::wait(pid));
        for link in &mut links {
            check(link, "afterwards");
        }
    }
}

pub(crate) fn child_is_killed(case: &mut Case) {
    let mut link = case.link();
    for _ in 0..5 {
        let pid = sys::fork(|| {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        });
        check(&mut link, "while it lives");
        sys::kill(pid, libc::SIGKILL);
        say!("{}", sys::wait(pid));
        check(&mut link, "afterwards");
    }
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(10, 0)));
}

pub(crate) fn child_closes_its_copy(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        sys::close(link.fd).unwrap();
        0
    });
    say!("child: {}", sys::wait(pid));
    check(&mut link, "parent");
    link.start("drain");
    say!("close: {}, end: {}", show(sys::close(link.fd)), link.finish());
}

pub(crate) fn parent_closes_its_copy(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    let pid = sys::fork(|| {
        assert_eq!(sys::read(out, &mut [0]), Ok(1));
        link.stream.ping(20, 100);
        sys::close(link.stream.fd).unwrap();
        assert_eq!(sys::read(out, &mut [0]), Ok(1));
        0
    });
    say!("close: {}", show(sys::close(link.fd)));
    link.start("pong 20 100");
    sys::write(inn, b"x").unwrap();
    say!("other end: {}", link.finish());
    say!("end, although the child lives: {}", link.ask("drain"));
    sys::write(inn, b"x").unwrap();
    say!("child: {}", sys::wait(pid));
}

/// `shutdown` is for everybody who has the stream, unlike `close`.
pub(crate) fn child_shuts(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        sys::shutdown(link.stream.fd, libc::SHUT_WR).unwrap();
        0
    });
    say!("child: {}, other end: {}", sys::wait(pid), link.ask("drain"));
    say!("parent sends: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    link.start("send 1000");
    say!("parent receives: {}", told(link.recv_all(1000, 100)));
    link.finish();
}

/// Bytes that have arrived before the fork are read by whoever comes first, once.
pub(crate) fn fork_with_unread_bytes(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 3000 7");
    link.await_bytes(3000);
    assert_eq!(link.recv_with(500, 0), Ok(500));
    let pid = sys::fork(|| {
        assert_eq!(link.stream.recv_all(1000, 300), (1000, None));
        0
    });
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 0, 1000);
    say!("parent: {}", told(link.recv_all(1500, 400)));
    check(&mut link, "parent");
}

pub(crate) fn fork_under_pressure(case: &mut Case) {
    let mut link = case.link();
    link.start("both 6000000 6000000");
    let rounds = 12;
    let mut children = Vec::new();
    for _ in 0..rounds {
        link.both(500_000, 500_000, 30_000);
        children.push(sys::fork(|| 0));
    }
    say!("other end: {}", link.finish());
    children.iter().for_each(|&pid| say!("{}", sys::wait(pid)));
    check(&mut link, "parent");
}

/// Threads are busy with their streams at the moment of the fork; the child uses one that nobody used.
pub(crate) fn fork_among_threads(case: &mut Case) {
    let mut links = case.links(4);
    let mut spare = links.pop().unwrap();
    let puppet = case.puppet();
    let streams: Vec<Stream> = links.iter().map(|link| link.stream).collect();
    for (number, mut stream) in streams.into_iter().enumerate() {
        puppet.start(&format!("{number} both 1500000 1500000"));
        std::thread::scope(|scope| {
            scope.spawn(move || stream.both(1_500_000, 1_500_000, 3000));
            let pids: Vec<i32> = (0..5).map(|_| sys::fork(|| 0)).collect();
            pids.iter().for_each(|&pid| assert_eq!(sys::wait(pid), "exit 0"));
        });
        say!("{number}: {}", puppet.finish());
        let pid = sys::fork(|| {
            spare.stream.ping(5, 100);
            0
        });
        spare.ask("pong 5 100");
        say!("child: {}", sys::wait(pid));
        catch_up(&mut spare, 500, 500);
        check(&mut spare, "parent");
    }
}

pub(crate) fn many_forks(case: &mut Case) {
    let mut link = case.link();
    let mut children = Vec::new();
    for _ in 0..50 {
        children.push(sys::fork(|| 0));
        link.start("pong 1 10");
        link.ping(1, 10);
        link.finish();
    }
    children.iter().for_each(|&pid| assert_eq!(sys::wait(pid), "exit 0"));
    check(&mut link, "after fifty");
}

pub(crate) fn grandchildren(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        link.stream.ping(5, 10);
        let pid = sys::fork(|| {
            link.stream.ping(5, 10);
            let pid = sys::fork(|| {
                link.stream.ping(5, 10);
                0
            });
            assert_eq!(sys::wait(pid), "exit 0");
            link.stream.out.advance(50);
            link.stream.inn.advance(50);
            link.stream.ping(5, 10);
            0
        });
        assert_eq!(sys::wait(pid), "exit 0");
        0
    });
    link.ask("pong 20 10");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 200, 200);
    check(&mut link, "parent");
}

/// `daemon` forks and lets the parent end, which has nothing to say any more.
pub(crate) fn daemon(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    let pid = sys::fork(|| {
        // SAFETY: no memory is involved.
        sys::status(unsafe { libc::daemon(1, 1) }).unwrap();
        link.stream.ping(10, 100);
        sys::write(inn, b"x").unwrap();
        0
    });
    say!("parent: {}", sys::wait(pid));
    link.ask("pong 10 100");
    assert_eq!(sys::read(out, &mut [0]), Ok(1));
    catch_up(&mut link, 1000, 1000);
    check(&mut link, "the first");
}

/// A server that gives up its rights goes on with its streams, and takes new ones.
pub(crate) fn other_user(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        // SAFETY: no memory is involved; without the rights for it, it fails, and the case goes on as it is.
        let _ = unsafe { (libc::setgid(65_534), libc::setuid(65_534)) };
        link.stream.ping(20, 100);
        own_connection();
        0
    });
    link.ask("pong 20 100");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 2000, 2000);
    check(&mut link, "parent");
}
