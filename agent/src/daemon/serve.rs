//! Answers questions about the agent: HTTP/1.0 on a Unix socket beside the agent's, and on TCP where that is wanted.
//!
//! One thread for all, which never waits for one of those who ask, so that the engine has nothing to do with slow or
//! hostile ones: requests are short, answers have a deadline, and few are served at a time; others wait in the backlog.

mod request;

use self::request::{Asked, Page};
use super::metrics;
use super::status::Board;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the connection to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Connections at a time.
const MOST: usize = 8;
/// How old a snapshot may be: the engine makes one in each tick, when somebody asks.
const FRESH: Duration = Duration::from_millis(1000);
/// How often a snapshot is looked for that somebody waits for.
const PAUSE: Duration = Duration::from_millis(20);
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// The socket's file, which goes with this, and copies of the sockets for a successor.
pub(super) struct Served {
    path: PathBuf,
    /// The file is another agent's, or may be going to be.
    pub(super) leave_file: bool,
    pub(super) unix: UnixListener,
    pub(super) tcp: Option<TcpListener>,
    /// Where metrics are, with the port that the kernel chose if it was to choose one.
    pub(super) metrics: Option<SocketAddr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if !self.leave_file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where questions come from.
pub(super) struct Sockets {
    pub(super) unix: UnixListener,
    pub(super) tcp: Option<TcpListener>,
}

/// A socket at `metrics` for questions.
///
/// # Errors
/// A line: it cannot be listened on.
pub(super) fn listen_tcp(metrics: SocketAddr) -> Result<TcpListener, String> {
    let tcp = TcpListener::bind(metrics).and_then(|tcp| tcp.set_nonblocking(true).map(|()| tcp));
    tcp.map_err(|error| format!("cannot listen at {metrics} for metrics: {error}"))
}

/// A socket at `path` for questions.
///
/// # Errors
/// A line: it cannot be listened on.
pub(super) fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, String> {
    listen(path, mode).map_err(|error| format!("cannot listen at {}: {error}", path.display()))
}

/// Starts to answer at sockets of which the first has its file at `path`.
///
/// # Errors
/// A line: there is no thread or descriptor.
pub(super) fn start(path: &Path, sockets: Sockets, board: Arc<Board>) -> Result<Served, String> {
    let Sockets { unix, tcp } = sockets;
    let no_copy = |error: io::Error| format!("no descriptor to answer questions: {error}");
    let copy = tcp.as_ref().map(TcpListener::try_clone).transpose().map_err(no_copy)?;
    let served = Served {
        path: path.to_owned(),
        leave_file: false,
        unix: unix.try_clone().map_err(no_copy)?,
        metrics: tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()),
        tcp: copy,
    };
    let mut server = Server { unix, tcp, connections: Vec::new(), board };
    let spawned = std::thread::Builder::new().name("cv-status".into()).spawn(move || {
        loop {
            server.turn();
        }
    });
    spawned.map_err(|error| format!("no thread to answer questions: {error}"))?;
    Ok(served)
}

/// Listens at a path. The agent's own socket is bound already, so that a file here is of an agent that is gone.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file is made with the mode of the socket: it is at no time open to more than it shall be.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    rustix::net::listen(&socket, MOST as i32)?;
    Ok(socket.into())
}

