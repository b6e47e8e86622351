//! Processes that move to other places while they hold a stream: other namespaces, no descriptors.

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, Link, sys};
use convoy_tests::say;

use crate::{catch_up, check};

/// A child does `moves` and goes on with the stream; the parent, too, afterwards.
fn child_that(case: &mut Case, moves: impl FnOnce()) {
    let mut link = case.link();
    link.ask("send 300");
    link.await_bytes(300);
    let pid = sys::fork(|| {
        moves();
        assert_eq!(link.stream.recv_all(300, 100), (300, None));
        link.stream.ping(20, 100);
        own_connection();
        0
    });
    link.ask("pong 20 100");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 2000, 2300);
    check(&mut link, "parent");
}

/// A connection from the process to itself, with traffic.
pub(crate) fn own_connection() {
    let (listener, port) = net::listen(Family::V4);
    let mut one = Stream::new(net::connected(Family::V4, port), 3, true);
    let mut two = Stream::new(net::accept(listener, 0).unwrap(), 3, false);
    for _ in 0..30 {
        assert_eq!(one.send_all(10, 10), (10, None));
        assert_eq!(two.recv_all(10, 10), (10, None));
    }
    for fd in [one.fd, two.fd, listener] {
        sys::close(fd).unwrap();
    }
}

/// What the process may not do (as an ordinary user) fails, and the case goes on as it is.
fn leave(namespaces: i32) {
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::unshare(namespaces) };
}

pub(crate) fn other_mounts(case: &mut Case) {
    child_that(case, || leave(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS));
}

pub(crate) fn other_descriptors_and_files(case: &mut Case) {
    child_that(case, || leave(libc::CLONE_FILES | libc::CLONE_FS));
}

/// The stream lives on in the network that it was made in; what comes later is in the new one, which has no address yet.
pub(crate) fn other_network(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        leave(libc::CLONE_NEWNET);
        link.stream.ping(20, 100);
        0
    });
    link.ask("pong 20 100");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 2000, 2000);
    check(&mut link, "parent");
}

/// Children of the child are in the new namespace, where every process has another number.
pub(crate) fn other_process_numbers(case: &mut Case) {
    let mut link = case.link();
    let pid = sys::fork(|| {
        leave(libc::CLONE_NEWPID);
        let stream = &mut link.stream;
        let inner = sys::fork(|| {
            stream.ping(20, 100);
            own_connection();
            0
        });
        i32::from(sys::wait(inner) != "exit 0")
    });
    link.ask("pong 20 100");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 2000, 2000);
    check(&mut link, "parent");
}

/// What old daemons do at their start: every number is closed that there could be, whoever opened it.
pub(crate) fn everything_closed(case: &mut Case) {
    for way in ["close", "close_range", "closefrom"] {
        let mut link = case.link();
        let pid = sys::fork(|| {
            let kept = link.stream.fd;
            close_all_but(kept, way);
            link.stream.ping(20, 100);
            own_connection();
            close_all_but(-1, way);
            own_connection();
            0
        });
        link.ask("pong 20 100");
        say!("{way}: {}", sys::wait(pid));
        catch_up(&mut link, 2000, 2000);
        check(&mut link, "parent");
        finish(&mut link);
    }
}

fn close_all_but(kept: i32, way: &str) {
    let one_by_one = |first: i32, last: i32| {
        for fd in first..=last {
            let _ = sys::close(fd);
        }
    };
    let below = kept - 1;
    let above = kept.max(2) + 1;
    // SAFETY: no memory is involved.
    unsafe {
        match way {
            "close" => {
                one_by_one(3, below);
                one_by_one(above, 70_000);
            }
            "close_range" => {
                if below >= 3 {
                    sys::status(libc::close_range(3, below.cast_unsigned(), 0)).unwrap();
                }
                sys::status(libc::close_range(above.cast_unsigned(), u32::MAX, 0)).unwrap();
            }
            _ => {
                one_by_one(3, below);
                closefrom(above);
            }
        }
    }
}

unsafe extern "C" {
    fn closefrom(first: libc::c_int);
}

fn finish(link: &mut Link) {
    sys::close(link.fd).unwrap();
    say!("end: {}", link.ask("drain"));
}
