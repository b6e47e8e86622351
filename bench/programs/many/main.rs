//! Many sockets between two processes.
//!
//! `--pattern oneway`: the client writes round-robin, the server receives through epoll and prints `messages_per_s` and
//! `mb_per_s` from the first byte to the last end of stream. `--wait poll`: the server waits by poll(2).
//! `--pattern reply`: one request outstanding on every socket, both sides through epoll; the client prints
//! `requests_per_s` from its first reply on.
//! `--threads N`: each side has N threads, each with `--sockets` sockets of its own.
//! `--clients N` (server): so many client processes come, with as many sockets each.
//! `--idle N`: so many connections more, which are used a little at first, as all are then, and stay open.
//!
//! In any case the server prints the `bytes` it got and a client the `messages` it sent, which must agree.

mod client;
mod server;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use convoy_bench::args::{Args, Role};
use convoy_bench::limits;
use convoy_bench::net::{Address, Listener};

/// What a side reads at once.
const READ_BYTES: usize = 16 << 10;
/// Messages on each connection before the others start to count, if there are connections that are idle then.
const WARM_UP: usize = 8;

struct Plan {
    /// Of one thread of one client.
    sockets: usize,
    idle: usize,
    threads: usize,
    clients: usize,
    /// Bytes of a message.
    size: usize,
    reply: bool,
    nonblocking: bool,
    poll: bool,
    period: Duration,
}

impl Plan {
    /// Messages on each connection before those that count.
    fn warm_up(&self) -> usize {
        if self.idle > 0 { WARM_UP } else { 0 }
    }
}

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let plan = Plan {
        sockets: args.get("sockets", 64)?,
        idle: args.get("idle", 0)?,
        threads: args.get("threads", 1)?,
        clients: args.get("clients", 1)?,
        size: args.get("size", 64)?,
        reply: args.get("pattern", String::from("oneway"))? == "reply",
        nonblocking: args.get("write", String::from("block"))? == "nonblock",
        poll: args.get("wait", String::from("epoll"))? == "poll",
        period: Duration::from_secs_f64(args.get("seconds", 0.5)?),
    };
    limits::raise_descriptors()?;
    let address = Address::from_args(&args)?;
    match args.role()? {
        Role::Server => serve(&plan, &Listener::announce(&address)?),
        Role::Client => drive(&plan, &address),
    }
}

fn serve(plan: &Plan, listener: &Listener) -> Result<()> {
    let parts = in_threads(plan.threads, || server::serve(plan, listener))?;
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    let seconds = parts.iter().map(|part| part.seconds).fold(f64::NAN, f64::max);
    println!("messages_per_s {}", bytes as f64 / plan.size as f64 / seconds);
    println!("mb_per_s {}", bytes as f64 / 1e6 / seconds);
    println!("bytes {bytes}");
    Ok(())
}

fn drive(plan: &Plan, address: &Address) -> Result<()> {
    let parts = in_threads(plan.threads, || client::drive(plan, address))?;
    println!("messages {}", parts.iter().map(|part| part.messages).sum::<u64>());
    if plan.reply {
        println!("requests_per_s {}", parts.iter().map(|part| part.per_second).sum::<f64>());
    }
    Ok(())
}

/// Runs `part` in that many threads at a time; a single one is this thread itself.
fn in_threads<T: Send>(threads: usize, part: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    if threads == 1 {
        return Ok(vec![part()?]);
    }
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, &part).context("starting a thread");
        let running = (0..threads).map(start).collect::<Result<Vec<_>>>()?;
        let end = |thread: thread::ScopedJoinHandle<'_, Result<T>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        running.into_iter().map(end).collect()
    })
}
