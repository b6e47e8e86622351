//! How many bytes of a connection went through the kernel, by the kernel's own count: what an un-intercepted call
//! or another process moved is in it.
//!
//! Sources: tcp(7), `struct tcp_info` of linux/tcp.h (RFC 4898 counters), tcp_get_info and tcp_inq in the kernel.

use crate::sys;

/// The head of `struct tcp_info` as the kernel lays it out; libc's is shorter.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: u8,
    bytes: [u8; 7],
    words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    notsent_bytes: u32,
    min_rtt: u32,
    data_segments: [u32; 2],
    delivery_rate: u64,
    times: [u64; 3],
    delivered: [u32; 2],
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// Offsets in `struct tcp_info` that the options module patches.
pub const BYTES_ACKED: usize = core::mem::offset_of!(TcpInfo, bytes_acked);
pub const BYTES_RECEIVED: usize = core::mem::offset_of!(TcpInfo, bytes_received);
pub const BYTES_SENT: usize = core::mem::offset_of!(TcpInfo, bytes_sent);

const TCP_CLOSE: u8 = 7;
/// States after a FIN was received; the kernel counts it as one byte.
const AFTER_FIN: [u8; 4] = [8, 9, 11, 6];
/// States after a FIN was sent, of a connection that has not been reset.
const AFTER_OWN_FIN: [u8; 5] = [4, 5, 6, 9, 11];
const SIOCINQ: u64 = libc::FIONREAD;
const SIOCOUTQ: u64 = libc::TIOCOUTQ;

fn info(fd: i32) -> Option<TcpInfo> {
    let mut info = TcpInfo::default();
    // SAFETY: plain integers.
    let length = unsafe { sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info) }.ok()?;
    (length >= size_of::<TcpInfo>()).then_some(info)
}

/// Whether the end of what is received, which the kernel reports, is this end's own shutdown(2): no FIN has come.
pub fn reads_no_more(fd: i32) -> bool {
    info(fd).is_some_and(|info| info.state != TCP_CLOSE && !AFTER_FIN.contains(&info.state))
}

/// Whether this end of the connection has been shut down for sending, and the connection is not reset.
pub fn sends_no_more(fd: i32) -> bool {
    info(fd).is_some_and(|info| AFTER_OWN_FIN.contains(&info.state))
}

/// Returns when the kernel is done with the segment that it may just be taking in: TCP_INFO is read under the socket's lock.
pub fn await_segment(fd: i32) {
    let _ = info(fd);
}

/// Which end has opened a connection: the SYN of the one that did counts as an acknowledged byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opener {
    Unknown,
    This,
    Peer,
}

impl Opener {
    pub fn from_word(word: u8) -> Self {
        match word {
            1 => Self::This,
            2 => Self::Peer,
            _ => Self::Unknown,
        }
    }
}

/// Looks for two equal counts of acknowledged bytes in a row.
const LOOKS: u32 = 16;

/// Bytes this end has ever given to the kernel to send. The caller lets nobody send meanwhile. Nothing when that cannot
/// be told at the moment.
///
/// `bytes_sent` alone would not do: it counts a segment again that the host's own queue has dropped.
pub fn sent(fd: i32, opener: Opener) -> Option<u64> {
    let mut before = info(fd)?;
    for _ in 0..LOOKS {
        let queued = sys::ioctl_int(fd, SIOCOUTQ).ok()? as u64;
        let after = info(fd)?;
        if before.bytes_acked == after.bytes_acked {
            let counted = after.bytes_acked + queued;
            return match opener {
                Opener::This => counted.checked_sub(1),
                Opener::Peer => Some(counted),
                Opener::Unknown => {
                    let sent = after.bytes_sent.checked_sub(after.bytes_retrans)?;
                    let sent = sent + u64::from(after.notsent_bytes);
                    (counted == sent || counted == sent + 1).then_some(sent)
                }
            };
        }
        before = after;
    }
    None
}

/// Bytes of the connection that the program has read from the kernel.
pub fn consumed(fd: i32) -> Option<u64> {
    let (info, queued) = received(fd)?;
    let fin = u64::from(AFTER_FIN.contains(&info.state));
    Some(info.bytes_received.saturating_sub(fin).saturating_sub(queued))
}

/// Bytes still to read from the kernel before byte `position` of the connection; nothing when they will never come,
/// because the connection was reset before. `read` is what this end has counted itself: after a reset the kernel's
/// count no longer says whether a FIN is in it.
pub fn before(fd: i32, position: u64, read: u64) -> Option<u64> {
    let Some((info, queued)) = received(fd) else { return Some(0) };
    if info.state != TCP_CLOSE {
        let fin = u64::from(AFTER_FIN.contains(&info.state));
        return Some(position.saturating_sub(info.bytes_received.saturating_sub(fin).saturating_sub(queued)));
    }
    match position.saturating_sub(read) {
        0 => Some(0),
        _ if queued == 0 => None,
        missing => Some(missing),
    }
}

/// The counters and the bytes queued for reading, of one moment.
fn received(fd: i32) -> Option<(TcpInfo, u64)> {
    loop {
        let before = info(fd)?;
        let queued = readable(fd);
        let after = info(fd)?;
        if before.bytes_received == after.bytes_received && before.state == after.state {
            return Some((after, queued));
        }
    }
}

/// The shortest round trip that the kernel has lately seen on a connection, in microseconds; 0 when it has seen none.
pub fn round_trip_us(fd: i32) -> u64 {
    // The kernel's word for "none yet" is all ones.
    info(fd).map_or(0, |info| u64::from(info.min_rtt)).min(MOST_ROUND_TRIP)
}

/// A longer round trip is none, in microseconds.
const MOST_ROUND_TRIP: u64 = 2_000_000;

/// Bytes that were given to the kernel and that the other end's has not acknowledged (SIOCOUTQ of tcp(7)).
pub fn unacknowledged(fd: i32) -> u64 {
    sys::ioctl_int(fd, SIOCOUTQ).unwrap_or(0).max(0) as u64
}

/// Bytes that can be read from the kernel at this moment.
pub fn readable(fd: i32) -> u64 {
    sys::ioctl_int(fd, SIOCINQ).unwrap_or(0).max(0) as u64
}

/// Whether the next byte to read is the urgent one (SIOCATMARK of tcp(7)): it is not counted as readable.
pub fn at_urgent_mark(fd: i32) -> bool {
    const SIOCATMARK: u64 = 0x8905;
    sys::ioctl_int(fd, SIOCATMARK) == Ok(1)
}

/// A cheap clock for "has some time passed": ticks of the processor, about 0.3-0.5 ns each.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc exists on every x86-64 processor.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    sys::now_ns()
}

const _: () = assert!(BYTES_ACKED == 120 && BYTES_RECEIVED == 128 && BYTES_SENT == 200);
