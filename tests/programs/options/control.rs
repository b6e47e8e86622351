//! Options that give more than bytes: control data, memory, positions.

use convoy_tests::kit::{Case, Link, Outcome, show, sys};
use convoy_tests::say;

use crate::{await_count, until};

/// What recvmsg gave.
pub(crate) struct Message {
    pub(crate) result: Outcome,
    /// Level, type and first integer of each piece of control data.
    pub(crate) control: Vec<(i32, i32, i32)>,
    pub(crate) flags: i32,
}

/// recvmsg with room for control data.
pub(crate) fn receive(fd: i32, count: usize, flags: i32) -> Message {
    let (mut bytes, mut room) = (vec![0_u8; count], [0_u64; 64]);
    let mut parts = sys::parts_mut(&mut [&mut bytes]);
    let mut header = sys::header(&mut parts);
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&room) as _;
    // SAFETY: the header describes writable memory.
    let result = sys::outcome(unsafe { libc::recvmsg(fd, &raw mut header, flags) });
    let mut control = Vec::new();
    if result.is_ok() {
        // SAFETY: the kernel has filled the header.
        let mut piece = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !piece.is_null() {
            // SAFETY: a complete piece of control data, which has at least an integer.
            unsafe {
                let value = libc::CMSG_DATA(piece).cast::<i32>().read_unaligned();
                control.push(((*piece).cmsg_level, (*piece).cmsg_type, value));
                piece = libc::CMSG_NXTHDR(&raw const header, piece);
            }
        }
    }
    Message { result, control, flags: header.msg_flags }
}

/// Lets bytes come until control data of a kind comes with them: the kernel begins to stamp some time after it was told.
pub(crate) fn comes_with(link: &mut Link, level: i32, kind: i32) -> bool {
    until(|| {
        link.ask("send 10");
        await_count(link.fd, 10);
        let message = receive(link.fd, 10, 0);
        assert_eq!(message.result, Ok(10));
        link.stream.inn.advance(10);
        message.control.iter().any(|piece| (piece.0, piece.1) == (level, kind))
    })
}

pub(crate) fn time_stamps(case: &mut Case) {
    let software = (libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE).cast_signed();
    let new = (63, 64, 65);
    for (name, value) in [
        (libc::SO_TIMESTAMP, 1),
        (libc::SO_TIMESTAMPNS, 1),
        (libc::SO_TIMESTAMPING, software),
        (new.0, 1),
        (new.1, 1),
        (new.2, software),
    ] {
        let mut link = case.link();
        let set = sys::setsockopt(link.fd, libc::SOL_SOCKET, name, &value);
        say!("{name}: {}, comes: {}", show(set), comes_with(&mut link, libc::SOL_SOCKET, name));
    }
}

pub(crate) fn in_queue(case: &mut Case) {
    const TCP_INQ: i32 = 36;
    let mut link = case.link();
    say!("set: {}", show(sys::setsockopt(link.fd, libc::IPPROTO_TCP, TCP_INQ, &1_i32)));
    for size in [10, 3000] {
        link.ask(&format!("send {size}"));
        await_count(link.fd, size);
        let Message { result, control, .. } = receive(link.fd, 4, 0);
        say!("{}: {control:?}", show(result));
        link.stream.inn.advance(4);
        say!("rest: {}", show(link.recv_with(size, 0)));
    }
}

pub(crate) fn peek_offset(case: &mut Case) {
    let mut link = case.link();
    say!("set: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &3_i32)));
    link.ask("send 20");
    await_count(link.fd, 20);
    let expected = link.inn.peek(20);
    for _ in 0..4 {
        let mut bytes = [0; 6];
        let result = sys::recv(link.fd, &mut bytes, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        let place = expected.windows(2).position(|two| two == &bytes[..2]);
        say!("peek: {}, from {place:?}", show(result));
    }
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("off: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &-1_i32)));
    say!("peek: {}", show(link.peek_with(10, 0)));
    say!("recv: {}", show(link.recv_with(10, 0)));
}

/// The head of `struct tcp_zerocopy_receive` of linux/tcp.h.
#[repr(C)]
#[derive(Default)]
struct ZeroCopy {
    address: u64,
    length: u32,
    to_read: u32,
    in_queue: u32,
    error: i32,
}

pub(crate) fn zero_copy_receive(case: &mut Case) {
    const TCP_ZEROCOPY_RECEIVE: i32 = 35;
    let mut link = case.link();
    link.ask("send 100");
    await_count(link.fd, 100);
    // SAFETY: a new mapping, which stays.
    let place =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, link.fd, 0) };
    say!("mapped: {}", place != libc::MAP_FAILED);
    let mut wanted = ZeroCopy { address: place as u64, length: 4096, ..ZeroCopy::default() };
    let mut length = size_of::<ZeroCopy>() as u32;
    let value = (&raw mut wanted).cast();
    // SAFETY: the value is writable for its length.
    let result =
        unsafe { libc::getsockopt(link.fd, libc::IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, value, &raw mut length) };
    let ZeroCopy { length, to_read, in_queue, error, .. } = wanted;
    say!("{}: {length} mapped, {to_read} to read, {in_queue} there, {error}", show(sys::status(result)));
    say!("recv: {}", show(link.recv_with(100, 0)));
    link.ask("send 30");
    say!("and on: {}", show(link.recv_with(30, libc::MSG_WAITALL)));
}

pub(crate) fn zero_copy_send(case: &mut Case) {
    let mut link = case.link();
    link.start("recv 20000");
    say!("not allowed: {}, arrived {}", show(link.send_with(20_000, libc::MSG_ZEROCOPY)), link.finish());
    let queue = |link: &Link| receive(link.fd, 10, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
    say!("nothing to say: {}", show(queue(&link).result));
    let mut link = case.link();
    say!("allow: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1_i32)));
    for _ in 0..3 {
        link.start("recv 20000");
        say!("send: {}, arrived {}", show(link.send_with(20_000, libc::MSG_ZEROCOPY)), link.finish());
        sys::poll_one(link.fd, 0, 10_000);
        let Message { result, control, .. } = queue(&link);
        let kinds: Vec<_> = control.iter().map(|piece| (piece.0, piece.1)).collect();
        say!("done: {} {kinds:?}", show(result));
    }
}
