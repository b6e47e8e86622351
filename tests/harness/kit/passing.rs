//! Descriptors in messages over Unix sockets (SCM_RIGHTS, unix(7)).

use libc::c_int;

use super::sys;

/// Sends a descriptor over a Unix socket.
pub fn send_descriptor(channel: c_int, fd: c_int) {
    let (byte, mut control) = ([b'd'], [0_u64; 4]);
    let mut parts = sys::parts(&[&byte]);
    let mut header = sys::header(&mut parts);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 24;
    // SAFETY: the control buffer has room for one header and one descriptor.
    let result = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(first).cast::<c_int>().write_unaligned(fd);
        libc::sendmsg(channel, &raw const header, 0)
    };
    assert_eq!(sys::outcome(result), Ok(1));
}

/// Receives one.
pub fn receive_descriptor(channel: c_int) -> c_int {
    let (mut byte, mut control) = ([0], [0_u64; 4]);
    let mut views = [byte.as_mut_slice()];
    let mut parts = sys::parts_mut(&mut views);
    let mut header = sys::header(&mut parts);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 32;
    // SAFETY: a valid header with room for control data, which the kernel fills.
    unsafe {
        assert_eq!(sys::outcome(libc::recvmsg(channel, &raw mut header, libc::MSG_CMSG_CLOEXEC)), Ok(1));
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        assert!(!first.is_null(), "no descriptor came");
        libc::CMSG_DATA(first).cast::<c_int>().read_unaligned()
    }
}

/// Two connected Unix sockets.
pub fn unix_pair() -> (c_int, c_int) {
    let mut pair = [0; 2];
    // SAFETY: room for two descriptors.
    let result = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
    };
    sys::status(result).unwrap();
    (pair[0], pair[1])
}
