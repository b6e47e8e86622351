//! Whose stream a call is made on.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::process;
use crate::table::Entry;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

/// Between the look into the table and the call another thread may leave the connection to the kernel, and the socket be given to
/// a new one that is promoted.
#[test]
fn a_call_is_not_made_on_the_stream_of_another_connection() {
    let own = process::remember();
    let way = table::adopt(UnixStream::pair().unwrap().0.into_raw_fd()).unwrap();
    let channel = crate::channel::with_agent(own, own, way, |_| Ok(())).unwrap();
    let socket = Socket::default();
    socket.place(channel, 5, 1);
    let fd = UnixStream::pair().unwrap().0.into_raw_fd();
    let call = |index| with_stream(index, &socket, fd, 0, |call| Outcome::from(Ok(call.slot as usize)));
    assert!(call(7) == Outcome::NOT_OURS, "left to the kernel");
    assert!(table::set(fd, Entry::Socket(8)));
    assert!(call(7) == Outcome::failed(libc::EBADF), "closed, and the number is another's");
    assert!(call(8) == Outcome::from(Ok(5)), "its own");
    table::take(fd);
    sys::close(fd).unwrap();
}
