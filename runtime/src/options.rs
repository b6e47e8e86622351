//! Socket options and ioctls on connections that Convoy follows: most are the kernel's alone, some demote, some
//! answers need what went through the channel added.

use crate::api::{Handled, Reason};
use crate::channel::Channel;
use crate::socket::{self, Socket, State};
use crate::{demote, position, sys, table, wait};
use convoy_aggregator::path::Path;
use core::ffi::c_void;
use core::sync::atomic::Ordering;

const SO_TIMESTAMP_NEW: i32 = 63;
const SO_TIMESTAMPNS_NEW: i32 = 64;
const SO_TIMESTAMPING_NEW: i32 = 65;
const TCP_ZEROCOPY_RECEIVE: i32 = 35;
const TCP_TX_DELAY: i32 = 37;

/// Options that need the kernel's data path because the channel does not honour them, with the value that they have when
/// nobody has set them.
const DEMOTING: [(i32, i32, i32); 13] = [
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, 0),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF, -1),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, -1),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 0),
    (libc::SOL_SOCKET, SO_TIMESTAMP_NEW, 0),
    (libc::SOL_SOCKET, SO_TIMESTAMPNS_NEW, 0),
    (libc::SOL_SOCKET, SO_TIMESTAMPING_NEW, 0),
    // kTLS and the like; the name of the protocol.
    (libc::IPPROTO_TCP, libc::TCP_ULP, 0),
    (libc::IPPROTO_TCP, libc::TCP_REPAIR, 0),
    (libc::IPPROTO_TCP, TCP_TX_DELAY, 0),
];
/// The same, but without a value to compare: filters, and a policy of IPsec, which wants every byte in a packet.
const DEMOTING_WHEN_SET: [(i32, i32); 6] = [
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    (libc::IPPROTO_IP, libc::IP_IPSEC_POLICY),
    (libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
    (libc::IPPROTO_IPV6, libc::IPV6_IPSEC_POLICY),
    (libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
];

/// Before the program's setsockopt, with the option's value if that is an integer; its result when the kernel need not be told.
pub fn before_set(fd: i32, level: i32, name: i32, value: Option<i32>) -> Handled {
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_CORK) {
        return value.is_some_and(|value| cork(fd, value != 0)).then_some(Ok(0));
    }
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_INQ)
        && let (Some(socket), Some(value)) = (table::socket(fd).and_then(socket::at), value)
    {
        socket.counts_left.store(value != 0, Ordering::Relaxed);
    }
    let listed = DEMOTING.iter().any(|&(its_level, its_name, _)| (its_level, its_name) == (level, name));
    if listed || DEMOTING_WHEN_SET.contains(&(level, name)) {
        demote::demote(fd, Reason::Option);
    }
    None
}

/// TCP_CORK on a stream: a channel holds nothing back, so the kernel is told only when it has the stream. Servers set and clear it
/// for every answer. False when the kernel has to do it.
fn cork(fd: i32, on: bool) -> bool {
    let served = |(socket, (channel, slot, _)): (&Socket, (&Channel, u32, u8))| {
        let is_off = || sys::option(fd, libc::IPPROTO_TCP, libc::TCP_CORK) == Ok(0);
        if channel.sends_here(slot) {
            return socket.cork(on, is_off);
        }
        socket.leave_cork(fd);
        false
    };
    promoted(fd).is_some_and(served)
}

/// Before the program's getsockopt: one of them reads the stream.
pub fn before_get(fd: i32, level: i32, name: i32) {
    if (level, name) == (libc::IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE) {
        demote::demote(fd, Reason::Option);
    }
}

/// Before fcntl(F_SETFL) or ioctl(FIOASYNC): what comes through the channel gives no signal.
pub fn before_signals(fd: i32) {
    demote::demote(fd, Reason::Option);
}

/// The program has changed O_NONBLOCK or a time limit.
pub fn after_mode_change(fd: i32) {
    if let Some(socket) = table::socket(fd).and_then(socket::at) {
        socket.forget_modes();
    }
}

