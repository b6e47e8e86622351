//! Short connections one after the other; the client prints `connections_per_s`.
//!
//! `--exchange yes`: each carries a 64-byte request and its reply; else both ends close at once.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::net::{self, Address, Listener};
use convoy_bench::{buffer, leash};

const MESSAGE_BYTES: usize = 64;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let exchange = args.get("exchange", String::from("no"))? == "yes";
    let address = Address::from_args(&args)?;
    match args.role()? {
        Role::Server => {
            leash::exit_with_stdin();
            serve(&Listener::announce(&address)?, exchange)
        }
        Role::Client => drive(&address, exchange, Duration::from_secs_f64(args.get("seconds", 0.5)?)),
    }
}

fn serve(listener: &Listener, exchange: bool) -> Result<()> {
    let mut message = vec![0; MESSAGE_BYTES];
    loop {
        let connection = listener.accept(false)?;
        if exchange && net::read_full(connection.as_raw_fd(), &mut message)? {
            net::write_all(connection.as_raw_fd(), &message)?;
            // The client closes first, as clients do.
            net::read(connection.as_raw_fd(), &mut message)?;
        }
    }
}

fn drive(address: &Address, exchange: bool, period: Duration) -> Result<()> {
    let mut message = buffer::message(MESSAGE_BYTES);
    let (mut connections, start) = (0_u32, Instant::now());
    while start.elapsed() < period {
        let connection = net::connect(address, connections)?;
        if exchange {
            net::write_all(connection.as_raw_fd(), &message)?;
            if !net::read_full(connection.as_raw_fd(), &mut message)? {
                bail!("the server closed without a reply");
            }
        }
        connections += 1;
    }
    println!("connections_per_s {}", f64::from(connections) / start.elapsed().as_secs_f64());
    Ok(())
}
