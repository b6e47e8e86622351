//! Other processes with copies of a connection: children, images after exec, a worker that gets them in messages.

use convoy_tests::kit::passing::{receive_descriptor, send_descriptor, unix_pair};
use convoy_tests::kit::{Stream, show, sys};
use libc::c_int;

use crate::end::{End, MOST_COPIES, MOST_UNREAD};

/// The word by which this program knows that it has been executed for a connection.
pub const AFTER_EXEC: &str = "after-exec";

/// What another process does with a connection before it ends.
#[derive(Clone, Copy)]
enum Work {
    Nothing,
    Send(usize),
    Receive(usize),
}

impl Work {
    /// Chooses what this end allows now, and notes what comes of it.
    fn choose(end: &End, how: usize, count: usize) -> Self {
        let may_send = !end.sends_no_more && !end.there_closed && end.outbound + count <= MOST_UNREAD;
        match how % 3 {
            0 if may_send => Self::Send(count),
            1 if end.inbound > 0 && !end.reads_no_more => Self::Receive(end.inbound),
            _ => Self::Nothing,
        }
    }

    fn note(self, end: &mut End) {
        match self {
            Self::Nothing => {}
            Self::Send(count) => {
                end.link.out.advance(count);
                end.outbound += count;
            }
            Self::Receive(count) => {
                end.link.inn.advance(count);
                end.inbound -= count;
            }
        }
    }

    fn to_words(self) -> [u64; 2] {
        match self {
            Self::Nothing => [0, 0],
            Self::Send(count) => [1, count as u64],
            Self::Receive(count) => [2, count as u64],
        }
    }

    fn from_words(words: [u64; 2]) -> Self {
        match words[0] {
            0 => Self::Nothing,
            1 => Self::Send(words[1] as usize),
            _ => Self::Receive(words[1] as usize),
        }
    }

    /// Does it, and gives the status to end with.
    fn perform(self, stream: &mut Stream) -> i32 {
        match self {
            Self::Nothing => 0,
            Self::Send(count) => perform_sends(stream, count),
            Self::Receive(count) => perform_receives(stream, count),
        }
    }
}

fn perform_sends(stream: &mut Stream, count: usize) -> i32 {
    let mut left = count;
    while left > 0 {
        match stream.send_with(left, libc::MSG_NOSIGNAL) {
            Ok(sent) => left -= sent,
            Err(error) if error.0 == libc::EAGAIN => drop(sys::poll_one(stream.fd, libc::POLLOUT, -1)),
            Err(error) => return error.0,
        }
    }
    0
}

fn perform_receives(stream: &mut Stream, count: usize) -> i32 {
    let mut left = count;
    while left > 0 {
        match stream.recv_with(left, 0) {
            Ok(0) => return 1,
            Ok(received) => left -= received,
            Err(error) if error.0 == libc::EAGAIN => drop(sys::poll_one(stream.fd, libc::POLLIN, -1)),
            Err(error) => return error.0,
        }
    }
    0
}

/// What another image needs to go on with a stream: number, who connected, positions, work.
fn description(end: &End, work: Work) -> [u64; 6] {
    let [verb, count] = work.to_words();
    let stream = &end.link.stream;
    [end.link.number, u64::from(end.connects), stream.out.position, stream.inn.position, verb, count]
}

fn perform_described(fd: c_int, words: [u64; 6]) -> i32 {
    let mut stream = Stream::new(fd, words[0], words[1] == 1);
    (stream.out.position, stream.inn.position) = (words[2], words[3]);
    Work::from_words([words[4], words[5]]).perform(&mut stream)
}

/// What this program does after an exec.
pub fn after_exec(words: &[String]) {
    let numbers: Vec<u64> = words.iter().map(|word| word.parse().expect("a number")).collect();
    let described = numbers[1..].try_into().expect("a description");
    std::process::exit(perform_described(numbers[0] as c_int, described));
}

impl End {
    pub fn child_send(&mut self, fd: c_int, count: usize) -> String {
        self.child(fd, 0, count)
    }

    /// A child reads everything that is there.
    pub fn child_recv(&mut self, fd: c_int) -> String {
        self.child(fd, 1, 0)
    }

    /// Unread bytes that change hands leave traces: behind the end of what the other end sends they cannot be put into the
    /// kernel's connection any more, so they are lost to programs without Convoy (docs/compatibility.md); and to an epoll
    /// they come twice, which an edge-triggered one tells twice. From another host they cannot be put there at all.
    fn has_bytes_to_move(&self) -> bool {
        self.inbound > 0 && (self.far || self.there_sends_no_more || !self.watched.is_empty())
    }

    fn child(&mut self, fd: c_int, how: usize, count: usize) -> String {
        let work = Work::choose(self, how, count);
        let mut stream = self.link.stream;
        stream.fd = fd;
        let child = sys::fork(|| work.perform(&mut stream));
        let ended = sys::wait(child);
        work.note(self);
        ended
    }

