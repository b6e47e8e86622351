//! connect and accept in all their forms.

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::stream::{chat, pair};
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

pub(crate) fn accept_forms(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    for round in 0..4 {
        let client = net::connected(Family::V4, port);
        let mut address = Address::empty();
        let mut length = if round == 2 { 4 } else { address.length() };
        let pointer = address.pointer_mut();
        // SAFETY: room for the address, or null.
        let fd = unsafe {
            match round {
                0 => libc::accept(listener, pointer, &raw mut length),
                1 => libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()),
                2 => libc::accept4(listener, pointer, &raw mut length, libc::SOCK_NONBLOCK),
                _ => libc::accept4(listener, pointer, &raw mut length, libc::SOCK_CLOEXEC),
            }
        };
        let flags = sys::fcntl(fd, libc::F_GETFL, 0).unwrap() & 0o4000;
        say!(
            "{round}: length {length}, nonblocking {}, {}",
            flags != 0,
            show(sys::fcntl(fd, libc::F_GETFD, 0))
        );
        let (mut one, mut two) = (Stream::new(client, round, true), Stream::new(fd, round, false));
        if round == 2 {
            sys::set_nonblocking(fd, false);
        }
        chat(&mut one, &mut two, 20, 10);
        if round == 0 {
            let same = address.port() == net::local_address(client).unwrap().port();
            say!("the client's address: {}, {same}", address.describe());
        }
        sys::close(client).unwrap();
        say!("end: {}", show(two.recv_with(1, 0)));
        sys::close(fd).unwrap();
    }
    // SAFETY: no memory is involved.
    let result = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), 0x1234_5678) };
    say!("wrong flags: {}", show(sys::status(result)));
}

pub(crate) fn nonblocking_connect(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    for round in 0..5 {
        let client = net::socket(Family::V4, libc::SOCK_NONBLOCK);
        say!("connect: {}", show(net::connect(client, &Address::loopback(Family::V4, port))));
        say!("poll: {}", sys::events(sys::poll_one(client, libc::POLLOUT, -1)));
        say!("error: {}", show(sys::getsockopt_int(client, libc::SOL_SOCKET, libc::SO_ERROR)));
        say!("again: {}", show(net::connect(client, &Address::loopback(Family::V4, port))));
        let server = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        let (mut one, mut two) = (Stream::new(client, round, true), Stream::new(server, round, false));
        say!("nothing yet: {}", show(one.recv_with(10, 0)));
        for _ in 0..30 {
            assert_eq!(one.send_all(64, 64), (64, None));
            assert_eq!(two.recv_all(64, 64), (64, None));
            assert_eq!(two.send_all(64, 64), (64, None));
            one.await_bytes(64);
            assert_eq!(one.recv_with(64, 0), Ok(64));
        }
        sys::close(server).unwrap();
        say!("poll: {}", sys::events(sys::poll_one(client, libc::POLLIN | libc::POLLRDHUP, -1)));
        say!("end: {}", show(one.recv_with(10, 0)));
        sys::close(client).unwrap();
    }
}

/// A port on which nobody listens.
fn dead_port() -> u16 {
    let (fd, port) = net::listen(Family::V4);
    sys::close(fd).unwrap();
    port
}

pub(crate) fn refused(_: &mut Case) {
    let client = net::socket(Family::V4, 0);
    let address = Address::loopback(Family::V4, dead_port());
    say!("connect: {}", show(net::connect(client, &address)));
    say!("read: {}", show(sys::read(client, &mut [0; 4])));
    say!("send: {}", show(sys::send(client, b"x", libc::MSG_NOSIGNAL)));
    say!("poll: {}", sys::events(sys::poll_one(client, libc::POLLIN | libc::POLLOUT, 0)));
    let (_listener, port) = net::listen(Family::V4);
    say!("once more: {}", show(net::connect(client, &Address::loopback(Family::V4, port))));
}

pub(crate) fn refused_nonblocking(_: &mut Case) {
    let client = net::socket(Family::V4, libc::SOCK_NONBLOCK);
    say!("connect: {}", show(net::connect(client, &Address::loopback(Family::V4, dead_port()))));
    say!("poll: {}", sys::events(sys::poll_one(client, libc::POLLIN | libc::POLLOUT, -1)));
    let error = sys::getsockopt_int(client, libc::SOL_SOCKET, libc::SO_ERROR).unwrap();
    say!("refused: {}", error == usize::try_from(libc::ECONNREFUSED).unwrap());
    say!("taken: {}", show(sys::getsockopt_int(client, libc::SOL_SOCKET, libc::SO_ERROR)));
    say!("read: {}", show(sys::read(client, &mut [0; 4])));
}

