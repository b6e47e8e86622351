//! Many sockets between two processes.
//!
//! `--pattern oneway`: the client writes round-robin, the server receives through epoll and prints
//! `messages_per_s` and `mb_per_s` from the first byte to the last end of stream.
//! `--wait poll`: the server waits by poll(2).
//! `--pattern reply`: one request outstanding on every socket, both sides through epoll; the client prints
//! `requests_per_s`.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::buffer;
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address, Listener};
use convoy_bench::poll::Poll;

/// What a server reads at once.
const READ_BYTES: usize = 16 << 10;
/// Messages between two looks at the clock.
const CLOCK_EVERY: usize = 256;

struct Plan {
    sockets: usize,
    size: usize,
    reply: bool,
    nonblocking: bool,
    poll: bool,
    period: Duration,
}

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let plan = Plan {
        sockets: args.get("sockets", 64)?,
        size: args.get("size", 64)?,
        reply: args.get("pattern", String::from("oneway"))? == "reply",
        nonblocking: args.get("write", String::from("block"))? == "nonblock",
        poll: args.get("wait", String::from("epoll"))? == "poll",
        period: Duration::from_secs_f64(args.get("seconds", 0.5)?),
    };
    let address = Address::from_args(&args)?;
    match args.role()? {
        Role::Server => serve(&plan, &Listener::announce(&address)?),
        Role::Client => {
            let sockets =
                (0..plan.sockets).map(|_| net::connect(&address, 0)).collect::<std::io::Result<Vec<_>>>()?;
            if plan.reply { ask(&plan, &sockets) } else { flood(&plan, &sockets) }
        }
    }
}

fn serve(plan: &Plan, listener: &Listener) -> Result<()> {
    let mut waiter =
        if plan.poll { Waiter::Poll(Poll::default()) } else { Waiter::Epoll(Box::new(Epoll::new()?)) };
    let mut sockets = Vec::with_capacity(plan.sockets);
    for index in 0..plan.sockets {
        let socket = listener.accept(true)?;
        waiter.add(socket.as_raw_fd(), index)?;
        sockets.push(Some(socket));
    }
    let mut buffer = vec![0; READ_BYTES];
    let (mut open, mut bytes, mut first) = (plan.sockets, 0_u64, None);
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
    println!("messages_per_s {}", bytes as f64 / plan.size as f64 / seconds);
    println!("mb_per_s {}", bytes as f64 / 1e6 / seconds);
    println!("bytes {bytes}");
    Ok(())
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

fn flood(plan: &Plan, sockets: &[OwnedFd]) -> Result<()> {
    let descriptors: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    if plan.nonblocking {
        descriptors.iter().try_for_each(|&fd| net::set_nonblocking(fd))?;
    }
    let message = buffer::message(plan.size);
    let end = Instant::now() + plan.period;
    let mut round = descriptors.iter().cycle();
    let mut sent = 0_u64;
    while Instant::now() < end {
        for &fd in round.by_ref().take(CLOCK_EVERY) {
            net::write_all(fd, &message)?;
        }
        sent += CLOCK_EVERY as u64;
    }
    println!("sent_messages {sent}");
    Ok(())
}

fn ask(plan: &Plan, sockets: &[OwnedFd]) -> Result<()> {
    let message = buffer::message(plan.size);
    let mut epoll = Epoll::new()?;
    for (index, socket) in sockets.iter().enumerate() {
        net::set_nonblocking(socket.as_raw_fd())?;
        epoll.add(socket.as_raw_fd(), index)?;
    }
    for socket in sockets {
        net::write_all(socket.as_raw_fd(), &message)?;
    }
    let mut received = vec![0; sockets.len()];
    let mut buffer = vec![0; READ_BYTES];
    let (mut requests, start) = (0_u64, Instant::now());
    let mut pending = sockets.len();
    let mut stopping = false;
    while pending > 0 {
        for n in 0..epoll.wait()? {
            let index = epoll.ready(n);
            let fd = sockets[index].as_raw_fd();
            match net::read(fd, &mut buffer)? {
                None => continue,
                Some(0) => bail!("the server closed a connection"),
                Some(count) => received[index] += count,
            }
            if received[index] < plan.size {
                continue;
            }
            received[index] = 0;
            requests += 1;
            if stopping {
                pending -= 1;
            } else {
                net::write_all(fd, &message)?;
            }
        }
        stopping = stopping || start.elapsed() >= plan.period;
    }
    println!("requests_per_s {}", requests as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
