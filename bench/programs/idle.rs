//! Many connections that exchange a few messages each and are idle from then on.
//!
//! The client says `idle` when it is so; both halves stay until their standard input ends, so that the
//! driver can look at their memory and CPU from outside.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::epoll::Epoll;
use convoy_bench::net::{self, Address, Listener};
use convoy_bench::{buffer, leash};

const MESSAGE_BYTES: usize = 64;
const MESSAGES: usize = 4;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let count: usize = args.get("connections", 2000)?;
    let address = Address::from_args(&args)?;
    let mut epoll = Epoll::new()?;
    match args.role()? {
        Role::Server => serve(&Listener::announce(&address)?, &mut epoll, count),
        Role::Client => drive(&address, &mut epoll, count),
    }
}

fn serve(listener: &Listener, epoll: &mut Epoll, count: usize) -> Result<()> {
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let socket = listener.accept(true)?;
        epoll.add(socket.as_raw_fd(), index)?;
        sockets.push(socket);
    }
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

fn drive(address: &Address, epoll: &mut Epoll, count: usize) -> Result<()> {
    let sockets = (0..count).map(|_| net::connect(address, 0)).collect::<std::io::Result<Vec<OwnedFd>>>()?;
    let mut message = buffer::message(MESSAGE_BYTES);
    for _ in 0..MESSAGES {
        for socket in &sockets {
            net::write_all(socket.as_raw_fd(), &message)?;
            if !net::read_full(socket.as_raw_fd(), &mut message)? {
                bail!("the server closed a connection");
            }
        }
    }
    for (index, socket) in sockets.iter().enumerate() {
        net::set_nonblocking(socket.as_raw_fd())?;
        epoll.add(socket.as_raw_fd(), index)?;
    }
    println!("idle");
    leash::exit_with_stdin();
    loop {
        epoll.wait()?;
    }
}
