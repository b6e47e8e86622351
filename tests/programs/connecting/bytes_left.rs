//! TCP_INQ, which gRPC sets, before there is a connection and after.

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::{Stream, chat, pair};
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

/// TCP_INQ reports with every message how much more can be read, and 1 at the end.
pub(crate) fn bytes_left(_: &mut Case) {
    for early in [true, false] {
        let (listener, port) = net::listen(Family::V4);
        let client = net::socket(Family::V4, 0);
        let set = |fd: i32| sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INQ, &1_i32).unwrap();
        if early {
            set(client);
        }
        let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
        chat(&mut one, &mut two, 20, 100);
        set(client);
        for size in [10, 100, 50_000, 1_000_000] {
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(two.send_all(size, size), (size, None)));
                // Much does not fit into any queue: only its beginning is looked at while it comes.
                let queue = size.min(50_000);
                one.await_bytes(queue);
                if size == queue {
                    say!("{size}, peek: {}", left(&mut one, 4, libc::MSG_PEEK, 100));
                    say!("{size}, some: {}", left(&mut one, 4, 0, 100));
                    say!("{size}, the rest: {}", left(&mut one, size, 0, 100));
                } else {
                    assert_eq!(one.recv_all(size, 7000), (size, None));
                }
            });
        }
        for room in [8, 16, 18, 20, 24, 40] {
            two.send_with(30, 0).unwrap();
            one.await_bytes(30);
            say!("room for {room}: {}", left(&mut one, 10, 0, room));
            assert_eq!(one.recv_all(20, 20), (20, None));
        }
        two.send_with(30, 0).unwrap();
        sys::close(two.fd).unwrap();
        sys::poll_one(one.fd, libc::POLLRDHUP, -1);
        // With bytes before it the kernel counts the end as one more; that is left out here.
        say!("the last: {}", left(&mut one, 100, 0, 100));
        say!("the end: {}", left(&mut one, 100, 0, 100));
        sys::close(one.fd).unwrap();
        sys::close(listener).unwrap();
    }
}

fn left(stream: &mut Stream, count: usize, flags: i32, room: usize) -> String {
    let mut came = Vec::new();
    let mut receive = |fd: i32, buffer: &mut [u8]| {
        let (result, control) = sys::recvmsg_control(fd, buffer, flags, room);
        came = control;
        result
    };
    let result = if flags & libc::MSG_PEEK == 0 {
        stream.get(count, receive)
    } else {
        receive(stream.fd, &mut vec![0; count])
    };
    format!("{}, {came:?}", show(result))
}
