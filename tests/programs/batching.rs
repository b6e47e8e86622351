//! Streams whose messages the library may gather: nothing is late for ever, nothing is lost, nothing changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};

use convoy_tests::kit::stream::told;
use convoy_tests::kit::{Case, main as run, show, sys};
use convoy_tests::say;

fn main() {
    run(&[
        ("many_small", many_small),
        ("lone_message", lone_message),
        ("ping_pong", ping_pong),
        ("ping_pong_nonblocking", ping_pong_nonblocking),
        ("small_then_large", small_then_large),
        ("many_streams", many_streams),
        ("close_behind", close_behind),
        ("half_close_behind", half_close_behind),
        ("killed_behind", killed_behind),
        ("fork_behind", fork_behind),
    ]);
}

/// Many small messages on one stream, one after the other.
fn many_small(case: &mut Case) {
    let mut link = case.link();
    let total = 20_000 * 16;
    link.start(&format!("recv {total} 16"));
    say!("sent {}", told(link.send_all(total, 16)));
    say!("arrived {}", link.finish());
}

/// One message, and then the sender computes without a call.
fn lone_message(case: &mut Case) {
    let mut link = case.link();
    let answers = link.puppet().answers();
    for round in 0..20 {
        link.start("recv 10");
        assert_eq!(link.send_with(10, 0), Ok(10));
        let arrived = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut answer = [0; 3];
                assert_eq!(sys::read(answers, &mut answer), Ok(3));
                assert_eq!(&answer, b"10\n");
                arrived.store(true, Ordering::SeqCst);
            });
            while !arrived.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        say!("message {round} arrived");
    }
}

fn ping_pong(case: &mut Case) {
    let mut link = case.link();
    for size in [1, 64, 5000] {
        link.start(&format!("pong 100 {size}"));
        link.ping(100, size);
        say!("{size}: {}", link.finish());
    }
}

fn ping_pong_nonblocking(case: &mut Case) {
    let mut link = case.link();
    sys::set_nonblocking(link.fd, true);
    link.start("both 30000 30000 100");
    link.both(30_000, 30_000, 100);
    say!("{}", link.finish());
}

/// Large payloads behind small ones keep their place.
fn small_then_large(case: &mut Case) {
    let mut link = case.link();
    let sizes = [1, 50_000, 3, 4096, 4097, 16, 1_000_000, 7];
    link.start(&format!("recv {}", sizes.iter().sum::<usize>()));
    for size in sizes {
        say!("sent {}", told(link.send_all(size, size)));
    }
    say!("arrived {}", link.finish());
}

/// A message on each of many streams, then the answers; again and again.
fn many_streams(case: &mut Case) {
    let mut links = case.links(40);
    for round in 0..20 {
        for link in &mut links {
            assert_eq!(link.send_with(30, 0), Ok(30));
        }
        for link in &links {
            link.start("recv 30");
            link.start("send 20");
        }
        for link in &mut links {
            assert_eq!(link.finish(), "30");
            assert_eq!(link.finish(), "20");
            assert_eq!(link.recv_all(20, 20), (20, None));
        }
        say!("round {round}");
    }
}

fn close_behind(case: &mut Case) {
    for round in 0..5 {
        let mut link = case.link();
        assert_eq!(link.send_all(100, 10), (100, None));
        say!("{round}: close {}", show(sys::close(link.fd)));
        say!("arrived {}", link.ask("drain"));
    }
}

fn half_close_behind(case: &mut Case) {
    let mut link = case.link();
    assert_eq!(link.send_all(100, 10), (100, None));
    say!("shutdown {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("arrived {}", link.ask("drain"));
    link.start("send 50");
    say!("answer {}", told(link.recv_all(50, 50)));
    say!("sent {}", link.finish());
}

/// The sender is killed right after its call.
fn killed_behind(case: &mut Case) {
    for round in 0..5 {
        let mut link = case.link();
        link.start("send 1000 10");
        assert_eq!(link.finish(), "1000");
        sys::kill(link.puppet().pid(), libc::SIGKILL);
        say!("{round}: arrived {}", told(link.recv_all(1000, 77)));
        say!("then {}", show(link.recv_with(1, 0)));
        sys::close(link.fd).unwrap();
        drop(link);
        case.replace_puppet();
    }
}

/// A child goes on where its parent stopped.
fn fork_behind(case: &mut Case) {
    for round in 0..5 {
        let mut link = case.link();
        assert_eq!(link.send_all(100, 10), (100, None));
        let mut stream = link.stream;
        let child = sys::fork(|| {
            assert_eq!(stream.send_all(100, 10), (100, None));
            0
        });
        say!("{round}: child {}", sys::wait(child));
        say!("arrived {}", link.ask("recv 200 200"));
        link.stream.out.advance(100);
        assert_eq!(link.send_all(50, 50), (50, None));
        say!("arrived {}", link.ask("recv 50"));
        sys::close(link.fd).unwrap();
    }
}
