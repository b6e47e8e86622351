//! Many connections that exchange a few messages each and are idle from then on.
//!
//! The client says `first_rtt_us` and `last_rtt_us`, the mean round trips of 64 bytes on its first and its last connection
//! while all others are idle (half of `--seconds` each), and then `idle`. Both halves stay until their standard input ends, so that the driver can
//! look at their memory and CPU from outside.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address, Listener};
use convoy_bench::{buffer, leash, limits, warm};

const MESSAGE_BYTES: usize = 64;
/// On each connection before it is idle.
const MESSAGES: usize = 8;
/// Trips before the clock starts, and between two looks at it.
const TRIPS: u32 = 256;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let count: usize = args.get("connections", 2000)?;
    let address = Address::from_args(&args)?;
    limits::raise_descriptors()?;
    match args.role()? {
        Role::Server => serve(&warm::accept(&Listener::announce(&address)?, count, MESSAGES)?),
        Role::Client => {
            let sockets = warm::connect(&address, count, MESSAGES)?;
            let period = Duration::from_secs_f64(args.get("seconds", 0.5)?) / 2;
            for (name, socket) in [("first", sockets.first()), ("last", sockets.last())] {
                println!("{name}_rtt_us {}", socket.map_or(Ok(f64::NAN), |socket| trips(socket, period))?);
            }
            rest(&sockets)
        }
    }
}

fn serve(sockets: &[OwnedFd]) -> Result<()> {
    let mut epoll = watch(sockets)?;
    leash::exit_with_stdin();
    let mut message = vec![0; MESSAGE_BYTES];
    loop {
        for n in 0..epoll.wait()? {
            let fd = sockets[epoll.ready(n)].as_raw_fd();
            match net::read(fd, &mut message)? {
                // The client has ended; this side follows when its input does.
                Some(0) => epoll.remove(fd)?,
                Some(count) => net::write_all(fd, &message[..count])?,
                None => {}
            }
        }
    }
}

/// The mean round trip in microseconds.
fn trips(socket: &OwnedFd, period: Duration) -> Result<f64> {
    let fd = socket.as_raw_fd();
    let message = buffer::message(MESSAGE_BYTES);
    let mut answer = vec![0; MESSAGE_BYTES];
    let mut some = || {
        for _ in 0..TRIPS {
            net::write_all(fd, &message)?;
            if !net::read_full(fd, &mut answer)? || answer != message {
                bail!("an answer is missing or wrong");
            }
        }
        Ok(())
    };
    some()?;
    let (mut done, start) = (0, Instant::now());
    while done == 0 || start.elapsed() < period {
        some()?;
        done += TRIPS;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(done))
}

fn rest(sockets: &[OwnedFd]) -> Result<()> {
    let mut epoll = watch(sockets)?;
    println!("idle");
    leash::exit_with_stdin();
    loop {
        epoll.wait()?;
    }
}

fn watch(sockets: &[OwnedFd]) -> Result<Epoll> {
    let epoll = Epoll::new()?;
    for (index, socket) in sockets.iter().enumerate() {
        net::set_nonblocking(socket.as_raw_fd())?;
        epoll.add(socket.as_raw_fd(), index)?;
    }
    Ok(epoll)
}
