//! The client: writes to all its active sockets in turn, or has one request outstanding on each.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use anyhow::{Result, bail};
use convoy_bench::buffer;
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address};
use convoy_bench::warm;

use crate::{Plan, READ_BYTES};

/// Messages between two looks at the clock.
const CLOCK_EVERY: usize = 256;

/// What one thread did.
pub(crate) struct Sent {
    pub(crate) messages: u64,
    /// Requests that were answered in a second.
    pub(crate) per_second: f64,
}

pub(crate) fn drive(plan: &Plan, address: &Address) -> Result<Sent> {
    let sockets = warm::connect(address, plan.sockets + plan.idle, plan.warm_up())?;
    // The active ones are spread over all, as they would be in a server.
    let active: Vec<RawFd> =
        (0..plan.sockets).map(|n| sockets[n * sockets.len() / plan.sockets].as_raw_fd()).collect();
    if plan.reply { ask(plan, &active) } else { flood(plan, &active) }
}

fn flood(plan: &Plan, sockets: &[RawFd]) -> Result<Sent> {
    if plan.nonblocking {
        sockets.iter().try_for_each(|&fd| net::set_nonblocking(fd))?;
    }
    let message = buffer::message(plan.size);
    let start = Instant::now();
    let mut round = sockets.iter().cycle();
    let mut messages = 0_u64;
    while start.elapsed() < plan.period {
        for &fd in round.by_ref().take(CLOCK_EVERY) {
            net::write_all(fd, &message)?;
        }
        messages += CLOCK_EVERY as u64;
    }
    Ok(Sent { messages, per_second: messages as f64 / start.elapsed().as_secs_f64() })
}

fn ask(plan: &Plan, sockets: &[RawFd]) -> Result<Sent> {
    let message = buffer::message(plan.size);
    let mut epoll = Epoll::new()?;
    for (index, &fd) in sockets.iter().enumerate() {
        net::set_nonblocking(fd)?;
        epoll.add(fd, index)?;
    }
    for &fd in sockets {
        net::write_all(fd, &message)?;
    }
    let mut received = vec![0; sockets.len()];
    let mut buffer = vec![0; READ_BYTES];
    // The server answers when all clients are there: so they all start at the same time.
    let (mut requests, mut start) = (0_u64, None);
    let mut pending = sockets.len();
    let mut stopping = false;
    while pending > 0 {
        let ready = epoll.wait()?;
        let start = *start.get_or_insert_with(Instant::now);
        for n in 0..ready {
            let index = epoll.ready(n);
            let fd = sockets[index];
            let count = match net::read(fd, &mut buffer)? {
                None => continue,
                Some(0) => bail!("the server closed a connection"),
                Some(count) => count,
            };
            if !message[received[index]..].starts_with(&buffer[..count]) {
                bail!("a reply is not the request");
            }
            received[index] += count;
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
    let seconds = start.map_or(f64::NAN, |start: Instant| start.elapsed().as_secs_f64());
    Ok(Sent { messages: requests, per_second: requests as f64 / seconds })
}