pub(crate) fn connect_twice(case: &mut Case) {
    let mut link = case.link();
    let (_listener, port) = net::listen(Family::V4);
    say!("connect: {}", show(net::connect(link.fd, &Address::loopback(Family::V4, port))));
    say!(
        "listen: {}",
        // SAFETY: no memory is involved.
        show(sys::status(unsafe { libc::listen(link.fd, 1) }))
    );
    say!("bind: {}", show(net::bind(link.fd, &Address::loopback(Family::V4, 0))));
    say!("accept: {}", net::accept(link.fd, 0).unwrap_err());
    link.start("pong 5 5");
    link.ping(5, 5);
    say!("still there: {}", link.finish());
}

/// A socket that is connected to itself reads what it writes.
pub(crate) fn connect_to_itself(_: &mut Case) {
    let fd = net::socket(Family::V4, 0);
    net::bind(fd, &Address::loopback(Family::V4, 0)).unwrap();
    let address = net::local_address(fd).unwrap();
    say!("connect: {}", show(net::connect(fd, &address)));
    for round in 0..30 {
        let message = [round; 40];
        let mut buffer = [0; 100];
        let sent = sys::send(fd, &message, 0);
        let received = sys::recv(fd, &mut buffer, 0);
        assert_eq!(&buffer[..40], &message);
        say!("{round}: {} {}", show(sent), show(received));
    }
    say!("shutdown: {}", show(sys::shutdown(fd, libc::SHUT_WR)));
    say!("end: {}", show(sys::recv(fd, &mut [0; 4], 0)));
}

pub(crate) fn nonblocking_accept(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    sys::set_nonblocking(listener, true);
    say!("nobody: {}", net::accept(listener, 0).unwrap_err());
    say!("poll: {}", sys::events(sys::poll_one(listener, libc::POLLIN, 0)));
    let client = net::connected(Family::V4, port);
    say!("poll: {}", sys::events(sys::poll_one(listener, libc::POLLIN, -1)));
    let server = net::accept(listener, 0).unwrap();
    say!("inherited: {}", sys::fcntl(server, libc::F_GETFL, 0).unwrap() & 0o4000 != 0);
    say!("nobody: {}", net::accept(listener, 0).unwrap_err());
    let (mut one, mut two) = (Stream::new(client, 0, true), Stream::new(server, 0, false));
    chat(&mut one, &mut two, 30, 10);
    say!("both ways");
}

pub(crate) fn listener_shut(_: &mut Case) {
    let (listener, _) = net::listen(Family::V4);
    std::thread::scope(|scope| {
        scope.spawn(|| say!("accept: {}", net::accept(listener, 0).unwrap_err()));
        std::thread::yield_now();
        sys::shutdown(listener, libc::SHUT_RDWR).unwrap();
    });
    say!("accept: {}", net::accept(listener, 0).unwrap_err());
}

/// The client sends, and perhaps a lot, before the server has accepted.
pub(crate) fn data_before_accept(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    for size in [1, 1000, 100_000] {
        let mut one = Stream::new(net::connected(Family::V4, port), 0, true);
        assert_eq!(one.send_all(size, 500), (size, None));
        let mut two = Stream::new(net::accept(listener, 0).unwrap(), 0, false);
        assert_eq!(two.recv_all(size, 7000), (size, None));
        chat(&mut one, &mut two, 30, 100);
        say!("{size}");
        sys::close(one.fd).unwrap();
        say!("end: {}", show(two.recv_with(10, 0)));
        sys::close(two.fd).unwrap();
    }
}

pub(crate) fn closed_before_accept(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let mut one = Stream::new(net::connected(Family::V4, port), 0, true);
    assert_eq!(one.send_all(100, 100), (100, None));
    sys::close(one.fd).unwrap();
    let mut two = Stream::new(net::accept(listener, 0).unwrap(), 0, false);
    say!("data: {}", show(two.recv_with(1000, libc::MSG_WAITALL)));
    say!("end: {}", show(two.recv_with(10, 0)));
}

/// One thread that talks to itself over two sockets never blocks on bytes that it has sent.
pub(crate) fn both_ends_one_thread(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::V4, 0);
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
    for size in [1, 64, 1000, 20_000] {
        chat(&mut one, &mut two, 50, size);
        say!("{size}");
    }
    for _ in 0..50 {
        assert_eq!(one.send_all(100, 10), (100, None));
    }
    say!("a queue: {}", show(two.recv_with(5000, libc::MSG_WAITALL)));
    sys::shutdown(one.fd, libc::SHUT_WR).unwrap();
    say!("end: {}", show(two.recv_with(1, 0)));
    assert_eq!(two.send_all(100, 10), (100, None));
    sys::close(two.fd).unwrap();
    say!("the rest: {} {}", show(one.recv_with(200, libc::MSG_WAITALL)), show(one.recv_with(1, 0)));
}
