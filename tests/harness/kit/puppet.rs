//! The other end of a case's connections: a thread or a process that does what it is told.
//!
//! A command is one line, `NUMBER VERB ARGUMENTS...`, on a pipe; the answer is one line on another. Commands run
//! one after the other, so a case may leave one running (`start`) while it makes blocking calls itself.

use std::collections::BTreeMap;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use libc::c_int;

use super::hosts::{self, Hosts};
use super::net::{self, Family};
use super::stream::{Stream, told};
use super::{show, sys};
use crate::run::PEER_LIBRARY;

/// A running puppet, as its master sees it.
pub struct Puppet {
    commands: c_int,
    answers: c_int,
    place: Option<Place>,
}

enum Place {
    Thread(JoinHandle<()>),
    Process(Child),
}

impl Puppet {
    /// A puppet in a thread of this process.
    pub fn in_thread() -> Self {
        let (theirs_in, commands) = sys::pipe();
        let (answers, theirs_out) = sys::pipe();
        let thread = std::thread::spawn(move || {
            serve(theirs_in, theirs_out);
            sys::close(theirs_in).unwrap();
            sys::close(theirs_out).unwrap();
        });
        Self { commands, answers, place: Some(Place::Thread(thread)) }
    }

    /// A puppet in a process of its own: this same program. The harness may want it with another library.
    pub fn in_process() -> Self {
        Self::start_process(Command::new("/proc/self/exe"))
    }

    /// The same on the other host.
    pub fn on_host() -> Self {
        Self::start_process(Hosts::this_program_there())
    }

    fn start_process(mut command: Command) -> Self {
        command.arg("puppet").stdin(Stdio::piped()).stdout(Stdio::piped());
        match std::env::var(PEER_LIBRARY) {
            Ok(library) if library.is_empty() => command.env_remove("LD_PRELOAD"),
            Ok(library) => command.env("LD_PRELOAD", library),
            Err(_) => &mut command,
        };
        let mut child = command.spawn().expect("puppet");
        let commands = OwnedFd::from(child.stdin.take().unwrap()).into_raw_fd();
        let answers = OwnedFd::from(child.stdout.take().unwrap()).into_raw_fd();
        Self { commands, answers, place: Some(Place::Process(child)) }
    }

    /// Gives a command without waiting for its answer.
    pub fn start(&self, command: &str) {
        let line = format!("{command}\n");
        assert_eq!(sys::write(self.commands, line.as_bytes()), Ok(line.len()), "command to the puppet");
    }

    /// The answer of the oldest command that has none yet.
    pub fn finish(&self) -> String {
        line(self.answers).expect("the puppet has gone")
    }

    /// [`Self::start`] and [`Self::finish`].
    pub fn ask(&self, command: &str) -> String {
        self.start(command);
        self.finish()
    }

    /// The descriptor that becomes readable when there is an answer, or when the puppet has gone.
    pub fn answers(&self) -> c_int {
        self.answers
    }

    /// The process's id.
    pub fn pid(&self) -> c_int {
        match &self.place {
            Some(Place::Process(child)) => c_int::try_from(child.id()).unwrap(),
            _ => panic!("the puppet is no process of its own"),
        }
    }

    /// Ends a puppet process at once, and waits until the kernel has done so.
    pub fn kill(&mut self) {
        let pid = self.pid();
        sys::kill(pid, libc::SIGKILL);
        self.end();
    }

    /// Lets the puppet end, and waits for it.
    pub fn end(&mut self) {
        let Some(place) = self.place.take() else { return };
        sys::close(self.commands).unwrap();
        match place {
            Place::Thread(thread) => thread.join().expect("the puppet's thread"),
            Place::Process(mut child) => {
                child.wait().expect("the puppet's end");
            }
        }
        sys::close(self.answers).unwrap();
    }
}

/// Reads one line, byte by byte, so that nothing behind it is taken.
fn line(fd: c_int) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    loop {
        match sys::read(fd, &mut byte) {
            Ok(0) => return None,
            Ok(_) if byte[0] == b'\n' => return Some(String::from_utf8(text).unwrap()),
            Ok(_) => text.push(byte[0]),
            Err(error) => assert_eq!(error.0, libc::EINTR, "pipe between case and puppet: {error}"),
        }
    }
}

/// Obeys commands until there are no more.
pub fn serve(commands: c_int, answers: c_int) {
    let mut strings = Strings { streams: BTreeMap::new(), listener: -1, family: Family::V4 };
    while let Some(command) = line(commands) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number: u64 = words[0].parse().expect("a connection's number");
        let answer = format!("{}\n", strings.obey(number, words[1], &words[2..]));
        if sys::write(answers, answer.as_bytes()).is_err() {
            break;
        }
    }
}

