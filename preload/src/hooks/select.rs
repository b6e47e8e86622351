//! select and pselect, as a poll over the descriptors in the sets. Sets without a tracked descriptor go to
//! the kernel as they are.

use core::ffi::{c_int, c_ulong};
use core::ptr;

use convoy_runtime::{
    api::{self, Handled},
    sys,
};
use libc::{fd_set, pollfd, sigset_t, timespec, timeval};
use redhook::hook;

use crate::{errno, pointer};

resolve! {
    select __select pselect
}

/// What each set asks of poll, and which answers put a descriptor into the set: read, write, except.
const ASKS: [i16; 3] = [
    libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND,
    libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND,
    libc::POLLPRI,
];
const GRANTS: [i16; 3] = [ASKS[0] | libc::POLLHUP | libc::POLLERR, ASKS[1] | libc::POLLERR, ASKS[2]];

/// Sets up to this many descriptors need no memory from the heap.
const ON_STACK: usize = 64;
const BITS: usize = c_ulong::BITS as usize;

/// The three sets of a select call: arrays of `count` bits, which may be longer than an fd_set.
#[derive(Clone, Copy)]
pub(crate) struct Sets {
    words: [*mut c_ulong; 3],
    count: usize,
}

impl Sets {
    /// `None` for a negative count.
    pub(crate) fn new(count: c_int, sets: [*mut fd_set; 3]) -> Option<Self> {
        Some(Self { words: sets.map(<*mut fd_set>::cast), count: usize::try_from(count).ok()? })
    }

    /// One word of one set, without the bits beyond the count.
    fn word(&self, set: usize, index: usize) -> c_ulong {
        let words = self.words[set];
        if words.is_null() {
            return 0;
        }
        let valid = self.count - index * BITS;
        let mask = if valid >= BITS { c_ulong::MAX } else { (1 << valid) - 1 };
        // SAFETY: the program's array holds `count` bits.
        unsafe { *words.add(index) & mask }
    }

    /// Calls `visit` with every descriptor in any set and what is asked of it; stops when it says false.
    fn each(&self, mut visit: impl FnMut(c_int, i16) -> bool) {
        for index in 0..self.count.div_ceil(BITS) {
            let words = [self.word(0, index), self.word(1, index), self.word(2, index)];
            let mut any = words[0] | words[1] | words[2];
            while any != 0 {
                let bit = any.trailing_zeros();
                any &= any - 1;
                let asks =
                    (0..3).filter(|&set| words[set] >> bit & 1 == 1).fold(0, |sum, set| sum | ASKS[set]);
                if !visit((index * BITS) as c_int + bit as c_int, asks) {
                    return;
                }
            }
        }
    }

    /// True when a tracked descriptor is in one of the sets.
    pub(crate) fn any_tracked(&self) -> bool {
        let mut found = false;
        self.each(|fd, _| {
            found = api::tracked(fd);
            !found
        });
        found
    }

    /// Empties the sets.
    fn clear(&self) {
        for words in self.words.into_iter().filter(|words| !words.is_null()) {
            // SAFETY: the program's array holds `count` bits.
            unsafe { ptr::write_bytes(words, 0, self.count.div_ceil(BITS)) };
        }
    }

    /// Puts `fd` into the sets whose question is answered by `events`. Gives the number of sets.
    fn grant(&self, fd: c_int, asked: i16, events: i16) -> usize {
        let (index, bit) = (fd as usize / BITS, fd as usize % BITS);
        let mut granted = 0;
        for set in (0..3).filter(|&set| wanted(set, asked) && events & GRANTS[set] != 0) {
            // SAFETY: `fd` came out of this set, which holds it.
            unsafe { *self.words[set].add(index) |= 1 << bit };
            granted += 1;
        }
        granted
    }
}

fn wanted(set: usize, asked: i16) -> bool {
    asked & ASKS[set] != 0
}

fn granted(entry: &pollfd) -> bool {
    (0..3).any(|set| wanted(set, entry.events) && entry.revents & GRANTS[set] != 0)
}

