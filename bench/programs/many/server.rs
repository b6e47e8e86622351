//! The server: takes its connections, and reads them all until they end.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use anyhow::Result;
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Listener};
use convoy_bench::poll::Poll;
use convoy_bench::warm;

use crate::{Plan, READ_BYTES};

/// What one thread got.
pub(crate) struct Received {
    pub(crate) bytes: u64,
    /// From the first byte to the last end of stream.
    pub(crate) seconds: f64,
}

pub(crate) fn serve(plan: &Plan, listener: &Listener) -> Result<Received> {
    let count = plan.sockets * plan.clients + plan.idle;
    let mut waiter =
        if plan.poll { Waiter::Poll(Poll::default()) } else { Waiter::Epoll(Box::new(Epoll::new()?)) };
    let mut sockets = Vec::with_capacity(count);
    for (index, socket) in warm::accept(listener, count, plan.warm_up())?.into_iter().enumerate() {
        net::set_nonblocking(socket.as_raw_fd())?;
        waiter.add(socket.as_raw_fd(), index)?;
        sockets.push(Some(socket));
    }
    let mut buffer = vec![0; READ_BYTES];
    let (mut open, mut bytes, mut first) = (count, 0_u64, None);
    while open > 0 {
        for n in 0..waiter.wait()? {
            let index = waiter.ready(n);
            let Some(fd) = sockets[index].as_ref().map(OwnedFd::as_raw_fd) else {
                continue;
            };
            match net::read(fd, &mut buffer)? {
                None => {}
                Some(0) => {
                    waiter.remove(fd)?;
                    sockets[index] = None;
                    open -= 1;
                }
                Some(count) => {
                    first.get_or_insert_with(Instant::now);
                    bytes += count as u64;
                    if plan.reply {
                        net::write_all(fd, &buffer[..count])?;
                    }
                }
            }
        }
    }
    let seconds = first.map_or(f64::NAN, |first: Instant| first.elapsed().as_secs_f64());
    Ok(Received { bytes, seconds })
}

/// How the server waits.
enum Waiter {
    Epoll(Box<Epoll>),
    Poll(Poll),
}

impl Waiter {
    fn add(&mut self, fd: RawFd, index: usize) -> std::io::Result<()> {
        match self {
            Self::Epoll(epoll) => epoll.add(fd, index),
            Self::Poll(poll) => {
                poll.add(fd, index);
                Ok(())
            }
        }
    }

    fn remove(&mut self, fd: RawFd) -> std::io::Result<()> {
        match self {
            Self::Epoll(epoll) => epoll.remove(fd),
            Self::Poll(poll) => {
                poll.remove(fd);
                Ok(())
            }
        }
    }

    fn wait(&mut self) -> std::io::Result<usize> {
        match self {
            Self::Epoll(epoll) => epoll.wait(),
            Self::Poll(poll) => poll.wait(),
        }
    }

    fn ready(&self, n: usize) -> usize {
        match self {
            Self::Epoll(epoll) => epoll.ready(n),
            Self::Poll(poll) => poll.ready(n),
        }
    }
}
