//! Thousands of connections at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use convoy_tests::kit::epoll::{Epoll, IN};
use convoy_tests::kit::net::{self, Address, Family};
use convoy_tests::kit::{Case, main as run, pattern, sys};
use convoy_tests::say;

/// How many, where the limits allow it.
const WANTED: usize = 10_000;
/// Descriptors that a process needs for other things.
const SPARE: usize = 200;

fn main() {
    run(&[("ten_thousand", ten_thousand), ("waves", waves)]);
}

/// What one connection's request looks like in a round.
fn request(number: usize, round: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    pattern::fill(number as u64, round as u64 * 32, &mut bytes);
    bytes
}

/// A server that echoes on any number of connections until all of them have ended.
fn serve(listener: i32, count: usize) -> i32 {
    sys::raise_nofile();
    let epoll = Epoll::new();
    epoll.add(listener, IN, u64::MAX).unwrap();
    let (mut accepted, mut open) = (0, 0);
    while accepted < count || open > 0 {
        for (data, _) in epoll.wait(512, -1).unwrap() {
            if data == u64::MAX {
                let fd = net::accept(listener, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).unwrap();
                epoll.add(fd, IN, fd.unsigned_abs().into()).unwrap();
                (accepted, open) = (accepted + 1, open + 1);
                continue;
            }
            let (fd, mut buffer) = (i32::try_from(data).unwrap(), [0; 4096]);
            match sys::read(fd, &mut buffer) {
                Ok(0) => {
                    sys::close(fd).unwrap();
                    open -= 1;
                }
                Ok(count) => assert_eq!(sys::write(fd, &buffer[..count]), Ok(count)),
                Err(error) => assert_eq!(error.0, libc::EAGAIN),
            }
        }
    }
    0
}

/// One request on every connection, then all the answers.
fn round(clients: &[i32], number: usize) {
    for (at, &fd) in clients.iter().enumerate() {
        assert_eq!(sys::send(fd, &request(at, number), 0), Ok(32), "connection {at}");
    }
    for (at, &fd) in clients.iter().enumerate() {
        let mut answer = [0; 32];
        assert_eq!(sys::recv(fd, &mut answer, libc::MSG_WAITALL), Ok(32), "connection {at}");
        assert_eq!(answer, request(at, number), "connection {at}");
    }
}

/// A listener on every address, so that the ports of one client address are enough for all runs.
fn listener() -> (i32, u16) {
    let fd = net::socket(Family::V4, 0);
    net::bind(fd, &Address::v4([0, 0, 0, 0], 0)).unwrap();
    // SAFETY: no memory is involved.
    sys::status(unsafe { libc::listen(fd, 4096) }).unwrap();
    (fd, net::local_address(fd).unwrap().port())
}

fn connect(port: u16, number: usize) -> i32 {
    let fd = net::socket(Family::V4, 0);
    let last = u8::try_from(1 + number % 200).unwrap();
    net::connect(fd, &Address::v4([127, 0, 7, last], port))
        .unwrap_or_else(|error| panic!("connection {number}: {error}"));
    net::no_delay(fd);
    fd
}

fn ten_thousand(_: &mut Case) {
    let count = WANTED.min(sys::raise_nofile() - SPARE);
    if count < WANTED {
        eprintln!("only {count} connections: the hard limit of descriptors is lower than {WANTED}");
    }
    let (listener, port) = listener();
    let server = sys::fork(|| serve(listener, count));
    sys::close(listener).unwrap();
    let clients: Vec<i32> = (0..count).map(|number| connect(port, number)).collect();
    say!("connected {count}");
    for number in 0..4 {
        round(&clients, number);
        say!("round {number}");
    }
    // A few of them are busy while all the others are idle.
    for number in 4..200 {
        round(&clients[count / 2..count / 2 + 10], number);
    }
    clients.iter().for_each(|&fd| assert_eq!(sys::close(fd), Ok(0)));
    say!("server: {}", sys::wait(server));
}

/// Connections come and go in waves; what is left of one must not be in the way of the next.
fn waves(_: &mut Case) {
    let (listener, port) = listener();
    let server = sys::fork(|| serve(listener, 3000));
    sys::close(listener).unwrap();
    let mut open = BTreeMap::new();
    for wave in 0..10 {
        let clients: Vec<i32> = (0..300).map(|number| connect(port, number)).collect();
        (0..3).for_each(|number| round(&clients, number));
        open.insert(wave, clients);
        if wave >= 2 {
            open.remove(&(wave - 2)).unwrap().into_iter().for_each(|fd| assert_eq!(sys::close(fd), Ok(0)));
        }
        say!("wave {wave}");
    }
    open.into_values().flatten().for_each(|fd| assert_eq!(sys::close(fd), Ok(0)));
    say!("server: {}", sys::wait(server));
}
