//! Options from the time before a connection: set before connect(2), or inherited from the listening socket.

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::{Stream, chat, pair};
use convoy_tests::kit::{Case, net, show, sys};
use convoy_tests::say;

use crate::control::receive;
use crate::{await_count, until};

/// What such an option does to the bytes that `one` sends and `two`, which has it, receives.
fn watch(name: i32, one: &mut Stream, two: &mut Stream) {
    if name == TCP_INQ {
        // The very first bytes come with it, too.
        one.send_all(20, 20);
        await_count(two.fd, 20);
        say!("{name}: at once: {:?}", receive_kinds(two));
    }
    chat(one, two, 5, 40);
    let poll = |two: &Stream| sys::events(sys::poll_one(two.fd, libc::POLLIN, 30));
    one.send_all(4, 4);
    // More than the low-water mark comes at once where that is what is looked at.
    say!("{name}: four bytes: {}", poll(two));
    one.send_all(16, 16);
    await_count(two.fd, 20);
    say!("{name}: twenty: {}", poll(two));
    let mut bytes = [0; 20];
    let peeked = sys::recv(two.fd, &mut bytes, libc::MSG_PEEK);
    say!("{name}: peek: {}", show(peeked));
    let kinds = receive_kinds(two);
    // The kernel begins to stamp some time after it was told.
    let stamped = name != libc::SO_TIMESTAMP
        || !kinds.is_empty()
        || until(|| {
            one.send_all(20, 20);
            await_count(two.fd, 20);
            !receive_kinds(two).is_empty()
        });
    let others = if name == libc::SO_TIMESTAMP { Vec::new() } else { kinds };
    say!("{name}: stamped or not asked for: {stamped}, others: {others:?}");
}

/// Receives twenty bytes, and says what came with them.
fn receive_kinds(two: &mut Stream) -> Vec<(i32, i32)> {
    let message = receive(two.fd, 20, 0);
    assert_eq!(message.result, Ok(20));
    two.inn.advance(20);
    message.control.iter().map(|piece| (piece.0, piece.1)).collect()
}

const TCP_INQ: i32 = 36;

/// Level, option and value.
const EARLY: [(i32, i32, i32); 4] = [
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF, 5),
    (libc::IPPROTO_TCP, TCP_INQ, 1),
];

fn set(fd: i32, (level, name, value): (i32, i32, i32)) {
    say!("{name} set: {}", show(sys::setsockopt(fd, level, name, &value)));
}

/// The accepting end has it from the listener.
pub(crate) fn inherited(_: &mut Case) {
    for (number, option) in (0..).zip(EARLY) {
        let (listener, port) = net::listen(Family::V4);
        set(listener, option);
        let address = Address::loopback(Family::V4, port);
        let (mut one, mut two) = pair(listener, net::socket(Family::V4, 0), number, &address);
        watch(option.1, &mut one, &mut two);
    }
}

/// The connecting end has it from before.
pub(crate) fn set_before_connect(_: &mut Case) {
    for (number, option) in (0..).zip(EARLY) {
        let (listener, port) = net::listen(Family::V4);
        let client = net::socket(Family::V4, 0);
        set(client, option);
        let (mut one, mut two) = pair(listener, client, number, &Address::loopback(Family::V4, port));
        watch(option.1, &mut two, &mut one);
    }
}

/// The first bytes leave with, or instead of, the connect.
pub(crate) fn fast_open(_: &mut Case) {
    const TCP_FASTOPEN_CONNECT: i32 = 30;
    let (listener, port) = net::listen(Family::V4);
    let address = Address::loopback(Family::V4, port);
    say!("listener: {}", show(sys::setsockopt(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &5_i32)));
    for number in 0..4 {
        let client = net::socket(Family::V4, 0);
        let mut one = Stream::new(client, number, true);
        if number % 2 == 0 {
            say!("lazy: {}", show(sys::setsockopt(client, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &1_i32)));
            say!("connect: {}", show(net::connect(client, &address)));
            say!("send: {}", show(one.send_with(10, 0)));
        } else {
            let sent = one.put(10, |fd, bytes| {
                let (start, length) = (bytes.as_ptr().cast(), bytes.len());
                // SAFETY: readable bytes and an address.
                sys::outcome(unsafe {
                    libc::sendto(fd, start, length, libc::MSG_FASTOPEN, address.pointer(), address.length())
                })
            });
            say!("sendto: {}", show(sent));
        }
        let server = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        let mut two = Stream::new(server, number, false);
        say!("recv: {}", show(two.recv_with(10, libc::MSG_WAITALL)));
        chat(&mut one, &mut two, 20, 100);
    }
    say!("all arrived");
}

/// accept(2) returns when the first bytes are there.
pub(crate) fn deferred_accept(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    say!("defer: {}", show(sys::setsockopt(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &5_i32)));
    for number in 0..3 {
        let client = net::connected(Family::V4, port);
        let mut one = Stream::new(client, number, true);
        one.send_with(10, 0).unwrap();
        let server = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
        let mut two = Stream::new(server, number, false);
        say!("at once: {}", show(two.recv_with(10, libc::MSG_DONTWAIT)));
        chat(&mut one, &mut two, 20, 100);
    }
    say!("all arrived");
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    length: u16,
    interface: i32,
    key: [u8; 80],
}

/// Signed segments (RFC 2385).
pub(crate) fn signed(_: &mut Case) {
    const TCP_MD5SIG: i32 = 14;
    let sign = |fd: i32| {
        // SAFETY: all zeros is a valid value.
        let mut signature: Signature = unsafe { std::mem::zeroed() };
        let address = Address::loopback(Family::V4, 0);
        // SAFETY: an address of this length, into room for any.
        unsafe {
            std::ptr::copy_nonoverlapping(
                address.pointer().cast::<u8>(),
                (&raw mut signature.address).cast::<u8>(),
                address.length() as usize,
            );
        }
        (signature.length, signature.key[0]) = (5, 99);
        show(sys::setsockopt(fd, libc::IPPROTO_TCP, TCP_MD5SIG, &signature))
    };
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::V4, 0);
    say!("listener: {}, client: {}", sign(listener), sign(client));
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
    chat(&mut one, &mut two, 50, 100);
    say!("all arrived");
}