/// Looks once at the options that a connection has from the time before Convoy followed it: set before connect(2), or inherited
/// from the listening socket. Whether one of them needs the kernel.
pub fn first_look(socket: &Socket, fd: i32) -> bool {
    if socket.options_seen.swap(true, Ordering::Relaxed) {
        return false;
    }
    if sys::option(fd, libc::IPPROTO_TCP, libc::TCP_INQ).is_ok_and(|on| on != 0) {
        socket.counts_left.store(true, Ordering::Relaxed);
    }
    needs_kernel(fd)
}

fn needs_kernel(fd: i32) -> bool {
    // An option that this kernel does not know has not been set.
    let changed = |&(level, name, usual): &(i32, i32, i32)| {
        sys::option(fd, level, name).is_ok_and(|value| value != usual)
    };
    DEMOTING.iter().any(changed) || is_filtered(fd) || signals(fd)
}

/// SO_GET_FILTER: asked with no room it tells how many instructions there are; what is no classic filter gives EACCES.
fn is_filtered(fd: i32) -> bool {
    // SAFETY: nothing is written.
    let filter = unsafe { sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &mut ()) };
    matches!(filter, Ok(1..) | Err(libc::EACCES))
}

/// Whether the program wants signals when something arrives (O_ASYNC of fcntl(2)).
fn signals(fd: i32) -> bool {
    sys::fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_ASYNC != 0)
}

/// After a successful getsockopt: TCP_INFO counts what went through the channel too, and of TCP_CORK the kernel may not know.
///
/// # Safety
/// `value` points to `length` writable bytes.
pub unsafe fn after_get(fd: i32, level: i32, name: i32, value: *mut c_void, length: u32) {
    if level != libc::IPPROTO_TCP || ![libc::TCP_INFO, libc::TCP_CORK].contains(&name) || value.is_null() {
        return;
    }
    let Some((socket, (channel, slot, _))) = promoted(fd) else {
        return;
    };
    if name == libc::TCP_CORK {
        if socket.is_corked() {
            let on = 1i32.to_ne_bytes();
            // SAFETY: the kernel has written as many bytes, of an integer at most.
            unsafe { value.cast::<u8>().copy_from(on.as_ptr(), on.len().min(length as usize)) };
        }
        return;
    }
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

/// SIOCATMARK: the kernel, which keeps the mark, does not know of bytes before it that came through the channel.
pub fn at_mark(fd: i32) -> Handled {
    let (_, (channel, slot, generation)) = promoted(fd)?;
    let _ = channel.sort();
    let before = channel.receive_path(slot, generation, fd) == Ok(Path::Channel) && channel.has_bytes(slot);
    before.then_some(Ok(0))
}

/// FIONREAD: what can be read at once.
pub fn readable_bytes(fd: i32) -> Handled {
    let (_, (channel, slot, generation)) = promoted(fd)?;
    Some(Ok(channel.readable(slot, generation, fd) as usize))
}

/// What a connection with TCP_INQ reports with every message: how much can still be read, and 1 if that is the end.
pub fn bytes_left(fd: i32) -> Option<i32> {
    let socket = socket::at(table::socket(fd)?)?;
    if !socket.counts_left.load(Ordering::Relaxed) {
        return None;
    }
    let bytes = match promoted(fd) {
        Some((_, (channel, slot, generation))) => channel.readable(slot, generation, fd),
        None => position::readable(fd),
    };
    let ended = || wait::kernel_state(fd, libc::POLLRDHUP) & libc::POLLRDHUP != 0;
    let bytes = if bytes == 0 { u64::from(ended()) } else { bytes };
    Some(i32::try_from(bytes).unwrap_or(i32::MAX))
}

/// The socket of `fd`, when that is a promoted stream, and where the stream is.
fn promoted(fd: i32) -> Option<(&'static Socket, (&'static Channel, u32, u8))> {
    let index = table::socket(fd)?;
    let socket = socket::at(index)?;
    (socket.state() == State::Promoted).then_some((socket, socket.stream_of(index, fd)?))
}
