//! One end of a connection, with one of several ways to wait.

use std::time::Duration;

use convoy_tests::kit::epoll::{ET, Epoll, IN, OUT};
use convoy_tests::kit::{Errno, Outcome, Stream, net, sys};

use super::options::{Options, Random};

/// How a thread waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Io {
    Blocking,
    Poll,
    /// By poll, and before every receive, as libpq.
    Ask,
    Level,
    Edge,
}

impl Io {
    pub fn parse(word: &str) -> Self {
        match word {
            "blocking" => Self::Blocking,
            "poll" => Self::Poll,
            "ask" => Self::Ask,
            "level" => Self::Level,
            "edge" => Self::Edge,
            _ => panic!("nobody waits by {word}"),
        }
    }
}

/// Sizes of sends and receives are up to this power of two.
const LARGEST: u64 = 18;

/// One end, used by one thread. A connection may have two, one for each direction.
pub struct End {
    pub stream: Stream,
    pub random: Random,
    io: Io,
    epoll: Option<Epoll>,
    pace: Option<Duration>,
}

impl End {
    /// Makes a connected descriptor ready for the way of waiting.
    pub fn prepare(fd: i32, options: &Options) {
        if options.no_delay {
            net::no_delay(fd);
        }
        sys::set_nonblocking(fd, options.io != Io::Blocking);
    }

    pub fn new(stream: Stream, options: &Options) -> Self {
        let epoll = match options.io {
            Io::Blocking | Io::Poll | Io::Ask => None,
            Io::Level | Io::Edge => Some(Epoll::new()),
        };
        if let Some(epoll) = &epoll {
            let edge = if options.io == Io::Edge { ET } else { 0 };
            epoll.add(stream.fd, IN | OUT | edge, 0).unwrap();
        }
        let random = Random::new(options.seed ^ (stream.out.seed << 8));
        Self { stream, random, io: options.io, epoll, pace: options.pace }
    }

    fn wait(&self, for_input: bool) {
        match (&self.epoll, self.io) {
            (Some(epoll), Io::Edge) => drop(epoll.wait(1, -1).unwrap()),
            (Some(epoll), _) => {
                epoll.modify(self.stream.fd, if for_input { IN } else { OUT }, 0).unwrap();
                epoll.wait(1, -1).unwrap();
            }
            (None, _) => {
                let events = if for_input { libc::POLLIN } else { libc::POLLOUT };
                sys::poll_one(self.stream.fd, events, -1);
            }
        }
    }

    /// Receives something of random size; 0 at the end.
    pub fn receive(&mut self) -> Outcome {
        let most = self.random.size(LARGEST);
        self.receive_most(most)
    }

    /// Receives at most so much.
    pub fn receive_most(&mut self, most: usize) -> Outcome {
        if self.io == Io::Ask {
            self.wait(true);
        }
        loop {
            match self.stream.recv_with(most, 0) {
                Err(Errno(libc::EAGAIN)) => self.wait(true),
                result => return result,
            }
        }
    }

    /// Receives exactly so much.
    pub fn receive_all(&mut self, count: usize) -> Result<(), String> {
        let mut left = count;
        while left > 0 {
            match self.receive_most(left) {
                Ok(0) => return Err("end".into()),
                Ok(count) => left -= count,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Sends exactly so much, in one call if it can be.
    pub fn send_all(&mut self, count: usize) -> Result<(), String> {
        let mut left = count;
        while left > 0 {
            match self.stream.send_with(left, 0) {
                Ok(count) => left -= count,
                Err(Errno(libc::EAGAIN)) => self.wait(false),
                Err(error) => return Err(error.to_string()),
            }
        }
        if let Some(pace) = self.pace {
            std::thread::sleep(pace);
        }
        Ok(())
    }

    /// Sends in pieces of random size until there is enough; fewer when the other end is gone.
    pub fn send_until(&mut self, done: impl Fn(u64) -> bool, limit: u64) -> Result<(), String> {
        while !done(self.stream.out.position) {
            let piece = self.random.size(LARGEST);
            let room = usize::try_from(limit - self.stream.out.position).unwrap_or(usize::MAX);
            self.send_all(piece.min(room))?;
        }
        Ok(())
    }

    /// Sends so many bytes in pieces of random size.
    pub fn send_bytes(&mut self, bytes: u64) -> Result<(), String> {
        self.send_until(|sent| sent >= bytes, bytes)
    }

    /// Receives until the end; how that came about.
    pub fn receive_to_end(&mut self) -> String {
        loop {
            match self.receive() {
                Ok(0) => return "end".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }
}