/// The moment at which `timeout`, starting now, is over.
pub(crate) fn deadline(timeout: &timespec) -> timespec {
    let now = sys::now();
    let nanoseconds = now.tv_nsec.saturating_add(timeout.tv_nsec);
    timespec {
        tv_sec: now.tv_sec.saturating_add(timeout.tv_sec).saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

/// The time left until `deadline`, zero when it is past.
pub(crate) fn time_until(deadline: &timespec) -> timespec {
    let now = sys::now();
    let mut left = timespec {
        tv_sec: deadline.tv_sec.saturating_sub(now.tv_sec),
        tv_nsec: deadline.tv_nsec - now.tv_nsec,
    };
    if left.tv_nsec < 0 {
        left.tv_sec -= 1;
        left.tv_nsec += 1_000_000_000;
    }
    if left.tv_sec < 0 { timespec { tv_sec: 0, tv_nsec: 0 } } else { left }
}

/// The sets as poll entries. A program may give a count beyond the table the kernel has for it, with whatever
/// memory lies behind its sets; the kernel ignores that part, so bits beyond an fd_set count only for open
/// descriptors.
fn entries(sets: &Sets, mut add: impl FnMut(pollfd)) {
    sets.each(|fd, events| {
        if (fd as usize) < libc::FD_SETSIZE || sys::fcntl(fd, libc::F_GETFD, 0).is_ok() {
            add(pollfd { fd, events, revents: 0 });
        }
        true
    });
}

/// Polls until an entry is ready in the sense of select. poll also reports what select did not ask for
/// (POLLHUP on a descriptor in the write set only); such entries are left out from then on.
fn poll_until_granted(set: &mut [pollfd], end: Option<&timespec>, mask: *const sigset_t) -> Handled {
    loop {
        let left = end.map(time_until);
        // SAFETY: a local set and timeout, the program's mask.
        let ready = unsafe { api::poll(set.as_mut_ptr(), set.len(), pointer::or_null(left.as_ref()), mask) }?;
        match ready {
            Ok(0) => return Some(Ok(0)),
            Ok(_) if set.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) => {
                return Some(Err(libc::EBADF));
            }
            Ok(_) if set.iter().any(granted) => return Some(ready),
            Ok(_) => {
                for entry in set.iter_mut().filter(|entry| entry.revents != 0) {
                    entry.fd = -1;
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// select over sets that hold a tracked descriptor.
fn wait_over(sets: &Sets, set: &mut [pollfd], end: Option<&timespec>, mask: *const sigset_t) -> Handled {
    let answer = poll_until_granted(set, end, mask)?;
    if answer.is_ok() {
        sets.clear();
    }
    Some(answer.map(|_| {
        let ready = set.iter().filter(|entry| entry.fd >= 0);
        ready.map(|entry| sets.grant(entry.fd, entry.events, entry.revents)).sum()
    }))
}

/// select until `end`; `None` when no tracked descriptor is in the sets.
pub(crate) fn wait(sets: &Sets, end: Option<&timespec>, mask: *const sigset_t) -> Handled {
    let mut stack = [pollfd { fd: -1, events: 0, revents: 0 }; ON_STACK];
    let mut count = 0;
    entries(sets, |entry| {
        if let Some(slot) = stack.get_mut(count) {
            *slot = entry;
        }
        count += 1;
    });
    if let Some(set) = stack.get_mut(..count) {
        return wait_over(sets, set, end, mask);
    }
    let mut heap = api::Heap::new(|| Vec::with_capacity(count));
    entries(sets, |entry| heap.push(entry));
    wait_over(sets, &mut heap, end, mask)
}

/// select with its timeout, which Linux sets to the time left.
///
/// # Safety
/// The sets hold `count` bits or are null, `timeout` is null or valid.
pub(crate) unsafe fn wait_timeval(count: c_int, sets: [*mut fd_set; 3], timeout: *mut timeval) -> Handled {
    let sets = Sets::new(count, sets).filter(Sets::any_tracked)?;
    // SAFETY: null or valid, by the caller's promise.
    let Some(timeout) = (unsafe { timeout.as_mut() }) else {
        return wait(&sets, None, ptr::null());
    };
    let end = match pointer::from_timeval(timeout) {
        Ok(length) => deadline(&length),
        Err(error) => return Some(Err(error)),
    };
    let answer = wait(&sets, Some(&end), ptr::null());
    let left = time_until(&end);
    *timeout = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 };
    answer
}

/// pselect with a timeout that stays as it is.
///
/// # Safety
/// The sets hold `count` bits or are null, `timeout` and `mask` are null or valid.
pub(crate) unsafe fn wait_timespec(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout: *const timespec,
    mask: *const sigset_t,
) -> Handled {
    let sets = Sets::new(count, sets).filter(Sets::any_tracked)?;
    // SAFETY: null or valid, by the caller's promise.
    if !unsafe { pointer::timespec_valid(timeout) } {
        return Some(Err(libc::EINVAL));
    }
    // SAFETY: as above.
    let end = unsafe { timeout.as_ref() }.map(deadline);
    wait(&sets, end.as_ref(), mask)
}

macro_rules! select_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(
                count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval
            ) -> c_int => $hook {
                // SAFETY: the program's sets and timeout.
                if let Some(result) = unsafe { wait_timeval(count, [read, write, except], timeout) } {
                    return errno::int(result);
                }
                original!($name(count, read, write, except, timeout))
            }
        }
    };
}
select_hook!(select => on_select);
select_hook!(__select => on_select_alias);

hook! {
    unsafe fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t
    ) -> c_int => on_pselect {
        // SAFETY: the program's sets, timeout and mask.
        if let Some(result) = unsafe { wait_timespec(count, [read, write, except], timeout, mask) } {
            return errno::int(result);
        }
        original!(pselect(count, read, write, except, timeout, mask))
    }
}
