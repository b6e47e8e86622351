//! The agent's side of the Unix sockets between it and the programs of its host.

use super::protocol::{BYTES, Message};
use crate::process::Text;
use crate::sys::{self, MOST_EVER_PASSED};
use crate::wait::kernel_state;
use core::fmt::Write as _;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Where the agent of a network namespace listens: for one user's programs, or for everybody's.
///
/// # Errors
/// The path is too long.
pub fn socket_path(directory: &CStr, user: Option<u32>, network: u64) -> io::Result<CString> {
    let mut path = Text::<200>::new();
    let base = directory.to_str().map_err(|_| io::ErrorKind::InvalidInput)?;
    let written = match user {
        Some(user) => write!(path, "{base}/convoy-{user}/{network}.agent"),
        None => write!(path, "{base}/convoy-agent/{network}.agent"),
    };
    written.map_err(|_| io::ErrorKind::InvalidFilename)?;
    Ok(path.as_cstr().into())
}

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct Server {
    socket: OwnedFd,
    path: CString,
    /// The file is another agent's, or may be going to be.
    pub leave_file: bool,
}

/// A program that has connected, or an agent at the other end of such a connection.
#[derive(Debug)]
pub struct Program {
    socket: OwnedFd,
    /// Its process id as this process sees it, 0 when it does not.
    pub pid: i32,
    /// Its effective user id when it connected.
    pub uid: u32,
}

/// What a program has sent.
#[derive(Debug)]
pub enum Heard {
    /// A message and the descriptors with it.
    Message(Message, Vec<OwnedFd>),
    /// Something that is no message, and the descriptors with it.
    Nonsense(Vec<OwnedFd>),
    /// Nothing at the moment.
    Nothing,
    /// It is gone.
    End,
}

impl Server {
    /// Listens at `path`. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Another agent listens there, or the path cannot be used.
    pub fn bind(path: &CStr, mode: u32) -> io::Result<Self> {
        if let Ok(other) = sys::unix_connect(path) {
            let _ = sys::close(other);
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let _ = sys::unlink(path);
        let socket = sys::unix_listen(path, mode).map_err(io::Error::from_raw_os_error)?;
        Ok(Self { socket: owned(socket), path: path.into(), leave_file: false })
    }

    /// A socket that listens at `path` already, handed over by another agent.
    pub fn adopt(socket: OwnedFd, path: &CStr) -> Self {
        // Otherwise programs would go on to take it for that agent's; it listens in any case.
        let _ = sys::listen(socket.as_raw_fd());
        Self { socket, path: path.into(), leave_file: false }
    }

    /// The next program that has connected.
    pub fn accept(&self) -> Option<Program> {
        let socket = owned(sys::accept(self.socket.as_raw_fd()).ok()?);
        let (pid, uid, _) = sys::unix_peer(socket.as_raw_fd()).ok()?;
        Some(Program { socket, pid, uid })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.leave_file {
            let _ = sys::unlink(&self.path);
        }
    }
}

impl Program {
    /// Connects to the agent that listens at `path`.
    ///
    /// # Errors
    /// None does, or it cannot be connected to.
    pub fn connect(path: &CStr) -> io::Result<Self> {
        let socket = owned(sys::unix_connect(path).map_err(io::Error::from_raw_os_error)?);
        let (pid, uid, _) = sys::unix_peer(socket.as_raw_fd()).map_err(io::Error::from_raw_os_error)?;
        Ok(Self { socket, pid, uid })
    }

    /// The next message.
    pub fn receive(&self) -> Heard {
        let mut bytes = [0; BYTES];
        // All that may come with it: what the kernel closes for want of room it closes in this thread.
        match sys::unix_receive::<MOST_EVER_PASSED>(self.socket.as_raw_fd(), &mut bytes) {
            Ok((0, _)) => Heard::End,
            Ok((count, passed)) => {
                let passed = passed.into_iter().take_while(|fd| *fd >= 0).map(owned).collect();
                match bytes.get(..count).and_then(Message::decode) {
                    Some(message) => Heard::Message(message, passed),
                    None => Heard::Nonsense(passed),
                }
            }
            Err(libc::EAGAIN | libc::EINTR) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Whether the program has ended, or is through with this agent and has shut its socket down.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        kernel_state(self.socket.as_raw_fd(), libc::POLLRDHUP) & over != 0
    }

    /// Sends a message; false when the program does not take it.
    pub fn send(&self, message: Message, passed: Option<BorrowedFd<'_>>) -> bool {
        let passed = passed.map(|fd| fd.as_raw_fd());
        sys::unix_send(self.socket.as_raw_fd(), &message.encode(), passed.as_slice()).is_ok()
    }
}

impl From<Program> for OwnedFd {
    fn from(program: Program) -> Self {
        program.socket
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An event counter by which a program wakes the agent.
///
/// # Errors
/// Descriptors have run out.
pub fn doorbell() -> io::Result<OwnedFd> {
    sys::eventfd().map(owned).map_err(io::Error::from_raw_os_error)
}

/// Whether a descriptor that a program has passed is a FIFO. Only what never waits is asked: its file system may be the
/// program's own.
pub fn is_fifo(fifo: BorrowedFd<'_>) -> bool {
    sys::is_pipe(fifo.as_raw_fd())
}

/// Adds a descriptor that a library names by its number to an epoll instance, for reading.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch(epoll: BorrowedFd<'_>, fd: RawFd, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
    // SAFETY: one valid event.
    let added = unsafe { sys::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    added.map(drop).map_err(io::Error::from_raw_os_error)
}

/// SO_NETNS_COOKIE of a socket, or of the network namespace of this thread.
///
/// # Errors
/// No socket can be made, or the kernel is older than Linux 5.14.
pub fn network_of(socket: Option<BorrowedFd<'_>>) -> io::Result<u64> {
    let error = io::Error::from_raw_os_error;
    match socket {
        Some(socket) => sys::network_namespace(socket.as_raw_fd()).map_err(error),
        None => {
            let own = owned(sys::tcp_socket().map_err(error)?);
            sys::network_namespace(own.as_raw_fd()).map_err(error)
        }
    }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: a descriptor that a system call has just given to this process, and nobody else has.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
