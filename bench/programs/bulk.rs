//! Bulk transfer over one blocking connection with writes of one size; the server prints `gb_per_s`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use convoy_bench::args::{Args, Role};
use convoy_bench::buffer;
use convoy_bench::net::{self, Address, Listener};

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let size: usize = args.get("size", 128 << 10)?;
    let address = Address::from_args(&args)?;
    match args.role()? {
        Role::Server => drain(&Listener::announce(&address)?.accept(false)?, size),
        Role::Client => {
            let period = Duration::from_secs_f64(args.get("seconds", 0.5)?);
            fill(&net::connect(&address, 0)?, size, period)
        }
    }
}

fn drain(connection: &OwnedFd, size: usize) -> Result<()> {
    let mut buffer = vec![0; size];
    let (mut bytes, mut first) = (0_u64, None);
    while let Some(count @ 1..) = net::read(connection.as_raw_fd(), &mut buffer)? {
        first.get_or_insert_with(Instant::now);
        bytes += count as u64;
    }
    let seconds = first.map_or(f64::NAN, |first: Instant| first.elapsed().as_secs_f64());
    println!("gb_per_s {}", bytes as f64 / 1e9 / seconds);
    println!("bytes {bytes}");
    Ok(())
}

fn fill(connection: &OwnedFd, size: usize, period: Duration) -> Result<()> {
    let message = buffer::message(size);
    let end = Instant::now() + period;
    while Instant::now() < end {
        net::write_all(connection.as_raw_fd(), &message)?;
    }
    Ok(())
}