struct Server {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    connections: Vec<Connection>,
    board: Arc<Board>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

struct Connection {
    stream: Stream,
    until: Instant,
    state: State,
}

enum State {
    Reading(Vec<u8>),
    /// For a snapshot.
    Waiting(Page),
    Writing(Vec<u8>, usize),
    Done,
}

impl Server {
    /// Waits for something to do, and does it.
    fn turn(&mut self) {
        let now = Instant::now();
        let open = self.connections.len() < MOST;
        let mut fds = Vec::with_capacity(MOST + 2);
        for connection in &self.connections {
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), connection.state.wants()));
        }
        if open {
            fds.push(PollFd::new(&self.unix, PollFlags::IN));
            fds.extend(self.tcp.as_ref().map(|tcp| PollFd::new(tcp, PollFlags::IN)));
        }
        let waits = self.connections.iter().any(|connection| matches!(connection.state, State::Waiting(_)));
        let due =
            self.connections.iter().map(|connection| connection.until.saturating_duration_since(now)).min();
        let limit = if waits { Some(PAUSE) } else { due };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        if poll(&mut fds, limit.as_ref()).is_err() {
            // Interrupted, or no memory.
            return std::thread::sleep(PAUSE);
        }
        drop(fds);
        if open {
            self.accept();
        }
        let now = Instant::now();
        for connection in &mut self.connections {
            connection.advance(&self.board);
        }
        self.connections
            .retain(|connection| connection.until > now && !matches!(connection.state, State::Done));
    }

    fn accept(&mut self) {
        while self.connections.len() < MOST {
            let unix = self.unix.accept().map(|(stream, _)| Stream::Unix(stream));
            let accepted = match (unix, &self.tcp) {
                (Err(error), Some(tcp)) if error.kind() == io::ErrorKind::WouldBlock => {
                    tcp.accept().map(|(stream, _)| Stream::Tcp(stream))
                }
                (unix, _) => unix,
            };
            match accepted {
                Ok(stream) if stream.set_nonblocking().is_ok() => self.connections.push(Connection {
                    stream,
                    until: Instant::now() + DEADLINE,
                    state: State::Reading(Vec::new()),
                }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Descriptors have run out, perhaps: the one who asks stays in the backlog.
                Err(_) => return std::thread::sleep(PAUSE),
            }
        }
    }
}

impl State {
    fn wants(&self) -> PollFlags {
        match self {
            Self::Reading(_) => PollFlags::IN,
            Self::Writing(..) => PollFlags::OUT,
            Self::Waiting(_) | Self::Done => PollFlags::empty(),
        }
    }
}

impl Connection {
    /// Goes on as far as it goes without waiting.
    fn advance(&mut self, board: &Board) {
        if let State::Reading(request) = &mut self.state {
            let mut bytes = [0; 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.state = State::Done,
                Ok(count) => {
                    request.extend_from_slice(&bytes[..count]);
                    self.state = asked(std::mem::take(request), board);
                }
                Err(error) if again(&error) => {}
                Err(_) => self.state = State::Done,
            }
        }
        if let State::Waiting(page) = self.state {
            // Rather late than never: an answer just before the deadline says that the engine does not make any.
            let late = self.until.saturating_duration_since(Instant::now()) < DEADLINE / 4;
            match board.latest(FRESH) {
                Some(status) if page == Page::Metrics => {
                    self.state = State::Writing(response("200 OK", METRICS, &metrics::text(&status)), 0);
                }
                Some(status) => {
                    let text = serde_json::to_string(&*status).unwrap_or_default();
                    self.state = State::Writing(response("200 OK", JSON, &text), 0);
                }
                None if late => self.state = State::Writing(unavailable(), 0),
                None => {}
            }
        }
        if let State::Writing(bytes, done) = &mut self.state {
            match self.stream.write(&bytes[*done..]) {
                Ok(count) => *done += count,
                Err(error) if again(&error) => {}
                Err(_) => *done = bytes.len(),
            }
            if *done == bytes.len() {
                self.stream.shutdown();
                self.state = State::Done;
            }
        }
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What follows from what was read until now.
fn asked(request: Vec<u8>, board: &Board) -> State {
    match request::asked(&request) {
        Asked::More => State::Reading(request),
        Asked::Page(Page::Health) if board.is_alive() => State::Writing(response("200 OK", TEXT, "ok\n"), 0),
        Asked::Page(Page::Health) => State::Writing(unavailable(), 0),
        Asked::Page(page) => {
            board.ask();
            State::Waiting(page)
        }
        Asked::Refused(status) => State::Writing(response(status, TEXT, &format!("{status}\n")), 0),
    }
}

fn unavailable() -> Vec<u8> {
    response("503 Service Unavailable", TEXT, "the engine does not answer\n")
}

fn response(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.0 {status}\r\n{allow}Content-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn shutdown(&self) {
        // The other end may have gone already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_pieces_and_have_an_end() {
        let board = Board::new();
        let mut request = b"GET /status HTTP/1.1\r\nHost: x\r\n".to_vec();
        assert!(matches!(asked(request.clone(), &board), State::Reading(_)));
        request.extend(b"\r\n");
        assert!(matches!(asked(request, &board), State::Waiting(Page::Status)));
        let State::Writing(answer, 0) = asked(vec![b'x'; request::LONGEST + 1], &board) else {
            panic!("no answer")
        };
        assert!(answer.starts_with(b"HTTP/1.0 413 "));
    }
}
