//! Load for a memcached server: `--sockets` connections through epoll, one text request outstanding on each,
//! nine gets to one set, every reply checked. Prints `requests_per_s`, `p50_us` and `p99_us`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use convoy_bench::args::Args;
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address};

const VALUE_BYTES: usize = 100;
const SET_EVERY: u64 = 10;

/// One connection and what it waits for.
struct Client {
    socket: OwnedFd,
    requests: u64,
    received: Vec<u8>,
    expected: usize,
    begun: Instant,
}

/// Requests and replies, as bytes ready to send and to compare.
struct Script {
    set: Vec<u8>,
    stored: Vec<u8>,
    get: Vec<u8>,
    found: Vec<u8>,
}

impl Script {
    fn new(key: &str) -> Self {
        let value = "v".repeat(VALUE_BYTES);
        Self {
            set: format!("set {key} 0 0 {VALUE_BYTES}\r\n{value}\r\n").into_bytes(),
            stored: b"STORED\r\n".to_vec(),
            get: format!("get {key}\r\n").into_bytes(),
            found: format!("VALUE {key} 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\n").into_bytes(),
        }
    }

    fn step(&self, number: u64) -> (&[u8], &[u8]) {
        if number.is_multiple_of(SET_EVERY) { (&self.set, &self.stored) } else { (&self.get, &self.found) }
    }
}

impl Client {
    fn ask(&mut self, script: &Script) -> Result<()> {
        let (request, reply) = script.step(self.requests);
        self.expected = reply.len();
        self.received.clear();
        self.begun = Instant::now();
        Ok(net::write_all(self.socket.as_raw_fd(), request)?)
    }

    /// Takes what has come; the time since the request when the reply is whole.
    fn take(&mut self, script: &Script, buffer: &mut [u8]) -> Result<Option<Duration>> {
        match net::read(self.socket.as_raw_fd(), buffer)? {
            None => return Ok(None),
            Some(0) => bail!("the server closed a connection"),
            Some(count) => self.received.extend_from_slice(&buffer[..count]),
        }
        if self.received.len() < self.expected {
            return Ok(None);
        }
        let (_, reply) = script.step(self.requests);
        if self.received != reply {
            bail!("wrong reply: {:?}", String::from_utf8_lossy(&self.received));
        }
        self.requests += 1;
        Ok(Some(self.begun.elapsed()))
    }
}

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let address = Address::from_args(&args)?;
    let period = Duration::from_secs_f64(args.get("seconds", 0.5)?);
    let script = Script::new("convoy-bench-key");
    let mut epoll = Epoll::new()?;
    let mut clients = Vec::new();
    for index in 0..args.get("sockets", 50)? {
        let socket = net::connect(&address, 0).context("connecting to memcached")?;
        net::set_nonblocking(socket.as_raw_fd())?;
        epoll.add(socket.as_raw_fd(), index)?;
        let mut client =
            Client { socket, requests: 0, received: Vec::new(), expected: 0, begun: Instant::now() };
        client.ask(&script)?;
        clients.push(client);
    }
    let mut times = Vec::with_capacity(1 << 20);
    let mut buffer = vec![0; 4096];
    let start = Instant::now();
    while start.elapsed() < period {
        for n in 0..epoll.wait()? {
            let client = &mut clients[epoll.ready(n)];
            if let Some(time) = client.take(&script, &mut buffer)? {
                times.push(time);
                client.ask(&script)?;
            }
        }
    }
    println!("requests_per_s {}", times.len() as f64 / start.elapsed().as_secs_f64());
    times.sort_unstable();
    for (name, part) in [("p50_us", 0.50), ("p99_us", 0.99)] {
        let index = (times.len().saturating_sub(1) as f64 * part) as usize;
        println!("{name} {}", times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6));
    }
    Ok(())
}
