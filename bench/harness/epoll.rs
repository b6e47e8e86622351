//! A level-triggered epoll instance with an index per descriptor.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const BATCH: usize = 64;

/// An epoll descriptor and room for what one `epoll_wait` reports.
pub struct Epoll {
    descriptor: OwnedFd,
    events: [libc::epoll_event; BATCH],
}

impl Epoll {
    /// # Errors
    /// What epoll_create1 gives.
    pub fn new() -> Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: epoll_create1 has just made this descriptor and nobody else holds it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { descriptor, events: [libc::epoll_event { events: 0, u64: 0 }; BATCH] })
    }

    /// Watches `fd` for reading, level-triggered; `index` comes back from [`Self::wait`].
    ///
    /// # Errors
    /// What epoll_ctl gives.
    pub fn add(&self, fd: RawFd, index: usize) -> Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        let epoll = self.descriptor.as_raw_fd();
        // SAFETY: one live event.
        let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// What epoll_ctl gives.
    pub fn remove(&self, fd: RawFd) -> Result<()> {
        let none = std::ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL takes no event.
        let result = unsafe { libc::epoll_ctl(self.descriptor.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none) };
        if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits without limit and gives the number of ready entries, to be read with [`Self::ready`].
    ///
    /// # Errors
    /// What epoll_wait gives, except EINTR, which counts as nothing ready.
    pub fn wait(&mut self) -> Result<usize> {
        let epoll = self.descriptor.as_raw_fd();
        // SAFETY: the array is live and its length is given.
        let count = unsafe { libc::epoll_wait(epoll, self.events.as_mut_ptr(), BATCH as i32, -1) };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINTR) => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The index given to [`Self::add`] of the n-th ready entry.
    #[must_use]
    pub fn ready(&self, n: usize) -> usize {
        self.events[n].u64 as usize
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
