//! Every sending call with every receiving one, size by size.

use convoy_tests::kit::{Case, Outcome, show, sys};
use convoy_tests::say;

use crate::{SIZES, cut, cut_mut, exchange};

pub(crate) fn read_write(case: &mut Case) {
    exchange(&mut case.link(), SIZES, sys::write, sys::read);
}

pub(crate) fn recv_send(case: &mut Case) {
    exchange(
        &mut case.link(),
        SIZES,
        |fd, buffer| sys::send(fd, buffer, 0),
        |fd, buffer| sys::recv(fd, buffer, 0),
    );
}

pub(crate) fn readv_writev(case: &mut Case) {
    exchange(
        &mut case.link(),
        SIZES,
        |fd, buffer| sys::writev(fd, &cut(buffer)),
        |fd, buffer| sys::readv(fd, &mut cut_mut(buffer)),
    );
}

pub(crate) fn sendto_recvfrom(case: &mut Case) {
    let mut link = case.link();
    let put = |fd, buffer: &[u8]| {
        // SAFETY: a readable buffer, and no address.
        sys::outcome(unsafe {
            libc::sendto(fd, buffer.as_ptr().cast(), buffer.len(), 0, std::ptr::null(), 0)
        })
    };
    let mut lengths = Vec::new();
    let get = |fd, buffer: &mut [u8]| {
        let (mut name, mut length) = ([0_u8; 64], 64_u32);
        let (memory, count) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: a writable buffer, room for an address, and its length.
        let result =
            unsafe { libc::recvfrom(fd, memory, count, 0, name.as_mut_ptr().cast(), &raw mut length) };
        lengths.push(length);
        sys::outcome(result)
    };
    exchange(&mut link, SIZES, put, get);
    lengths.dedup();
    say!("address lengths {lengths:?}");
}

pub(crate) fn sendmsg_recvmsg(case: &mut Case) {
    let mut seen = Vec::new();
    let get = |fd, buffer: &mut [u8]| {
        let (result, flags, length) = sys::recvmsg(fd, &mut cut_mut(buffer), 0);
        seen.push((flags, length));
        result
    };
    exchange(&mut case.link(), SIZES, |fd, buffer| sys::sendmsg(fd, &cut(buffer), 0), get);
    seen.dedup();
    say!("flags and name lengths {seen:?}");
}

/// `sendmmsg` of a buffer in messages of at most 1000 bytes; the sum of their lengths.
fn send_many(fd: i32, buffer: &[u8]) -> Outcome {
    let pieces: Vec<&[u8]> = buffer.chunks(1000).collect();
    let mut parts: Vec<Vec<libc::iovec>> = pieces.iter().map(|piece| sys::parts(&cut(piece))).collect();
    let mut headers: Vec<libc::mmsghdr> =
        parts.iter_mut().map(|parts| libc::mmsghdr { msg_hdr: sys::header(parts), msg_len: 0 }).collect();
    let count = u32::try_from(headers.len()).unwrap();
    // SAFETY: headers of readable slices.
    let sent = sys::status(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, 0) })?;
    Ok(headers[..sent].iter().map(|header| header.msg_len as usize).sum())
}

/// `recvmmsg` into messages of at most 1000 bytes.
fn receive_many(fd: i32, buffer: &mut [u8]) -> Outcome {
    let mut parts: Vec<Vec<libc::iovec>> =
        buffer.chunks_mut(1000).map(|piece| sys::parts_mut(&mut cut_mut(piece))).collect();
    let mut headers: Vec<libc::mmsghdr> =
        parts.iter_mut().map(|parts| libc::mmsghdr { msg_hdr: sys::header(parts), msg_len: 0 }).collect();
    let count = u32::try_from(headers.len()).unwrap();
    // SAFETY: headers of writable slices, and no time limit.
    let result = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, 0, std::ptr::null_mut()) };
    let received = sys::status(result)?;
    Ok(headers[..received].iter().map(|header| header.msg_len as usize).sum())
}

pub(crate) fn sendmmsg_recvmmsg(case: &mut Case) {
    exchange(&mut case.link(), SIZES, send_many, receive_many);
}

