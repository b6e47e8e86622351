//! Unix sockets that keep message boundaries (SOCK_SEQPACKET), and descriptors passed over them (unix(7)).

use super::{Answer, answer, close, getsockopt};
use core::ffi::{CStr, c_int};
use syscalls::{Sysno, syscall};

/// Descriptors that one message of Convoy's carries at most.
pub const MOST_PASSED: usize = 2;
/// Descriptors that any message can carry (SCM_MAX_FD of the kernel).
pub const MOST_EVER_PASSED: usize = 253;

/// CMSG_SPACE of the most descriptors.
const CONTROL_BYTES: usize = 16 + (MOST_EVER_PASSED * size_of::<c_int>()).next_multiple_of(8);

/// Room for control messages, aligned as cmsg(3) wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// A socket connected to the one at `path`; close-on-exec and nonblocking.
pub fn unix_connect(path: &CStr) -> Answer<c_int> {
    let (address, length) = unix_address(path)?;
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = call!(socket, libc::AF_UNIX, kind, 0)? as c_int;
    match call!(connect, fd, &address as *const libc::sockaddr_un, length) {
        Ok(_) => Ok(fd),
        Err(errno) => {
            let _ = close(fd);
            Err(errno)
        }
    }
}

fn unix_address(path: &CStr) -> Answer<(libc::sockaddr_un, usize)> {
    // SAFETY: plain bytes.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    let bytes = path.to_bytes_with_nul();
    let room = address.sun_path.get_mut(..bytes.len()).ok_or(libc::ENAMETOOLONG)?;
    for (place, byte) in room.iter_mut().zip(bytes) {
        *place = *byte as core::ffi::c_char;
    }
    Ok((address, size_of::<u16>() + bytes.len()))
}

/// Who is at the other end: process, user and group id (SO_PEERCRED).
pub fn unix_peer(fd: c_int) -> Answer<(i32, u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    // SAFETY: plain integers.
    unsafe { getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut peer) }?;
    Ok((peer.pid, peer.uid, peer.gid))
}

/// Sends one message, with copies of `passed` (at most [`MOST_PASSED`]); never blocks.
pub fn unix_send(fd: c_int, message: &[u8], passed: &[c_int]) -> Answer<()> {
    let mut control = Control([0; CONTROL_BYTES]);
    let passed = &passed[..passed.len().min(MOST_PASSED)];
    let part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: plain data; pointers are set below.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_iov = (&raw const part).cast_mut();
    header.msg_iovlen = 1;
    if !passed.is_empty() {
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: arithmetic only.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of_val(passed) as u32) } as usize;
        // SAFETY: the control buffer is large enough for MOST_PASSED descriptors and aligned.
        unsafe {
            let head = libc::CMSG_FIRSTHDR(&header);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(size_of_val(passed) as u32) as usize;
            let data = libc::CMSG_DATA(head).cast::<c_int>();
            for (index, fd) in passed.iter().enumerate() {
                data.add(index).write_unaligned(*fd);
            }
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    call!(sendmsg, fd, &header as *const libc::msghdr, flags).map(drop)
}

/// Receives one message and the descriptors with it (-1 where there are none), which are close-on-exec; never blocks.
/// 0 bytes when the other end is closed. Descriptors beyond `MOST`, at most [`MOST_EVER_PASSED`], are closed by the kernel.
pub fn unix_receive<const MOST: usize>(fd: c_int, into: &mut [u8]) -> Answer<(usize, [c_int; MOST])> {
    const { assert!(MOST <= MOST_EVER_PASSED) };
    let mut control = Control([0; CONTROL_BYTES]);
    let part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: plain data; pointers are set below.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_iov = (&raw const part).cast_mut();
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    let room = unsafe { libc::CMSG_SPACE((MOST * size_of::<c_int>()) as u32) };
    header.msg_controllen = room as usize;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let bytes = call!(recvmsg, fd, &mut header as *mut libc::msghdr, flags)?;
    let mut passed = [-1; MOST];
    // SAFETY: the kernel filled the control buffer; lengths are checked against what a descriptor takes.
    unsafe {
        let head = libc::CMSG_FIRSTHDR(&header);
        if !head.is_null() && (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS
        {
            let count = ((*head).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<c_int>();
            for (index, place) in passed.iter_mut().take(count).enumerate() {
                *place = libc::CMSG_DATA(head).cast::<c_int>().add(index).read_unaligned();
            }
        }
    }
    Ok((bytes, passed))
}

/// An event counter (eventfd(2)), nonblocking.
pub fn eventfd() -> Answer<c_int> {
    call!(eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map(|fd| fd as c_int)
}

/// A listening socket at `path`, whose file gets `mode`; close-on-exec and nonblocking.
pub fn unix_listen(path: &CStr, mode: u32) -> Answer<c_int> {
    let (address, length) = unix_address(path)?;
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = call!(socket, libc::AF_UNIX, kind, 0)? as c_int;
    let bound = call!(bind, fd, &address as *const libc::sockaddr_un, length)
        .and_then(|_| call!(fchmodat, libc::AT_FDCWD, path.as_ptr(), mode))
        .and_then(|_| listen(fd));
    match bound {
        Ok(_) => Ok(fd),
        Err(errno) => {
            let _ = close(fd);
            Err(errno)
        }
    }
}

/// Makes a Unix socket listen, or names this process as the one that listens there (SO_PEERCRED of those who connect).
pub fn listen(fd: c_int) -> Answer<()> {
    call!(listen, fd, 1024).map(drop)
}

/// The next connection of a listening socket, close-on-exec and nonblocking.
pub fn accept(fd: c_int) -> Answer<c_int> {
    call!(accept4, fd, 0, 0, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).map(|fd| fd as c_int)
}

/// A TCP socket that is not connected.
pub fn tcp_socket() -> Answer<c_int> {
    call!(socket, libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).map(|fd| fd as c_int)
}

/// SO_NETNS_COOKIE (Linux 5.14): which network namespace a socket is in.
pub fn network_namespace(fd: c_int) -> Answer<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut value = 0u64;
    // SAFETY: a plain integer.
    unsafe { getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut value) }?;
    Ok(value)
}

/// Adds one to an event counter; whoever polls it is woken.
pub fn ring_eventfd(fd: c_int) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes.
    let _ = unsafe { super::write(fd, one.as_ptr(), one.len()) };
}
