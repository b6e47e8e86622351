//! What the engine sleeps by: one epoll instance.

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Signal,
    /// Programs connect.
    Server,
    Peers,
    Rail,
    /// A program rang.
    Doorbell(usize),
    /// A program's socket.
    Program(usize),
}

impl Token {
    fn to_data(self) -> u64 {
        match self {
            Self::Signal => 0,
            Self::Server => 1,
            Self::Peers => 2,
            Self::Rail => 3,
            Self::Doorbell(index) => 4 + 2 * index as u64,
            Self::Program(index) => 5 + 2 * index as u64,
        }
    }

    fn from_data(data: u64) -> Self {
        match data {
            0 => Self::Signal,
            1 => Self::Server,
            2 => Self::Peers,
            3 => Self::Rail,
            even if even % 2 == 0 => Self::Doorbell((even as usize - 4) / 2),
            odd => Self::Program((odd as usize - 5) / 2),
        }
    }
}

pub(super) struct Waiter {
    epoll: OwnedFd,
    wake: OwnedFd,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, wake: eventfd(0, flags)? })
    }

    /// Adds a descriptor. A doorbell is never read: only its edges count, so a program cannot make that block.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let flags = match token {
            Token::Doorbell(_) => epoll::EventFlags::IN | epoll::EventFlags::ET,
            _ => epoll::EventFlags::IN,
        };
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.to_data()), flags)?)
    }

    /// As [`Waiter::add`], for a descriptor that its owner keeps open as long as the engine lives.
    pub(super) fn add_raw(&self, fd: RawFd, token: Token) -> io::Result<()> {
        convoy_runtime::agent::server::watch(self.epoll.as_fd(), fd, token.to_data())
    }

    /// The eventfd by which the control connections wake the engine; added as [`Token::Peers`].
    pub(super) fn make_wake(&self) -> io::Result<OwnedFd> {
        self.add(self.wake.as_fd(), Token::Peers)?;
        self.wake.try_clone()
    }

    /// The control connections are being listened to: they may wake the engine again.
    pub(super) fn empty_wake(&self) {
        let mut count = [0; 8];
        // Nothing to read means that nothing was written.
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // A descriptor that is gone already is out of the set already.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits; whoever has something to say, each once.
    pub(super) fn wait(&self, limit: Duration) -> Vec<Token> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        let limit = rustix::event::Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let count = epoll::wait(self.epoll.as_fd(), &mut events[..], Some(&limit)).unwrap_or(0);
        events.iter().take(count).map(|event| Token::from_data(event.data.u64())).collect()
    }
}