pub(crate) fn pwritev2_preadv2(case: &mut Case) {
    let put = |fd, buffer: &[u8]| {
        let parts = sys::parts(&cut(buffer));
        // SAFETY: parts of a readable slice.
        sys::outcome(unsafe { libc::pwritev2(fd, parts.as_ptr(), 4, -1, 0) })
    };
    let get = |fd, buffer: &mut [u8]| {
        let parts = sys::parts_mut(&mut cut_mut(buffer));
        // SAFETY: parts of a writable slice.
        sys::outcome(unsafe { libc::preadv2(fd, parts.as_ptr(), 4, -1, 0) })
    };
    exchange(&mut case.link(), SIZES, put, get);
}

/// Every sending call after every other, and the same for receiving.
pub(crate) fn calls_mixed(case: &mut Case) {
    let mut link = case.link();
    for round in 0..60_usize {
        let size = SIZES[round % 11] + round;
        link.start(&format!("recv {size} {}", 1 + size / (1 + round % 3)));
        let sent = link.put(size, |fd, buffer| match round % 5 {
            0 => sys::write(fd, buffer),
            1 => sys::send(fd, buffer, libc::MSG_NOSIGNAL),
            2 => sys::writev(fd, &cut(buffer)),
            3 => sys::sendmsg(fd, &cut(buffer), 0),
            _ => send_many(fd, buffer),
        });
        let arrived = link.finish();
        link.ask(&format!("send {size} {}", 1 + size / (1 + round % 4)));
        link.await_bytes(size);
        let received = link.get(size, |fd, buffer| match round % 7 {
            0 => sys::read(fd, buffer),
            1 => sys::recv(fd, buffer, 0),
            2 => sys::readv(fd, &mut cut_mut(buffer)),
            3 => sys::recvmsg(fd, &mut cut_mut(buffer), 0).0,
            4 => receive_many(fd, buffer),
            5 => sys::recv(fd, buffer, libc::MSG_DONTWAIT),
            _ => sys::recv(fd, buffer, libc::MSG_WAITALL),
        });
        say!("{round}: {size} sent {}, arrived {arrived}, received {}", show(sent), show(received));
    }
}

/// What libuv and others do: system calls through `syscall`.
pub(crate) fn raw_syscalls(case: &mut Case) {
    let mut link = case.link();
    let put = |fd: i32, buffer: &[u8]| {
        // SAFETY: a readable buffer.
        let result = unsafe { libc::syscall(libc::SYS_write, fd, buffer.as_ptr(), buffer.len()) };
        sys::outcome(result as isize)
    };
    let get = |fd: i32, buffer: &mut [u8]| {
        // SAFETY: a writable buffer.
        let result = unsafe { libc::syscall(libc::SYS_read, fd, buffer.as_mut_ptr(), buffer.len()) };
        sys::outcome(result as isize)
    };
    exchange(&mut link, &[1, 64, 5000], put, get);
    let put = |fd: i32, buffer: &[u8]| {
        let (none, zero) = (std::ptr::null::<u8>(), 0);
        // SAFETY: a readable buffer and no address.
        let result =
            unsafe { libc::syscall(libc::SYS_sendto, fd, buffer.as_ptr(), buffer.len(), zero, none, zero) };
        sys::outcome(result as isize)
    };
    let get = |fd: i32, buffer: &mut [u8]| {
        let (none, zero) = (std::ptr::null::<u8>(), 0);
        // SAFETY: a writable buffer and no address.
        let result = unsafe {
            libc::syscall(libc::SYS_recvfrom, fd, buffer.as_mut_ptr(), buffer.len(), zero, none, none)
        };
        sys::outcome(result as isize)
    };
    exchange(&mut link, &[1, 64, 5000], put, get);
    // SAFETY: no memory is involved.
    let closed = sys::outcome(unsafe { libc::syscall(libc::SYS_close, link.fd) } as isize);
    say!("close: {}, the other end: {}", show(closed), link.ask("drain"));
    // SAFETY: a valid path; the lowest free number is the one just closed.
    let file =
        sys::descriptor(unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) });
    say!("same number: {}", file == link.fd);
    let mut buffer = [1; 8];
    say!("a file there: {} {buffer:?}", show(sys::read(file, &mut buffer)));
    say!("as a socket: {}", show(sys::send(file, b"x", 0)));
}
