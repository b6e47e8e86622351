//! What a socket says about itself: addresses and options.

use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::{chat, pair};
use convoy_tests::kit::{Case, Link, net, show, sys};
use convoy_tests::say;

pub(crate) fn addresses(case: &mut Case, family: Family) {
    let link = case.link_over(family);
    say!("name: {}", net::local_address(link.fd).unwrap().describe());
    say!("peer: {}", net::peer_address(link.fd).unwrap().describe());
    link.ask("close");
    say!("end: {}", show(sys::recv(link.fd, &mut [0; 4], 0)));
    say!("name: {}", net::local_address(link.fd).unwrap().describe());
    say!(
        "peer: {}",
        net::peer_address(link.fd).map_or_else(|error| error.to_string(), |address| address.describe())
    );
}

pub(crate) fn traffic(case: &mut Case, family: Family) {
    let mut link = case.link_over(family);
    for size in [1, 100, 10_000, 500_000] {
        link.start(&format!("both {size} {size}"));
        link.both(size, size, 20_000);
        say!("{size}: {}", link.finish());
    }
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(1, 0)));
}

/// An IPv6 socket connects to an IPv4 listener.
pub(crate) fn mapped_to_plain(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::Mapped, 0);
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::Mapped, port));
    say!("client: {}", net::peer_address(one.fd).unwrap().describe());
    say!("server: {}", net::peer_address(two.fd).unwrap().describe());
    chat(&mut one, &mut two, 50, 100);
    say!("both ways");
    sys::close(one.fd).unwrap();
    say!("end: {}", show(two.recv_with(10, 0)));
}

pub(crate) fn address_cut_short(case: &mut Case) {
    let link = case.link();
    for room in [0_u32, 2, 4, 8, 15, 16, 40] {
        let mut bytes = [0xee_u8; 64];
        let mut length = room;
        // SAFETY: room for the length that is given.
        let result = unsafe { libc::getpeername(link.fd, bytes.as_mut_ptr().cast(), &raw mut length) };
        let touched = bytes.iter().rposition(|&byte| byte != 0xee).map_or(0, |at| at + 1);
        say!(
            "getpeername {room}: {result}, length {length}, touched at most {}",
            touched.max(room.min(16) as usize)
        );
        let (mut bytes, mut length) = ([0xee_u8; 64], room);
        // SAFETY: as above.
        let result = unsafe { libc::getsockname(link.fd, bytes.as_mut_ptr().cast(), &raw mut length) };
        say!(
            "getsockname {room}: {result}, length {length}, behind: {:x?}",
            &bytes[room.min(16) as usize..][..2]
        );
    }
    // SAFETY: a bad address is the kernel's to notice.
    let result = unsafe { libc::getpeername(link.fd, sys::nowhere().cast(), sys::nowhere().cast()) };
    say!("bad memory: {}", show(sys::status(result)));
}

pub(crate) fn bound_before_connect(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::V4, 0);
    net::bind(client, &Address::v4([127, 0, 0, 3], 0)).unwrap();
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
    say!("name: {}", net::local_address(client).unwrap().describe());
    say!("seen: {}", net::peer_address(two.fd).unwrap().describe());
    chat(&mut one, &mut two, 50, 100);
    say!("both ways");
}

pub(crate) fn other_loopback_address(_: &mut Case) {
    let listener = net::socket(Family::V4, 0);
    net::bind(listener, &Address::v4([0, 0, 0, 0], 0)).unwrap();
    // SAFETY: no memory is involved.
    sys::status(unsafe { libc::listen(listener, 16) }).unwrap();
    let port = net::local_address(listener).unwrap().port();
    for last in [1, 2, 200] {
        let address = Address::v4([127, 9, 9, last], port);
        let (mut one, mut two) = pair(listener, net::socket(Family::V4, 0), u64::from(last), &address);
        say!("peer: {}", net::peer_address(one.fd).unwrap().describe());
        say!("name: {}", net::local_address(two.fd).unwrap().describe());
        chat(&mut one, &mut two, 50, 100);
    }
    say!("both ways");
}

