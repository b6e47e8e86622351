//! Convoy's own descriptors in a listing of the process's descriptors: left out, because programs count what they find
//! there to see whether they leak, and end what they do not know. The kernel made the list a moment ago: what a thread of
//! Convoy's had just opened then is marked, or closed, before it is judged.

use crate::table::{self, Entry};
use crate::{confine, sys, wait};
use core::ffi::{CStr, c_int};

/// Where a process finds its own descriptors; `/dev/fd` leads here as well.
const OWN: &CStr = c"/proc/self/fd";

/// Whether `name`, found in the open directory `directory`, is to be left out.
pub fn hides(directory: c_int, name: &CStr) -> bool {
    private(name) && sys::fstat(directory).is_ok_and(|found| is_own(&found))
}

/// Whether `name`, found in the directory `path`, is to be left out.
pub fn hides_at(path: &CStr, name: &CStr) -> bool {
    private(name) && sys::stat(path).is_ok_and(|found| is_own(&found))
}

/// How long a listing waits for those who have descriptors in hand.
const IN_HAND_NS: u64 = 100_000_000;

fn private(name: &CStr) -> bool {
    !confine::confined() && number(name.to_bytes()).is_some_and(is_private)
}

fn is_private(fd: c_int) -> bool {
    if !wait::patiently(IN_HAND_NS, sys::is_hand_empty) {
        sys::give_up_hand();
    }
    match table::get(fd) {
        Entry::Private => true,
        Entry::None => !sys::is_open(fd),
        Entry::Socket(_) | Entry::Epoll(_) => false,
    }
}

fn is_own(found: &libc::stat) -> bool {
    sys::stat(OWN).is_ok_and(|own| (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino))
}

fn number(name: &[u8]) -> Option<c_int> {
    core::str::from_utf8(name).ok()?.parse().ok()
}
