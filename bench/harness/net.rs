//! Plain blocking and nonblocking stream sockets over TCP (IPv4) and Unix paths.
//!
//! Connections are raw descriptors read and written with `read` and `write`, as most programs do it.

use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
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
                let socket = tcp_socket()?;
                set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
                let (address, length) = socket_address(Ipv4Addr::UNSPECIFIED, *port);
                // SAFETY: a live address of the given length.
                check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
                let port = if *port == 0 { local_port(&socket)? } else { *port };
                (Self { socket, tcp: true }, port)
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

    /// The next connection.
    ///
    /// # Errors
    /// What accept and fcntl give.
    pub fn accept(&self, nonblocking: bool) -> Result<OwnedFd> {
        let none = std::ptr::null_mut();
        // SAFETY: null address and length are allowed: the peer's address is not wanted.
        let fd = check(unsafe { libc::accept(self.socket.as_raw_fd(), none, none.cast()) })?;
        // SAFETY: accept has just made this descriptor and nobody else holds it.
        let connection = unsafe { OwnedFd::from_raw_fd(fd) };
        if nonblocking {
            set_nonblocking(fd)?;
        }
        if self.tcp {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
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
            let socket = tcp_socket()?;
            let (address, length) = socket_address(host, *port);
            // SAFETY: a live address of the given length.
            check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
            set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
            Ok(socket)
        }
        Address::Unix(path) => Ok(UnixStream::connect(path)?.into()),
    }
}

/// Without the flags of newer kernels, which other libraries for RDMA do not know.
fn tcp_socket() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) })?;
    // SAFETY: socket has just made this descriptor and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn socket_address(host: Ipv4Addr, port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(host).to_be() },
        sin_zero: [0; 8],
    };
    (address, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

fn local_port(socket: &OwnedFd) -> Result<u16> {
    let (mut address, mut length) = socket_address(Ipv4Addr::UNSPECIFIED, 0);
    // SAFETY: a live address of the given length.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
    Ok(u16::from_be(address.sin_port))
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option value is a live c_int of the given length.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), length) }).map(drop)
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
