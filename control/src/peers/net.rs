//! Sockets with their options, and waiting with a deadline. Not here: what goes over them.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const BACKLOG: i32 = 256;

/// A listening socket that does not block. An IPv6 one takes IPv4 connections too.
pub(super) fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Connects to `address` from `source` within `limit`, unless `stop` becomes readable. The stream blocks.
pub(super) fn dial(
    address: SocketAddr,
    source: Option<IpAddr>,
    limit: Duration,
    stop: &OwnedFd,
) -> io::Result<TcpStream> {
    let deadline = Instant::now() + limit;
    let socket = socket(address)?;
    if let Some(source) = source {
        bind(&socket, &SocketAddr::new(source, 0))?;
    }
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let mut polled = [PollFd::new(&socket, PollFlags::OUT), PollFd::new(stop, PollFlags::IN)];
            wait(&mut polled, Some(deadline))?;
            if !polled[1].revents().is_empty() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the agent is shutting down"));
            }
            if polled[0].revents().is_empty() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Waits until one of `polled` has something or `deadline` has passed.
pub(super) fn wait(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(polled, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The options of every connection. Data that the other end does not confirm for `dead` ends it.
pub(super) fn prepare(stream: &TcpStream, dead: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(dead.as_millis()).unwrap_or(u32::MAX).max(1);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// An eventfd that does not block.
pub(super) fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes an eventfd readable.
pub(super) fn signal(event: impl AsFd) {
    // A full counter is readable already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Makes an eventfd not readable.
pub(super) fn reset(event: impl AsFd) {
    // Empty is what it shall be.
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}

/// A stream whose reads and writes all end at one deadline, however slowly bytes drip.
pub(super) struct Timed<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        (&*self.stream).read(into)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        (&*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
