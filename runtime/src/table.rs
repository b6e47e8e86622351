//! From a descriptor number to what Convoy knows about it: one load and one branch for everybody else's.

use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering};

/// Numbers from here on are never tracked.
pub const CAPACITY: usize = 1 << 20;

/// 0 = not ours; otherwise a kind in the upper two bits and an index below. In .bss: untouched pages cost
/// nothing. Written by the call that makes or ends a descriptor, read by every hook; an entry appears with
/// Release after its object is complete and is read with Acquire.
static TABLE: [AtomicU32; CAPACITY] = [const { AtomicU32::new(0) }; CAPACITY];

const KIND: u32 = 3 << 30;
const SOCKET: u32 = 0;
const EPOLL: u32 = 1 << 30;
const PRIVATE: u32 = 2 << 30;
const INDEX: u32 = !KIND;

/// What stands behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    None,
    /// Index of a socket.
    Socket(u32),
    /// Index of an epoll instance.
    Epoll(u32),
    /// One of Convoy's own.
    Private,
}

impl Entry {
    const fn decode(word: u32) -> Self {
        match word & KIND {
            _ if word == 0 => Self::None,
            SOCKET => Self::Socket((word & INDEX) - 1),
            EPOLL => Self::Epoll(word & INDEX),
            _ => Self::Private,
        }
    }

    const fn encode(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Socket(index) => SOCKET | ((index + 1) & INDEX),
            Self::Epoll(index) => EPOLL | (index & INDEX),
            Self::Private => PRIVATE,
        }
    }
}

/// Any kind of entry; also true for private descriptors, so that close and dup2 come by.
#[inline(always)]
pub fn tracked(fd: i32) -> bool {
    match TABLE.get(fd as u32 as usize) {
        Some(word) => word.load(Ordering::Relaxed) != 0,
        None => false,
    }
}

#[inline]
pub fn get(fd: i32) -> Entry {
    TABLE.get(fd as u32 as usize).map_or(Entry::None, |word| Entry::decode(word.load(Ordering::Acquire)))
}

/// The socket behind `fd`, if it is one.
#[inline]
pub fn socket(fd: i32) -> Option<u32> {
    match get(fd) {
        Entry::Socket(index) => Some(index),
        _ => None,
    }
}

/// Whether `fd` is still the socket that was found before.
#[inline]
pub fn is_socket(fd: i32, index: u32) -> bool {
    let word = TABLE.get(fd as u32 as usize);
    word.is_some_and(|word| word.load(Ordering::Acquire) == Entry::Socket(index).encode())
}

/// Enters `entry`; false when the number is beyond the table (such descriptors stay with the kernel).
pub fn set(fd: i32, entry: Entry) -> bool {
    let Some(word) = TABLE.get(fd as u32 as usize) else {
        return false;
    };
    TOP.fetch_max(fd as u32 + 1, Ordering::Relaxed);
    word.store(entry.encode(), Ordering::Release);
    true
}

/// Takes the entry out.
pub fn take(fd: i32) -> Entry {
    TABLE.get(fd as u32 as usize).map_or(Entry::None, |word| Entry::decode(word.swap(0, Ordering::AcqRel)))
}

/// Every tracked number in `first..=last`, ascending.
pub fn tracked_in(first: u32, last: u32) -> impl Iterator<Item = (i32, Entry)> {
    let end = TOP.load(Ordering::Relaxed).min(last.saturating_add(1)) as usize;
    let start = (first as usize).min(end);
    TABLE.get(start..end).unwrap_or_default().iter().enumerate().filter_map(move |(step, word)| {
        let word = word.load(Ordering::Acquire);
        (word != 0).then(|| ((start + step) as i32, Entry::decode(word)))
    })
}

/// Highest number ever entered, plus one.
static TOP: AtomicU32 = AtomicU32::new(0);

/// A new descriptor of Convoy's own, out of the program's usual range and marked.
pub fn make(make: impl FnOnce() -> sys::Answer<i32>) -> sys::Answer<i32> {
    let _hand = sys::hand();
    adopt(make()?)
}

/// Moves a descriptor of Convoy's own out of the program's usual range and marks it. The caller has it in hand.
pub fn adopt(fd: i32) -> sys::Answer<i32> {
    let moved = copy(fd);
    let _ = sys::close(fd);
    moved
}

/// A copy of a descriptor for Convoy's own use, out of the program's usual range and marked.
pub fn copy(fd: i32) -> sys::Answer<i32> {
    copy_from((sys::descriptor_limit().saturating_sub(1) * 3 / 4).min(4000) as usize, fd)
}

/// A second number for a descriptor of Convoy's own whose number the program wants.
pub fn copy_behind(fd: i32) -> sys::Answer<i32> {
    copy_from(fd as usize + 1, fd)
}

/// A copy under the first free number from `base` on.
fn copy_from(base: usize, fd: i32) -> sys::Answer<i32> {
    let _hand = sys::hand();
    let copy = sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, base)?;
    set(copy, Entry::Private);
    Ok(copy)
}

/// Closes a descriptor that [`adopt`] or [`copy`] gave.
pub fn abandon(fd: i32) {
    let _hand = sys::hand();
    take(fd);
    let _ = sys::close(fd);
}
