//! Calls in forms that take more than a line: through files and pipes, with sets, options.

use convoy_tests::kit::{Outcome, show, sys};
use libc::c_int;

/// What is asked of poll.
pub const POLLS: [i16; 5] =
    [libc::POLLIN, libc::POLLIN | libc::POLLOUT, libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT, 0];

/// Out of a file of memory.
pub fn send_file(fd: c_int, bytes: &[u8]) -> Outcome {
    // SAFETY: a valid name.
    let file = sys::descriptor(unsafe { libc::memfd_create(c"bytes".as_ptr(), libc::MFD_CLOEXEC) });
    assert_eq!(sys::write(file, bytes), Ok(bytes.len()));
    let mut from = 0;
    let sent = sys::sendfile(fd, file, Some(&mut from), bytes.len());
    assert_eq!(from as usize, *sent.as_ref().unwrap_or(&0), "the offset of sendfile");
    sys::close(file).unwrap();
    sent
}

/// Through a pipe, in as many pieces as it takes.
pub fn splice_in(fd: c_int, bytes: &[u8]) -> Outcome {
    let (read, write) = sys::pipe();
    assert_eq!(sys::write(write, bytes), Ok(bytes.len()));
    let mut sent = Ok(0);
    while let Ok(before) = sent
        && before < bytes.len()
    {
        match sys::splice(read, fd, bytes.len() - before, 0) {
            Ok(more) => sent = Ok(before + more),
            Err(error) if before == 0 => sent = Err(error),
            Err(_) => break,
        }
    }
    sys::close(read).unwrap();
    sys::close(write).unwrap();
    sent
}

/// The other way; all of it is there.
pub fn splice_out(fd: c_int, buffer: &mut [u8]) -> Outcome {
    let (read, write) = sys::pipe();
    let mut filled = 0;
    while filled < buffer.len() {
        let moved = sys::splice(fd, write, buffer.len() - filled, 0).unwrap();
        assert_eq!(sys::read(read, &mut buffer[filled..filled + moved]), Ok(moved));
        filled += moved;
    }
    sys::close(read).unwrap();
    sys::close(write).unwrap();
    Ok(filled)
}

pub fn select(fd: c_int) -> String {
    // SAFETY: all zeros is an empty set; the descriptor is small.
    let (mut reads, mut writes): (libc::fd_set, libc::fd_set) = unsafe { std::mem::zeroed() };
    let mut now = sys::timeval(0);
    // SAFETY: valid sets and a valid time; the descriptor fits into a set.
    unsafe {
        libc::FD_SET(fd, &raw mut reads);
        libc::FD_SET(fd, &raw mut writes);
        let (reads, writes) = (&raw mut reads, &raw mut writes);
        let ready = sys::status(libc::select(fd + 1, reads, writes, std::ptr::null_mut(), &raw mut now));
        format!("{} {} {}", show(ready), libc::FD_ISSET(fd, reads), libc::FD_ISSET(fd, writes))
    }
}

pub fn option(fd: c_int, number: usize) -> String {
    let get = |level, name| show(sys::getsockopt_int(fd, level, name));
    match number % 6 {
        0 => get(libc::SOL_SOCKET, libc::SO_ERROR),
        1 => get(libc::SOL_SOCKET, libc::SO_TYPE),
        2 => {
            let set = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &((number / 6 % 2) as c_int));
            format!("{} {}", show(set), get(libc::IPPROTO_TCP, libc::TCP_NODELAY))
        }
        3 => {
            let set = sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1);
            format!("{} {}", show(set), get(libc::SOL_SOCKET, libc::SO_KEEPALIVE))
        }
        4 => get(libc::SOL_SOCKET, libc::SO_DOMAIN),
        _ => get(libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    }
}
