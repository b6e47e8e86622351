//! Plain blocking and nonblocking stream sockets over TCP (IPv4) and Unix paths.
//!
//! Connections are raw descriptors read and written with `read` and `write`, as most programs do it.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::args::Args;

const BACKLOG: i32 = 4096;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A port of this host, reached over loopback unless another address is given.
    Tcp(u16, Option<Ipv4Addr>),
    Unix(PathBuf),
}

impl Address {
    /// `--unix PATH`, else `--port N` (0: any free port) and perhaps `--host ADDRESS`.
    ///
    /// # Errors
    /// A port or address that is none.
    pub fn from_args(args: &Args) -> anyhow::Result<Self> {
        match args.text("unix") {
            Ok(path) => Ok(Self::Unix(path.into())),
            Err(_) => {
                let host = args.text("host").ok().map(str::parse).transpose()?;
                Ok(Self::Tcp(args.get("port", 0)?, host))
            }
        }
    }
}

/// A listening socket of either family.
pub struct Listener {
    socket: OwnedFd,
    tcp: bool,
}

impl Listener {
    /// Listens and tells the driver where: `ready PORT` on stdout (port 0 for a Unix socket).
    ///
    /// # Errors
    /// What bind and listen give.
    pub fn announce(address: &Address) -> Result<Self> {
        let (listener, port) = match address {
            Address::Tcp(port, _) => {
                let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))?;
                let port = socket.local_addr()?.port();
                (Self { socket: socket.into(), tcp: true }, port)
            }
            Address::Unix(path) => (Self { socket: UnixListener::bind(path)?.into(), tcp: false }, 0),
        };
        listener.deepen()?;
        println!("ready {port}");
        Ok(listener)
    }

    /// The standard library's short queue would overflow when both ends share a CPU, and each overflow costs
    /// a second of waiting for the next SYN.
    fn deepen(&self) -> Result<()> {
        // SAFETY: no pointers; listening again only changes the length of the queue.
        let result = unsafe { libc::listen(self.socket.as_raw_fd(), BACKLOG) };
        if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// The next connection; `nonblocking` is set by accept4 itself.
    ///
    /// # Errors
    /// What accept4 gives.
    pub fn accept(&self, nonblocking: bool) -> Result<OwnedFd> {
        let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
        let none = std::ptr::null_mut();
        // SAFETY: null address and length are allowed: the peer's address is not wanted.
        let fd = unsafe { libc::accept4(self.socket.as_raw_fd(), none, none.cast(), flags) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: accept4 has just made this descriptor and nobody else holds it.
        let connection = unsafe { OwnedFd::from_raw_fd(fd) };
        if self.tcp {
            set_nodelay(fd)?;
        }
        Ok(connection)
    }
}

/// A blocking connection to `address`; `spread` picks one of 64 loopback addresses, so that many short
/// connections do not run out of ports.
///
/// # Errors
/// What socket and connect give.
pub fn connect(address: &Address, spread: u32) -> Result<OwnedFd> {
    match address {
        Address::Tcp(port, host) => {
            let spread = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(spread % 64).unwrap_or(0));
            let host = host.unwrap_or(spread);
            let socket = TcpStream::connect((host, *port))?;
            socket.set_nodelay(true)?;
            Ok(socket.into())
        }
        Address::Unix(path) => Ok(UnixStream::connect(path)?.into()),
    }
}

fn set_nodelay(fd: RawFd) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a live c_int of the given length.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Switches `O_NONBLOCK` on.
///
/// # Errors
/// What fcntl gives.
pub fn set_nonblocking(fd: RawFd) -> Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and give plain integers.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_NONBLOCK) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// `read(2)`; `None` means EAGAIN, `Some(0)` the end of the stream.
///
/// # Errors
/// Any other errno.
pub fn read(fd: RawFd, into: &mut [u8]) -> Result<Option<usize>> {
    // SAFETY: pointer and length describe the whole mutable slice.
    let count = unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) };
    outcome(count)
}

/// `write(2)`; `None` means EAGAIN.
///
/// # Errors
/// Any other errno.
pub fn write(fd: RawFd, from: &[u8]) -> Result<Option<usize>> {
    // SAFETY: pointer and length describe the whole slice.
    let count = unsafe { libc::write(fd, from.as_ptr().cast(), from.len()) };
    outcome(count)
}

fn outcome(count: isize) -> Result<Option<usize>> {
    if let Ok(count) = usize::try_from(count) {
        return Ok(Some(count));
    }
    let error = Error::last_os_error();
    if error.kind() == ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

/// Reads until `into` is full; `false` when the stream ended first.
///
/// # Errors
/// What read gives, including EAGAIN on a nonblocking descriptor.
pub fn read_full(fd: RawFd, into: &mut [u8]) -> Result<bool> {
    let mut done = 0;
    while done < into.len() {
        match read(fd, &mut into[done..])? {
            Some(0) => return Ok(false),
            Some(count) => done += count,
            None => return Err(ErrorKind::WouldBlock.into()),
        }
    }
    Ok(true)
}

/// Writes all of `from`; on a nonblocking descriptor waits with poll where it would block.
///
/// # Errors
/// What write or poll gives.
pub fn write_all(fd: RawFd, from: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < from.len() {
        match write(fd, &from[done..])? {
            Some(count) => done += count,
            None => wait_writable(fd)?,
        }
    }
    Ok(())
}

fn wait_writable(fd: RawFd) -> Result<()> {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one live pollfd.
    if unsafe { libc::poll(&raw mut entry, 1, -1) } < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
