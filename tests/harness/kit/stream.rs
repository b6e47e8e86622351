//! A connected descriptor with its two directions, and what both a case and a puppet do with one.

use libc::c_int;

use super::hosts::Hosts;
use super::net::{self, Address};
use super::pattern::Flow;
use super::{Errno, Outcome, sys};

/// Small exchanges that let a connection move to the channel before a case begins.
pub const WARM_UP: usize = 20;
/// The same between hosts, where two agents have to agree on it.
pub const WARM_UP_FAR: usize = 200;
/// Bytes each way in one of those exchanges.
pub const WARM_UP_BYTES: usize = 8;
/// Milliseconds in which what is between two hosts arrives, so that there is room again.
const SETTLING_MS: i32 = 100;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The socket.
    pub fd: c_int,
    /// What this end sends.
    pub out: Flow,
    /// What this end receives.
    pub inn: Flow,
}

impl Stream {
    /// The end of the connection with this number; one end connects, the other accepts.
    pub fn new(fd: c_int, number: u64, connects: bool) -> Self {
        let (one, two) = (Flow::new(2 * number + 1), Flow::new(2 * number + 2));
        if connects { Self { fd, out: one, inn: two } } else { Self { fd, out: two, inn: one } }
    }

    /// One `send` of the next bytes.
    pub fn send_with(&mut self, count: usize, flags: c_int) -> Outcome {
        self.put(count, |fd, buffer| sys::send(fd, buffer, flags))
    }

    /// One sending call of any kind with the next bytes.
    pub fn put(&mut self, count: usize, call: impl FnOnce(c_int, &[u8]) -> Outcome) -> Outcome {
        let result = call(self.fd, &self.out.peek(count));
        if let Ok(sent) = result {
            assert!(sent <= count, "{sent} bytes sent of {count}");
            self.out.advance(sent);
        }
        result
    }

    /// One `recv`, verified.
    pub fn recv_with(&mut self, count: usize, flags: c_int) -> Outcome {
        self.get(count, |fd, buffer| sys::recv(fd, buffer, flags))
    }

    /// One receiving call of any kind, verified. The bytes behind the result must be untouched.
    pub fn get(&mut self, count: usize, call: impl FnOnce(c_int, &mut [u8]) -> Outcome) -> Outcome {
        let mut buffer = vec![0xa5; count];
        let result = call(self.fd, &mut buffer);
        let received = result.unwrap_or(0);
        assert!(received <= count, "{received} bytes received of {count}");
        self.inn.accept(&buffer[..received]);
        assert!(
            buffer[received..].iter().all(|&byte| byte == 0xa5),
            "bytes written behind the end of the data"
        );
        result
    }

    /// One `recv` with MSG_PEEK, verified, which leaves the bytes where they are.
    pub fn peek_with(&mut self, count: usize, flags: c_int) -> Outcome {
        let here = self.inn;
        let result = self.recv_with(count, flags | libc::MSG_PEEK);
        self.inn = here;
        result
    }

    /// Sends everything, in calls of at most `piece` bytes; what was sent, and what stopped it.
    pub fn send_all(&mut self, count: usize, piece: usize) -> (usize, Option<Errno>) {
        let mut sent = 0;
        while sent < count {
            match self.send_with(piece.min(count - sent), libc::MSG_NOSIGNAL) {
                Ok(now) => sent += now,
                Err(error) => return (sent, Some(error)),
            }
        }
        (sent, None)
    }

    /// Receives exactly so much, in calls of at most `piece` bytes; what came, and why it was not all.
    pub fn recv_all(&mut self, count: usize, piece: usize) -> (usize, Option<Stop>) {
        let mut received = 0;
        while received < count {
            match self.recv_with(piece.min(count - received), 0) {
                Ok(0) => return (received, Some(Stop::End)),
                Ok(now) => received += now,
                Err(error) => return (received, Some(Stop::Error(error))),
            }
        }
        (received, None)
    }