/// What the socket says about itself, however its bytes travel.
pub(crate) fn options(case: &mut Case) {
    let link = case.link();
    let fd = link.fd;
    let get = |level, name| show(sys::getsockopt_int(fd, level, name));
    let set = |level, name, value: i32| show(sys::setsockopt(fd, level, name, &value));
    say!("type {}", get(libc::SOL_SOCKET, libc::SO_TYPE));
    say!("domain {}", get(libc::SOL_SOCKET, libc::SO_DOMAIN));
    say!("protocol {}", get(libc::SOL_SOCKET, libc::SO_PROTOCOL));
    say!("accepts {}", get(libc::SOL_SOCKET, libc::SO_ACCEPTCONN));
    say!("error {}", get(libc::SOL_SOCKET, libc::SO_ERROR));
    for value in [0, 1] {
        say!(
            "no delay {} {}",
            set(libc::IPPROTO_TCP, libc::TCP_NODELAY, value),
            get(libc::IPPROTO_TCP, libc::TCP_NODELAY)
        );
        say!(
            "cork {} {}",
            set(libc::IPPROTO_TCP, libc::TCP_CORK, value),
            get(libc::IPPROTO_TCP, libc::TCP_CORK)
        );
        say!(
            "keep alive {} {}",
            set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, value),
            get(libc::SOL_SOCKET, libc::SO_KEEPALIVE)
        );
    }
    say!("cork off {}", set(libc::IPPROTO_TCP, libc::TCP_CORK, 0));
    say!("quick ack {}", set(libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1));
    say!(
        "send room {} {}",
        set(libc::SOL_SOCKET, libc::SO_SNDBUF, 50_000),
        get(libc::SOL_SOCKET, libc::SO_SNDBUF)
    );
    say!(
        "receive room {} {}",
        set(libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
        get(libc::SOL_SOCKET, libc::SO_RCVBUF)
    );
    say!(
        "keep idle {} {}",
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 33),
        get(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE)
    );
    say!("user timeout {} {}", set(libc::IPPROTO_TCP, 18, 4000), get(libc::IPPROTO_TCP, 18));
    say!("unknown {} {}", set(libc::SOL_SOCKET, 9999, 1), get(libc::SOL_SOCKET, 9999));
    say!("wrong level {} {}", set(77, 1, 1), get(77, 1));
    say!("state {}", tcp_state(&link));
    link.ask("shutdown 1");
    assert_eq!(sys::recv(fd, &mut [0; 4], 0), Ok(0));
    say!("state {}", tcp_state(&link));
}

fn tcp_state(link: &Link) -> u8 {
    let (mut bytes, mut length) = ([0_u8; 256], 256_u32);
    let name = libc::TCP_INFO;
    // SAFETY: room for the length that is given.
    let result = unsafe { libc::getsockopt(link.fd, 6, name, bytes.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!((result, length > 100), (0, true));
    bytes[0]
}

/// Options changed between bytes change no byte.
pub(crate) fn options_at_work(case: &mut Case) {
    let mut link = case.link();
    let fd = link.fd;
    for round in 0..30_i32 {
        let set = |level, name, value: i32| sys::setsockopt(fd, level, name, &value).unwrap();
        match round % 6 {
            0 => set(libc::IPPROTO_TCP, libc::TCP_CORK, 1),
            1 => set(libc::IPPROTO_TCP, libc::TCP_CORK, 0),
            2 => set(libc::IPPROTO_TCP, libc::TCP_NODELAY, round & 1),
            3 => set(libc::SOL_SOCKET, libc::SO_SNDBUF, 20_000 + round),
            4 => set(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0),
            _ => set(libc::SOL_SOCKET, libc::SO_RCVBUF, 20_000 + round),
        };
        set(libc::IPPROTO_TCP, libc::TCP_CORK, 0);
        let size = 100 + usize::try_from(round).unwrap() * 1000;
        link.start(&format!("both {size} {size}"));
        link.both(size, size, 5000);
        say!("{round}: {}", link.finish());
    }
}

/// UDP goes on as ever beside live streams.
pub(crate) fn datagrams(case: &mut Case) {
    let mut link = case.link();
    // SAFETY: no memory is involved.
    let make =
        || sys::descriptor(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) });
    let (one, two) = (make(), make());
    net::bind(one, &Address::loopback(Family::V4, 0)).unwrap();
    net::bind(two, &Address::loopback(Family::V4, 0)).unwrap();
    net::connect(one, &net::local_address(two).unwrap()).unwrap();
    for round in 0..20 {
        let sent = sys::send(one, &vec![1; round * 10], 0);
        let received = sys::recv(two, &mut [0; 1000], 0);
        link.start("pong 1 10");
        link.ping(1, 10);
        say!("{round}: {} {} {}", show(sent), show(received), link.finish());
    }
}
