//! One-byte reads of a plain file, to see what interception costs a descriptor that is no socket.
//!
//! Prints `read_ns`, the fastest block of the period: the call's own cost without the machine's noise.

use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use convoy_bench::args::Args;
use convoy_bench::net;

/// Reads in one block, and bytes in the file.
const BLOCK: u32 = 20_000;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let end = Instant::now() + Duration::from_secs_f64(args.get("seconds", 0.5)?);
    let mut file = tempfile::tempfile_in(args.get("directory", String::from("."))?)?;
    file.write_all(&vec![b'x'; BLOCK as usize])?;
    let mut byte = [0];
    let mut best = f64::INFINITY;
    while Instant::now() < end {
        file.rewind()?;
        let start = Instant::now();
        for _ in 0..BLOCK {
            net::read(file.as_raw_fd(), &mut byte)?;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(BLOCK));
    }
    println!("read_ns {best}");
    Ok(())
}
