//! Signals as events: SIGTERM and SIGINT end the agent, SIGHUP makes it read its policy again.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Signals {
    wake: UnixStream,
    end: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// What signals have asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) end: bool,
    /// The policy shall be read again.
    pub(super) reload: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let flag = || Arc::new(AtomicBool::new(false));
        let (end, reload) = (flag(), flag());
        // The flag first: it is set when the byte arrives.
        for (signal, flag) in [(SIGTERM, &end), (SIGINT, &end), (SIGHUP, &reload)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { wake, end, reload })
    }

    /// What came since the last call.
    pub(super) fn take(&self) -> Asked {
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        let take = |flag: &AtomicBool| flag.swap(false, Ordering::SeqCst);
        Asked { end: take(&self.end), reload: take(&self.reload) }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
