//! Many connections, opened and used a little, as many at a time as the listener's queue and everybody's tables bear.
//!
//! Both ends must be called with the same numbers. The sockets are blocking afterwards.

use std::io::{ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::buffer;
use crate::net::{self, Address, Listener};

/// Connections that are opened before they are used.
const GROUP: usize = 64;
/// Connections to one of the loopback addresses: few enough that the kernel finds a free port at once.
const PER_ADDRESS: usize = 4 << 10;
const MESSAGE_BYTES: usize = 64;

/// Connects `count` sockets and exchanges `messages` messages on each.
///
/// # Errors
/// What the calls give; a connection that ends meanwhile.
pub fn connect(address: &Address, count: usize, messages: usize) -> Result<Vec<OwnedFd>> {
    let message = buffer::message(MESSAGE_BYTES);
    let open = |index| net::connect(address, (index / PER_ADDRESS) as u32);
    in_groups(count, open, messages, |group| {
        group.iter().try_for_each(|socket| net::write_all(socket.as_raw_fd(), &message))?;
        group.iter().try_for_each(|socket| read(socket).map(drop))
    })
}

/// Accepts `count` connections and returns `messages` messages on each.
///
/// # Errors
/// What the calls give; a connection that ends meanwhile.
pub fn accept(listener: &Listener, count: usize, messages: usize) -> Result<Vec<OwnedFd>> {
    in_groups(
        count,
        |_| listener.accept(false),
        messages,
        |group| group.iter().try_for_each(|socket| net::write_all(socket.as_raw_fd(), &read(socket)?)),
    )
}

fn in_groups(
    count: usize,
    mut open: impl FnMut(usize) -> Result<OwnedFd>,
    messages: usize,
    mut exchange: impl FnMut(&[OwnedFd]) -> Result<()>,
) -> Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let begin = sockets.len();
        for index in begin..count.min(begin + GROUP) {
            sockets.push(open(index)?);
        }
        (0..messages).try_for_each(|_| exchange(&sockets[begin..]))?;
    }
    Ok(sockets)
}

fn read(socket: &OwnedFd) -> Result<[u8; MESSAGE_BYTES]> {
    let mut message = [0; MESSAGE_BYTES];
    let whole = net::read_full(socket.as_raw_fd(), &mut message)?;
    if whole { Ok(message) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
