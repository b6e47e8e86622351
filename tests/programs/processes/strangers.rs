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
