//! Ping-pong over one connection: one message each way at a time, blocking or through epoll.
//!
//! Prints `rtt_us` (mean of the period), `p50_us` and `p99_us` (of sampled trips) and `trips`.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::buffer;
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address, Listener};

/// Trips before the clock starts: enough for promotion and warm caches.
const WARM_UP: Duration = Duration::from_millis(100);
/// Every so many trips one is timed by itself, so that the clock does not weigh on the mean.
const SAMPLE_EVERY: u64 = 16;

/// How a side waits for its next message.
enum Waiter {
    Blocking,
    Epoll(Box<Epoll>),
}

impl Waiter {
    fn new(args: &Args, fd: RawFd) -> Result<Self> {
        match args.get("wait", String::from("block"))?.as_str() {
            "block" => Ok(Self::Blocking),
            "epoll" => {
                net::set_nonblocking(fd)?;
                let epoll = Epoll::new()?;
                epoll.add(fd, 0)?;
                Ok(Self::Epoll(Box::new(epoll)))
            }
            other => bail!("--wait {other:?}: block or epoll"),
        }
    }

    /// Fills `into`; `false` at the end of the stream.
    fn receive(&mut self, fd: RawFd, into: &mut [u8]) -> Result<bool> {
        let Self::Epoll(epoll) = self else {
            return Ok(net::read_full(fd, into)?);
        };
        let mut done = 0;
        while done < into.len() {
            epoll.wait()?;
            match net::read(fd, &mut into[done..])? {
                Some(0) => return Ok(false),
                Some(count) => done += count,
                None => {}
            }
        }
        Ok(true)
    }
}

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let size: usize = args.get("size", 64)?;
    let address = Address::from_args(&args)?;
    match args.role()? {
        Role::Server => {
            let connection = Listener::announce(&address)?.accept(false)?;
            serve(&args, &connection, size)
        }
        Role::Client => drive(&args, &net::connect(&address, 0)?, size),
    }
}

fn serve(args: &Args, connection: &OwnedFd, size: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    let mut waiter = Waiter::new(args, fd)?;
    let mut message = vec![0; size];
    while waiter.receive(fd, &mut message)? {
        net::write_all(fd, &message)?;
    }
    Ok(())
}

fn drive(args: &Args, connection: &OwnedFd, size: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    let mut waiter = Waiter::new(args, fd)?;
    let mut message = buffer::message(size);
    let expected = message.clone();
    run_for(WARM_UP, || trip(&mut waiter, fd, &mut message))?;

    let period = Duration::from_secs_f64(args.get("seconds", 0.5)?);
    let mut samples = Vec::with_capacity(1 << 20);
    let (mut trips, mut begun) = (0_u64, Instant::now());
    let start = begun;
    run_for(period, || {
        trip(&mut waiter, fd, &mut message)?;
        trips += 1;
        match trips % SAMPLE_EVERY {
            0 => begun = Instant::now(),
            1 => samples.push(begun.elapsed()),
            _ => {}
        }
        Ok(())
    })?;
    let mean = start.elapsed().as_secs_f64() * 1e6 / trips.max(1) as f64;
    if message != expected {
        bail!("the message came back changed");
    }
    samples.sort_unstable();
    println!("rtt_us {mean}");
    println!("p50_us {}", quantile(&samples, 0.50));
    println!("p99_us {}", quantile(&samples, 0.99));
    println!("trips {trips}");
    Ok(())
}

fn trip(waiter: &mut Waiter, fd: RawFd, message: &mut [u8]) -> Result<()> {
    net::write_all(fd, message)?;
    if !waiter.receive(fd, message)? {
        bail!("the server closed the connection");
    }
    Ok(())
}

fn run_for(period: Duration, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + period;
    while Instant::now() < end {
        for _ in 0..SAMPLE_EVERY {
            step()?;
        }
    }
    Ok(())
}

fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1)) as f64 * part;
    sorted.get(index as usize).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
}
