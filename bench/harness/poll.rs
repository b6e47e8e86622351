//! Waiting by poll(2), with the same face as [`crate::epoll`]: for libraries that do not know epoll.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::RawFd;

/// Descriptors to wait for, with an index each.
#[derive(Default)]
pub struct Poll {
    set: Vec<libc::pollfd>,
    indices: Vec<usize>,
    ready: Vec<usize>,
}

impl Poll {
    /// Watches `fd` for reading; `index` comes back from [`Self::wait`].
    pub fn add(&mut self, fd: RawFd, index: usize) {
        self.set.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        self.indices.push(index);
    }

    /// Stops watching `fd`.
    pub fn remove(&mut self, fd: RawFd) {
        if let Some(position) = self.set.iter().position(|entry| entry.fd == fd) {
            self.set.swap_remove(position);
            self.indices.swap_remove(position);
        }
    }

    /// Waits without limit and gives the number of ready entries, to be read with [`Self::ready`].
    ///
    /// # Errors
    /// What poll gives, except EINTR, which counts as nothing ready.
    pub fn wait(&mut self) -> Result<usize> {
        // SAFETY: the array is live and its length is given.
        let count = unsafe { libc::poll(self.set.as_mut_ptr(), self.set.len() as libc::nfds_t, -1) };
        if count < 0 {
            let error = Error::last_os_error();
            return if error.kind() == ErrorKind::Interrupted { Ok(0) } else { Err(error) };
        }
        self.ready.clear();
        let ready = self.set.iter().zip(&self.indices).filter(|(entry, _)| entry.revents != 0);
        self.ready.extend(ready.map(|(_, index)| *index));
        Ok(self.ready.len())
    }

    /// The index of the `n`-th ready entry.
    #[must_use]
    pub fn ready(&self, n: usize) -> usize {
        self.ready[n]
    }
}