    /// A child becomes another image, with or without the library.
    pub fn exec(&mut self, fd: c_int, how: usize, count: usize) -> String {
        if self.has_bytes_to_move() {
            return "skipped".into();
        }
        let work = Work::choose(self, how, count);
        let words = description(self, work).map(|word| word.to_string());
        let descriptor = fd.to_string();
        let child = sys::fork(|| {
            sys::fcntl(fd, libc::F_SETFD, 0).unwrap();
            let mut arguments = vec!["fuzz", AFTER_EXEC, &descriptor];
            arguments.extend(words.iter().map(String::as_str));
            sys::exec("/proc/self/exe", &arguments, (how / 3).is_multiple_of(2));
            102
        });
        let ended = sys::wait(child);
        work.note(self);
        ended
    }

    /// Over a Unix socket to this very process, under another number.
    pub fn pass_to_itself(&mut self, fd: c_int) -> String {
        if self.descriptors.len() >= MOST_COPIES || self.has_bytes_to_move() {
            return "skipped".into();
        }
        let (ours, theirs) = unix_pair();
        send_descriptor(ours, fd);
        self.descriptors.push(receive_descriptor(theirs));
        format!("{} {}", show(sys::close(ours)), show(sys::close(theirs)))
    }

    /// To a process that is no child of the one that made the connection.
    pub fn pass(&mut self, worker: &Worker, numbers: &[usize]) -> String {
        let Some(fd) = self.descriptor(numbers[0]) else { return "closed".into() };
        if self.has_bytes_to_move() {
            return "skipped".into();
        }
        self.settle();
        let work = Work::choose(self, numbers[1], numbers[2]);
        let ended = worker.perform(fd, description(self, work));
        work.note(self);
        ended.to_string()
    }
}

/// A process that waits for connections in messages.
pub struct Worker {
    pid: c_int,
    channel: c_int,
}

impl Worker {
    pub fn start() -> Self {
        let (channel, theirs) = unix_pair();
        let pid = sys::fork(|| {
            sys::close(channel).unwrap();
            serve(theirs);
            0
        });
        sys::close(theirs).unwrap();
        Self { pid, channel }
    }

    fn perform(&self, fd: c_int, words: [u64; 6]) -> u8 {
        send_descriptor(self.channel, fd);
        let bytes = words.map(u64::to_ne_bytes).concat();
        assert_eq!(sys::write(self.channel, &bytes), Ok(bytes.len()));
        let mut answer = [0];
        assert_eq!(sys::read(self.channel, &mut answer), Ok(1), "the worker has gone");
        answer[0]
    }

    pub fn end(self) {
        sys::close(self.channel).unwrap();
        assert_eq!(sys::wait(self.pid), "exit 0");
    }
}

fn serve(channel: c_int) {
    while let Ok(1) = sys::recv(channel, &mut [0], libc::MSG_PEEK) {
        let fd = receive_descriptor(channel);
        let mut bytes = [0; 48];
        assert_eq!(sys::recv(channel, &mut bytes, libc::MSG_WAITALL), Ok(48));
        let word = |index: usize| u64::from_ne_bytes(bytes[index * 8..][..8].try_into().expect("a word"));
        let status = perform_described(fd, std::array::from_fn(word));
        sys::close(fd).unwrap();
        sys::write(channel, &[status as u8]).unwrap();
    }
}

/// A child with copies of all connections, which does nothing until it is told to end.
pub struct Holder {
    pid: c_int,
    commands: c_int,
}

impl Holder {
    pub fn start(ends: &[End]) -> Self {
        let (theirs, commands) = sys::pipe();
        let pid = sys::fork(|| {
            sys::close(commands).unwrap();
            let mut words = [0; 64];
            let count = sys::read(theirs, &mut words).unwrap();
            obey(ends, &words[..count])
        });
        sys::close(theirs).unwrap();
        Self { pid, commands }
    }

    /// Whether that is its end. What a killed process has sent is lost with the agents that have it.
    pub fn is_killed(how: usize) -> bool {
        how % 8 == 7 && !crate::faults()
    }

    /// Lets it do something with a connection and end, or kills it.
    pub fn end(self, end: &mut End, link: usize, how: usize, count: usize) -> String {
        let work = if end.held { Work::choose(end, how, count) } else { Work::Nothing };
        if Self::is_killed(how) {
            sys::kill(self.pid, libc::SIGKILL);
        } else {
            let bytes = [&[link as u64][..], &description(end, work)].concat();
            let bytes: Vec<u8> = bytes.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(sys::write(self.commands, &bytes), Ok(bytes.len()));
            work.note(end);
        }
        sys::close(self.commands).unwrap();
        sys::wait(self.pid)
    }
}

fn obey(ends: &[End], bytes: &[u8]) -> i32 {
    let words: Vec<u64> =
        bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().expect("a word"))).collect();
    let Some((link, described)) = words.split_first() else { return 0 };
    let held = ends[*link as usize].descriptors.first();
    held.map_or(0, |fd| perform_described(*fd, described.try_into().expect("a description")))
}
