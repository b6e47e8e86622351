//! What travels on a stream, both ways, every byte of it checked at its position.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use convoy_tests::kit::epoll::{self, Epoll};
use convoy_tests::kit::{Errno, Outcome, Random, Stream, pattern, sys};

/// How a stream is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Blocking,
    Poll,
    Edge,
    /// One thread sends while another receives.
    Duplex,
}

/// One after the other.
pub const STYLES: [Style; 4] = [Style::Blocking, Style::Poll, Style::Edge, Style::Duplex];

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In order, between two messages.
    End,
    /// In the middle of one.
    Early,
    Error(Errno),
    /// A byte was not what it should have been.
    Wrong(u64),
}

/// What several threads count together.
#[derive(Default)]
pub struct Tally {
    /// Bytes that were received and right.
    pub checked: AtomicU64,
    /// Set when the end that begins is to stop.
    pub stop: AtomicBool,
}

/// Exchanges messages until the other end or this one (when it `begins`) stops.
pub fn exchange(stream: &mut Stream, style: Style, begins: bool, tally: &Tally) -> Fate {
    let fate = match style {
        Style::Duplex => duplex(*stream, tally),
        _ => Turns::new(stream, style, tally).run(begins),
    };
    fate.err().unwrap_or(Fate::End)
}

/// The sizes of messages, alike at both ends.
struct Sizes(Random);

impl Sizes {
    fn next(&mut self) -> usize {
        let most = [64, 64, 64, 300, 300, 5000, 20_000, 60_000][self.0.below(8) as usize];
        1 + self.0.below(most) as usize
    }
}

/// A pause now and then, so that the other end has to sleep.
fn rest(random: &mut Random) {
    if random.below(16) == 0 {
        std::thread::sleep(Duration::from_micros(random.below(4000)));
    }
}

/// Message and answer of the same size.
struct Turns<'a> {
    stream: &'a mut Stream,
    tally: &'a Tally,
    style: Style,
    epoll: Option<Epoll>,
}

impl<'a> Turns<'a> {
    fn new(stream: &'a mut Stream, style: Style, tally: &'a Tally) -> Self {
        sys::set_nonblocking(stream.fd, style != Style::Blocking);
        let epoll = (style == Style::Edge).then(|| {
            let epoll = Epoll::new();
            epoll.add(stream.fd, epoll::IN | epoll::OUT | epoll::RDHUP | epoll::ET, 0).unwrap();
            epoll
        });
        Self { stream, tally, style, epoll }
    }

    fn run(mut self, begins: bool) -> Result<(), Fate> {
        let mut sizes = Sizes(Random::new(self.stream.out.seed ^ self.stream.inn.seed));
        let mut pauses = Random::new(self.stream.out.seed);
        loop {
            let size = sizes.next();
            if begins {
                if self.tally.stop.load(Ordering::Relaxed) {
                    sys::shutdown(self.stream.fd, libc::SHUT_WR).map_err(Fate::Error)?;
                    return self.receive(1).err().filter(|fate| *fate != Fate::End).map_or(Ok(()), Err);
                }
                rest(&mut pauses);
                self.send(size)?;
                self.receive(size)?;
            } else {
                self.receive(size)?;
                self.send(size)?;
            }
        }
    }

    fn send(&mut self, size: usize) -> Result<(), Fate> {
        let mut left = size;
        while left > 0 {
            match send_next(self.stream, left) {
                Ok(sent) => left -= sent,
                Err(Errno(libc::EAGAIN)) => self.wait(libc::POLLOUT),
                Err(error) => return Err(Fate::Error(error)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, size: usize) -> Result<(), Fate> {
        let mut left = size;
        while left > 0 {
            match receive_next(self.stream, left, self.tally)? {
                Ok(0) => return Err(if left == size { Fate::End } else { Fate::Early }),
                Ok(received) => left -= received,
                Err(Errno(libc::EAGAIN)) => self.wait(libc::POLLIN),
                Err(error) => return Err(Fate::Error(error)),
            }
        }
        Ok(())
    }

    /// Without a limit: a wake-up that is lost is found by who watches this.
    fn wait(&self, events: i16) {
        match &self.epoll {
            Some(epoll) => drop(epoll.wait(4, -1)),
            None => assert_ne!(self.style, Style::Blocking, "EAGAIN"),
        }
        if self.epoll.is_none() {
            sys::poll_one(self.stream.fd, events, -1);
        }
    }
}

fn send_next(stream: &mut Stream, count: usize) -> Outcome {
    let result = sys::send(stream.fd, &stream.out.peek(count), libc::MSG_NOSIGNAL);
    stream.out.advance(result.unwrap_or(0));
    result
}

/// Bytes behind a buffer that nobody may touch.
const BEHIND: usize = 64;

fn receive_next(stream: &mut Stream, count: usize, tally: &Tally) -> Result<Outcome, Fate> {
    let mut buffer = vec![0xa5; count + BEHIND];
    let result = sys::recv(stream.fd, &mut buffer[..count], 0);
    let received = result.unwrap_or(0);
    assert!(received <= count, "{received} bytes received of {count}");
    // A call that meets a lie may have filled more of its buffer than it says; never what is not its buffer.
    assert!(buffer[count..].iter().all(|byte| *byte == 0xa5), "bytes behind the buffer");
    if let Some(at) = pattern::mismatch(stream.inn.seed, stream.inn.position, &buffer[..received]) {
        return Err(Fate::Wrong(at));
    }
    stream.inn.advance(received);
    tally.checked.fetch_add(received as u64, Ordering::Relaxed);
    Ok(result)
}

/// Each direction as fast as it goes, in two threads.
fn duplex(stream: Stream, tally: &Tally) -> Result<(), Fate> {
    sys::set_nonblocking(stream.fd, false);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_on(stream, tally, &over));
        let received = receive_to_end(stream, tally);
        over.store(true, Ordering::Relaxed);
        if received.is_err() {
            // Else the sender might wait for ever for somebody who reads no more.
            let _ = sys::shutdown(stream.fd, libc::SHUT_RDWR);
        }
        received.and(sender.join().expect("the sender"))
    })
}

fn send_on(mut stream: Stream, tally: &Tally, over: &AtomicBool) -> Result<(), Fate> {
    let mut sizes = Sizes(Random::new(stream.out.seed));
    let mut pauses = sizes.0.clone();
    while !tally.stop.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
        rest(&mut pauses);
        match send_next(&mut stream, sizes.next()) {
            Ok(_) => {}
            Err(error) => return Err(Fate::Error(error)),
        }
    }
    sys::shutdown(stream.fd, libc::SHUT_WR).map(drop).map_err(Fate::Error)
}

fn receive_to_end(mut stream: Stream, tally: &Tally) -> Result<(), Fate> {
    let mut sizes = Sizes(Random::new(stream.inn.seed));
    loop {
        match receive_next(&mut stream, sizes.next(), tally)? {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Fate::Error(error)),
        }
    }
}
