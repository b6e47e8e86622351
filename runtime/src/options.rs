//! Socket options and ioctls on connections that Convoy follows: most are the kernel's alone, some demote, some
//! answers need what went through the channel added.

use crate::api::{Handled, Reason};
use crate::socket::{self, State};
use crate::{demote, position, sys, table, wait};
use core::ffi::c_void;

/// SOL_SOCKET options that change what a read or write means and that the channel does not honour.
const DEMOTING_SOCKET: [i32; 8] = [
    libc::SO_RCVLOWAT,
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
    libc::SO_ZEROCOPY,
    libc::SO_OOBINLINE,
    libc::SO_ATTACH_FILTER,
    libc::SO_ATTACH_BPF,
];
/// Those of them that may be on without Convoy's knowledge and work without any further call. (SO_ZEROCOPY needs a flag.)
const INHERITED: [i32; 4] =
    [libc::SO_OOBINLINE, libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, libc::SO_TIMESTAMPING];
/// The same of IPPROTO_TCP; TCP_ULP stands for kTLS.
const DEMOTING_TCP: [i32; 3] = [libc::TCP_ULP, libc::TCP_REPAIR, libc::TCP_ZEROCOPY_RECEIVE];

/// Before the program's setsockopt.
pub fn before_set(fd: i32, level: i32, name: i32) {
    let demotes = match level {
        libc::SOL_SOCKET => DEMOTING_SOCKET.contains(&name),
        libc::IPPROTO_TCP => DEMOTING_TCP.contains(&name),
        _ => false,
    };
    if demotes {
        demote::demote(fd, Reason::Option);
    }
}

/// Whether a connection needs the kernel's data path because of an option that was set before there was a connection, or
/// inherited from the listener.
pub fn need_kernel(fd: i32) -> bool {
    INHERITED.iter().any(|&name| sys::option(fd, libc::SOL_SOCKET, name).is_ok_and(|value| value != 0))
        || sys::option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT).is_ok_and(|bytes| bytes > 1)
}

/// After a successful getsockopt: TCP_INFO counts what went through the channel too.
///
/// # Safety
/// `value` points to `length` writable bytes.
pub unsafe fn after_get(fd: i32, level: i32, name: i32, value: *mut c_void, length: u32) {
    if level != libc::IPPROTO_TCP || name != libc::TCP_INFO || value.is_null() {
        return;
    }
    let Some((channel, slot)) = promoted(fd) else {
        return;
    };
    let (sent, received) = (channel.sent_bytes(slot), channel.received_bytes(slot));
    for (offset, bytes) in
        [(position::BYTES_ACKED, sent), (position::BYTES_SENT, sent), (position::BYTES_RECEIVED, received)]
    {
        if offset + size_of::<u64>() <= length as usize {
            // SAFETY: inside the program's buffer, by the check and the caller's promise.
            unsafe {
                let field = value.cast::<u8>().add(offset).cast::<u64>();
                field.write_unaligned(field.read_unaligned().wrapping_add(bytes));
            }
        }
    }
}

/// FIONREAD: what can be read at once.
pub fn readable_bytes(fd: i32) -> Handled {
    let (channel, slot) = promoted(fd)?;
    Some(Ok(channel.readable(slot, fd) as usize))
}

/// What a connection with TCP_INQ reports with every message: how much can still be read, and 1 if that is the end. The
/// option is asked for each time, because another process that has the connection may change it.
pub fn bytes_left(fd: i32) -> Option<i32> {
    if sys::option(fd, libc::IPPROTO_TCP, libc::TCP_INQ).ok()? == 0 {
        return None;
    }
    let bytes = match promoted(fd) {
        Some((channel, slot)) => channel.readable(slot, fd),
        None => position::readable(fd),
    };
    let ended = || wait::kernel_state(fd, libc::POLLRDHUP) & libc::POLLRDHUP != 0;
    let bytes = if bytes == 0 { u64::from(ended()) } else { bytes };
    Some(i32::try_from(bytes).unwrap_or(i32::MAX))
}

fn promoted(fd: i32) -> Option<(&'static crate::channel::Channel, u32)> {
    let socket = socket::at(table::socket(fd)?)?;
    if socket.state() == State::Promoted { socket.stream() } else { None }
}