    /// Waits until so many bytes can be received without blocking (or the stream has ended).
    pub fn await_bytes(&mut self, count: usize) {
        loop {
            let here = self.peek_with(count, libc::MSG_DONTWAIT);
            match here {
                Ok(ready) if ready == count || ready == 0 => return,
                Ok(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(Errno(libc::EAGAIN)) => {
                    sys::poll_one(self.fd, libc::POLLIN, -1);
                }
                Err(_) => return,
            }
        }
    }

    /// Half of a small exchange, the end that begins.
    pub fn ping(&mut self, rounds: usize, bytes: usize) {
        for round in 0..rounds {
            assert_eq!(self.send_all(bytes, bytes), (bytes, None), "ping {round}");
            assert_eq!(self.recv_all(bytes, bytes), (bytes, None), "answer to ping {round}");
        }
    }

    /// The end that answers.
    pub fn pong(&mut self, rounds: usize, bytes: usize) {
        for round in 0..rounds {
            assert_eq!(self.recv_all(bytes, bytes), (bytes, None), "wait for ping {round}");
            assert_eq!(self.send_all(bytes, bytes), (bytes, None), "answer {round}");
        }
    }

    /// Sends and receives so many bytes at the same time from one thread, with nonblocking calls and `poll`.
    pub fn both(&mut self, send: usize, receive: usize, piece: usize) {
        let (mut sent, mut received) = (0, 0);
        while sent < send || received < receive {
            let wanted = if sent < send { libc::POLLOUT } else { 0 }
                | if received < receive { libc::POLLIN } else { 0 };
            let ready = sys::poll_one(self.fd, wanted, -1);
            if ready & libc::POLLOUT != 0 && sent < send {
                match self.send_with(piece.min(send - sent), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
                    Ok(now) => sent += now,
                    Err(error) => assert_eq!(error, Errno(libc::EAGAIN), "send after {sent} bytes"),
                }
            }
            if ready & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 && received < receive {
                match self.recv_with(piece.min(receive - received), libc::MSG_DONTWAIT) {
                    Ok(0) => panic!("end after {received} bytes of {receive}"),
                    Ok(now) => received += now,
                    Err(error) => assert_eq!(error, Errno(libc::EAGAIN), "receive after {received} bytes"),
                }
            }
        }
    }

    /// Fills the way to the other end until a nonblocking `send` has no room, nor gets any; how many bytes that took.
    pub fn fill_up(&mut self, piece: usize) -> usize {
        let on_its_way = if Hosts::from_environment().is_some() { SETTLING_MS } else { 0 };
        let mut sent = 0;
        loop {
            match self.send_with(piece, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
                Ok(now) => sent += now,
                Err(error) => {
                    assert_eq!(error, Errno(libc::EAGAIN), "send after {sent} bytes");
                    if sys::poll_one(self.fd, libc::POLLOUT, on_its_way) == 0 {
                        return sent;
                    }
                }
            }
        }
    }
}

/// Why a stream gave fewer bytes than were wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The other end has finished.
    End,
    /// A call failed.
    Error(Errno),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::End => out.write_str("end"),
            Self::Error(error) => error.fmt(out),
        }
    }
}

/// A count, and what stopped it, in words.
pub fn told<S: std::fmt::Display>((count, stop): (usize, Option<S>)) -> String {
    match stop {
        Some(stop) => format!("{count} then {stop}"),
        None => count.to_string(),
    }
}

/// Two ends in one process, connected without a puppet.
pub fn pair(listener: c_int, client: c_int, number: u64, address: &Address) -> (Stream, Stream) {
    net::connect(client, address).unwrap();
    let server = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
    net::no_delay(client);
    net::no_delay(server);
    (Stream::new(client, number, true), Stream::new(server, number, false))
}

/// Sends back and forth between two ends, in one thread.
pub fn chat(one: &mut Stream, two: &mut Stream, rounds: usize, size: usize) {
    for _ in 0..rounds {
        assert_eq!(one.send_all(size, size), (size, None));
        assert_eq!(two.recv_all(size, size), (size, None));
        assert_eq!(two.send_all(size, size), (size, None));
        assert_eq!(one.recv_all(size, size), (size, None));
    }
}
