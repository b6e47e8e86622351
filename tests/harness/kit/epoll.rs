//! An epoll descriptor, and its events as words.
#![allow(clippy::cast_sign_loss)]

use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_int, epoll_event};

use super::{Outcome, sys};

/// An epoll descriptor, closed at the end of its life.
pub struct Epoll {
    /// The descriptor.
    pub fd: c_int,
    owner: Option<OwnedFd>,
}

/// Readable.
pub const IN: u32 = libc::EPOLLIN as u32;
/// Writable.
pub const OUT: u32 = libc::EPOLLOUT as u32;
/// The other end has finished sending.
pub const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Both directions have ended.
pub const HUP: u32 = libc::EPOLLHUP as u32;
/// An error is waiting.
pub const ERR: u32 = libc::EPOLLERR as u32;
/// Edge-triggered.
pub const ET: u32 = 1 << 31;
/// One event, then silence until MOD.
pub const ONESHOT: u32 = libc::EPOLLONESHOT as u32;
/// One of several waiters is enough.
pub const EXCLUSIVE: u32 = 1 << 28;

impl Epoll {
    /// `epoll_create1`.
    pub fn new() -> Self {
        // SAFETY: no memory is involved.
        let fd = sys::descriptor(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        Self {
            fd,
            // SAFETY: the descriptor is new, and nobody else closes it.
            owner: Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }

    /// Closes it with a plain `close`.
    pub fn close(mut self) -> Outcome {
        std::mem::forget(self.owner.take());
        sys::close(self.fd)
    }

    /// `epoll_ctl`.
    pub fn control(&self, operation: c_int, fd: c_int, events: u32, data: u64) -> Outcome {
        let mut event = epoll_event { events, u64: data };
        // SAFETY: a valid event.
        sys::status(unsafe { libc::epoll_ctl(self.fd, operation, fd, &raw mut event) })
    }

    /// EPOLL_CTL_ADD.
    pub fn add(&self, fd: c_int, events: u32, data: u64) -> Outcome {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(&self, fd: c_int, events: u32, data: u64) -> Outcome {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// EPOLL_CTL_DEL.
    pub fn delete(&self, fd: c_int) -> Outcome {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// `epoll_wait` with room for so many events: data and events of each, sorted by data.
    ///
    /// # Errors
    /// The call's error number.
    pub fn wait(&self, room: usize, milliseconds: c_int) -> Result<Vec<(u64, u32)>, super::Errno> {
        let mut events = vec![epoll_event { events: 0, u64: 0 }; room];
        let (pointer, count) = (events.as_mut_ptr(), c_int::try_from(room).unwrap());
        // SAFETY: room for the number of events that is given.
        let found = sys::status(unsafe { libc::epoll_wait(self.fd, pointer, count, milliseconds) })?;
        let mut found: Vec<(u64, u32)> =
            events[..found].iter().map(|event| (event.u64, event.events)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Waits, and says what came.
    pub fn look(&self, milliseconds: c_int) -> String {
        match self.wait(64, milliseconds) {
            Ok(events) if events.is_empty() => "nothing".into(),
            Ok(events) => {
                let words: Vec<String> =
                    events.iter().map(|(data, bits)| format!("{data:x}:{}", names(*bits))).collect();
                words.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }
}

impl Default for Epoll {
    fn default() -> Self {
        Self::new()
    }
}

/// Events by name.
pub fn names(bits: u32) -> String {
    let known = [
        (IN, "IN"),
        (OUT, "OUT"),
        (RDHUP, "RDHUP"),
        (HUP, "HUP"),
        (ERR, "ERR"),
        (libc::EPOLLPRI as u32, "PRI"),
    ];
    let mut words: Vec<String> =
        known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    let rest = known.iter().fold(bits, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    if words.is_empty() { "none".into() } else { words.join("|") }
}

/// Whether a thread of this process is inside one of the kernel's epoll_wait calls (proc_pid_syscall(5)).
pub fn sleeps(thread: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    let waits = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
    number.is_some_and(|number: libc::c_long| waits.contains(&number))
}
