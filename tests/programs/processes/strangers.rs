//! Processes that have no part in a stream themselves, and what they leave to their children.

use convoy_tests::kit::net::Family;
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, net, sys};
use convoy_tests::say;

/// One process connects and ends without a word; its child has the connection for itself then.
pub(crate) fn connected_by_a_parent(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let server = sys::fork(|| {
        let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        net::no_delay(fd);
        Stream::new(fd, 0, false).pong(100, 100);
        0
    });
    let (out, inn) = sys::pipe();
    let parent = sys::fork(|| {
        let fd = net::connected(Family::V4, port);
        net::no_delay(fd);
        sys::fork(|| {
            // Only goes on once the one that has forked it has gone.
            assert_eq!(sys::read(out, &mut [0]), Ok(1));
            Stream::new(fd, 0, true).ping(100, 100);
            0
        });
        0
    });
    say!("parent: {}", sys::wait(parent));
    sys::write(inn, b"x").unwrap();
    say!("server: {}", sys::wait(server));
}

/// Ever new processes talk to this one and end; what was opened to wake each of them is not kept.
pub(crate) fn short_lived_peers(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let before = descriptors();
    for _ in 0..100 {
        let peer = sys::fork(|| {
            let fd = net::connected(Family::V4, port);
            net::no_delay(fd);
            Stream::new(fd, 0, true).pong(60, 10);
            0
        });
        let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        net::no_delay(fd);
        let mut stream = Stream::new(fd, 0, false);
        // Enough for the connection to leave the kernel, and for the other end to sleep there.
        stream.ping(50, 10);
        for _ in 0..10 {
            await_asleep(peer);
            stream.ping(1, 10);
        }
        assert_eq!(sys::wait(peer), "exit 0");
        sys::close(fd).unwrap();
    }
    let more = descriptors() - before;
    assert!(more < 60, "{more} descriptors more than before");
}

/// All of them: in the listing of the process itself Convoy leaves out its own.
fn descriptors() -> i64 {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count() as i64
}

/// Until a process of one thread sleeps in the kernel.
fn await_asleep(pid: i32) {
    let sleeps = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S ");
    while !sleeps() {
        std::thread::yield_now();
    }
}