struct Strings {
    streams: BTreeMap<u64, Stream>,
    listener: c_int,
    family: Family,
}

impl Strings {
    fn obey(&mut self, number: u64, verb: &str, words: &[&str]) -> String {
        match verb {
            "listen" => self.listen(words[0]),
            "accept" => self.accept(number),
            "connect" => self.connect(number, words),
            "wait" => "here".into(),
            "unlisten" => show(sys::close(self.listener)),
            _ => {
                let stream = self.streams.get_mut(&number).expect("a connection with this number");
                let numbers: Vec<usize> = words.iter().map(|word| word.parse().expect("a number")).collect();
                perform(stream, verb, &numbers)
            }
        }
    }

    fn listen(&mut self, family: &str) -> String {
        self.family = Family::parse(family);
        let (fd, port) = net::listen_at(self.family, &hosts::here(self.family, 0));
        self.listener = fd;
        port.to_string()
    }

    fn accept(&mut self, number: u64) -> String {
        let fd = net::accept(self.listener, libc::SOCK_CLOEXEC).unwrap();
        net::no_delay(fd);
        self.streams.insert(number, Stream::new(fd, number, false));
        "accepted".into()
    }

    fn connect(&mut self, number: u64, words: &[&str]) -> String {
        let family = Family::parse(words[0]);
        let fd = net::socket(family, 0);
        let result = net::connect(fd, &hosts::there(family, words[1].parse().unwrap()));
        net::no_delay(fd);
        self.streams.insert(number, Stream::new(fd, number, true));
        show(result)
    }
}

/// What a puppet can do with a stream. `numbers` are the command's arguments.
fn perform(stream: &mut Stream, verb: &str, numbers: &[usize]) -> String {
    let number = |index: usize| numbers.get(index).copied();
    let first = number(0).unwrap_or(0);
    let piece = number(1).unwrap_or(first.max(1));
    match verb {
        "send" => told(stream.send_all(first, piece)),
        "recv" => told(stream.recv_all(first, piece)),
        "peek" => show(stream.peek_with(first, 0)),
        "drain" => told(stream.recv_all(usize::MAX, if first == 0 { 65536 } else { first })),
        "ping" => {
            stream.ping(first, piece);
            "done".into()
        }
        "pong" => {
            stream.pong(first, piece);
            "done".into()
        }
        "both" => {
            stream.both(first, piece, number(2).unwrap_or(16384));
            "done".into()
        }
        "mirror" => mirror(stream, first),
        "count" => count(stream, first),
        "fill" => format!("full after {}", stream.fill_up(first)),
        "await" => {
            stream.await_bytes(first);
            "there".into()
        }
        "poll" => sys::events(sys::poll_one(stream.fd, i16::try_from(first).unwrap(), -1)),
        "urgent" => show(sys::send(stream.fd, b"!", libc::MSG_OOB)),
        "skip" => {
            stream.out.advance(first);
            stream.inn.advance(piece);
            "skipped".into()
        }
        "shutdown" => show(sys::shutdown(stream.fd, c_int::try_from(first).unwrap())),
        "close" => show(sys::close(stream.fd)),
        "reset" => reset(stream.fd),
        "receive-urgent" => sys::receive_urgent(stream.fd),
        "room" => show(sys::setsockopt(
            stream.fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            &c_int::try_from(first).unwrap(),
        )),
        _ => panic!("no puppet can {verb}"),
    }
}

/// Closes with a reset.
pub fn reset(fd: c_int) -> String {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    show(sys::close(fd))
}

/// Sends its own bytes, as many as it receives, until the other end has finished or so many have passed.
fn mirror(stream: &mut Stream, limit: usize) -> String {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut total = 0;
    while total < limit {
        match stream.recv_with((limit - total).min(65536), 0) {
            Ok(0) => break,
            Ok(count) => {
                if let (sent, Some(error)) = stream.send_all(count, count) {
                    return format!("{} then {error}", total + sent);
                }
                total += count;
            }
            Err(error) => return format!("{total} then {error}"),
        }
    }
    total.to_string()
}

/// Receives so many bytes without looking at them.
fn count(stream: &Stream, limit: usize) -> String {
    let (mut total, mut buffer) = (0, vec![0; 65536]);
    while total < limit {
        let room = buffer.len().min(limit - total);
        match sys::recv(stream.fd, &mut buffer[..room], 0) {
            Ok(0) => break,
            Ok(count) => total += count,
            Err(error) => return format!("{total} then {error}"),
        }
    }
    total.to_string()
}

impl Drop for Puppet {
    fn drop(&mut self) {
        if let Some(Place::Process(child)) = &mut self.place {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
