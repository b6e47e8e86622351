//! Back to the kernel when the way to the other host is gone: the agent, the fabric, or the other agent.
//!
//! Nobody is left to ask how far the bytes came, so the two ends tell each other over the kernel connection. Each writes
//! a *mark* (one byte of urgent data, which tells its place in the stream apart from everything else, tcp(7)) and behind
//! it a *record*: its switches, how many bytes it has sent through the channel, how many it has received. Then it
//! sends again what the other has not got: that is still in its ring, because an agent gives room back only for what has
//! reached the other program. The receiver puts together what it had, what is sent again and what had come through
//! the kernel, in the order of the switches, and from then on the stream is the kernel's.
//!
//! ```text
//!   kernel connection:   ... data | mark | record | bytes sent again | data ...
//! ```
//! One thread, the listener, does this for all streams of the process, with descriptors of its own: a program may close
//! meanwhile. Calls on a stream find it busy until its end has both written and read.

use super::record::{RECORD_BYTES, Record, in_order};
use crate::channel::{self, Channel};
use crate::config::LogLevel;
use crate::lock::Mutex;
use crate::shm::party::Recovery;
use crate::wait::kernel_state;
use crate::{epoll, iov, log, position, stats, sys, table};
use core::sync::atomic::Ordering;

/// One stream that returns.
struct Returning {
    channel: &'static Channel,
    slot: u32,
    generation: u8,
    /// A copy of the program's descriptor.
    fd: i32,
    own: Record,
    /// What this end has sent and may have to send again: up to `own.sent`.
    retained: Vec<u8>,
    marked: bool,
    /// To be written, and how much of it was.
    output: Vec<u8>,
    written: usize,
    input: Input,
    /// Bytes that came through the kernel before the mark.
    before_mark: Vec<u8>,
    record: Vec<u8>,
    theirs: Option<Record>,
    again: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Input {
    BeforeMark,
    Record,
    Again,
    Done,
}

/// What a step came to.
enum Step {
    Progress,
    /// Nothing to do until the connection can be read or written again.
    Waits,
    /// Both directions are the kernel's.
    Over,
    /// The connection has ended, or the other end says what cannot be true.
    Failed(&'static str),
}

/// Streams that have to return, noted by any thread: channel index and slot.
static REQUESTS: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());

/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Most bytes that are kept of what came before the mark.
const MOST_KEPT: usize = 64 << 20;

/// The way of a stream is gone: it has to return to the kernel. The caller wakes the listener.
pub fn note(channel: &Channel, slot: u32) {
    if !channel.is_open(slot) || !channel.party.stream(slot).begin_recovery(Recovery::None) {
        return;
    }
    if channel.is_joined(slot) && !channel.is_settled(slot) {
        REQUESTS.lock().push((channel.index, slot));
    } else {
        end(channel, slot, Recovery::Quiet);
    }
}

/// The other end has begun to return: so does this one. From a thread of the program.
pub fn answer(channel: &Channel, slot: u32) {
    let stream = channel.party.stream(slot);
    if stream.begin_recovery(Recovery::None) || stream.begin_recovery(Recovery::Quiet) {
        REQUESTS.lock().push((channel.index, slot));
        super::listener::wake();
    }
}

/// Whether streams wait to return.
pub(super) fn has_requests() -> bool {
    !REQUESTS.lock().is_empty()
}

/// The streams that are returning, kept by the listener.
#[derive(Default)]
pub(super) struct Failover {
    returning: Vec<Returning>,
}

impl Failover {
    pub(super) fn is_idle(&self) -> bool {
        self.returning.is_empty() && !has_requests()
    }

    /// What the listener has to poll for.
    pub(super) fn poll_set(&self) -> impl Iterator<Item = libc::pollfd> {
        self.returning.iter().map(|stream| {
            let mut events = 0;
            if stream.input != Input::Done {
                events |= libc::POLLIN | libc::POLLPRI;
            }
            if !stream.marked || stream.written < stream.output.len() {
                events |= libc::POLLOUT;
            }
            libc::pollfd { fd: stream.fd, events, revents: 0 }
        })
    }

    /// Takes requests and goes on with every stream as far as it gets.
    pub(super) fn work(&mut self) {
        for (index, slot) in core::mem::take(&mut *REQUESTS.lock()) {
            if let Some(channel) = channel::at(index) {
                log::line(LogLevel::Info, format_args!("stream {slot} returns to the kernel"));
                match Returning::begin(channel, slot) {
                    Some(stream) => self.returning.push(stream),
                    None => end(channel, slot, Recovery::Failed),
                }
            }
        }
        self.returning.retain_mut(|stream| {
            let outcome = loop {
                match stream.step() {
                    Step::Progress => {}
                    Step::Waits => return true,
                    Step::Over => break Recovery::Done,
                    Step::Failed(why) => {
                        let slot = stream.slot;
                        log::line(
                            LogLevel::Warn,
                            format_args!("stream {slot} is reset, it cannot return: {why}"),
                        );
                        break Recovery::Failed;
                    }
                }
            };
            if outcome == Recovery::Failed {
                let _ = sys::shutdown(stream.fd, libc::SHUT_RDWR);
            }
            table::abandon(stream.fd);
            end(stream.channel, stream.slot, outcome);
            false
        });
    }
}

/// Lets calls on the stream go on, and wakes those that wait.
fn end(channel: &Channel, slot: u32, outcome: Recovery) {
    log::line(LogLevel::Info, format_args!("stream {slot} has returned to the kernel: {outcome:?}"));
    channel.party.stream(slot).end_recovery(outcome);
    channel.mark_recovered(slot);
    if outcome != Recovery::Quiet {
        stats::process().failovers.add(1);
    }
    let socket = channel.socket_of(slot);
    if let Some(socket) = socket.checked_sub(1).and_then(crate::socket::at) {
        socket.hint.store(true, Ordering::Relaxed);
        socket.calls.store(0, Ordering::Relaxed);
        socket.returned.store(outcome != Recovery::Failed, Ordering::Release);
    }
    epoll::writable(socket);
    channel.wake_all(slot);
}

impl Returning {
    fn begin(channel: &'static Channel, slot: u32) -> Option<Self> {
        let socket = channel.socket_of(slot).checked_sub(1).and_then(crate::socket::at)?;
        let fd = sys::fcntl(socket.fd.load(Ordering::Relaxed), libc::F_DUPFD_CLOEXEC, 0).ok()?;
        let fd = table::adopt(fd as i32).ok()?;
        let generation = socket.generation();
        let received = channel.stop_receiving(slot, generation);
        let stopped = received.and_then(|received| channel.stop_sending(slot, generation, received));
        let Some((own, retained)) = stopped else {
            table::abandon(fd);
            return None;
        };
        Some(Self {
            channel,
            slot,
            generation,
            fd,
            own,
            retained,
            marked: false,
            output: own.encode().to_vec(),
            written: 0,
            input: Input::BeforeMark,
            before_mark: Vec::new(),
            record: Vec::new(),
            theirs: None,
            again: Vec::new(),
        })
    }

    fn step(&mut self) -> Step {
        let wrote = self.write();
        let read = self.read();
        match (wrote, read) {
            (Step::Failed(why), _) | (_, Step::Failed(why)) => Step::Failed(why),
            (Step::Over, Step::Over) if self.theirs.is_some() => self.finish(),
            (Step::Progress, _) | (_, Step::Progress) => Step::Progress,
            _ => Step::Waits,
        }
    }

    fn write(&mut self) -> Step {
        if !self.marked {
            // A call of the program that is inside the kernel's send comes first.
            if self.channel.sends_in_kernel(self.slot) {
                return Step::Waits;
            }
            let mark = iov::single([MARK].as_ptr().cast_mut(), 1);
            let flags = libc::MSG_OOB | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: one readable byte.
            return match unsafe { sys::sendmsg(self.fd, &mark, 1, flags) } {
                Ok(_) => {
                    self.marked = true;
                    Step::Progress
                }
                Err(libc::EAGAIN | libc::EINTR) => Step::Waits,
                Err(_) => Step::Failed("the mark cannot be written"),
            };
        }
        let rest = self.output.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            return Step::Over;
        }
        let part = iov::single(rest.as_ptr().cast_mut(), rest.len());
        // SAFETY: one readable part.
        match unsafe { sys::sendmsg(self.fd, &part, 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) } {
            Ok(count) => {
                self.written += count;
                Step::Progress
            }
            Err(libc::EAGAIN | libc::EINTR) => Step::Waits,
            Err(_) => Step::Failed("the record cannot be written"),
        }
    }

    fn read(&mut self) -> Step {
        match self.input {
            Input::BeforeMark => self.read_before_mark(),
            Input::Record => self.read_record(),
            Input::Again => self.read_again(),
            Input::Done => Step::Over,
        }
    }

    fn read_before_mark(&mut self) -> Step {
        if position::at_urgent_mark(self.fd) {
            let mut byte = 0u8;
            let part = iov::single(&raw mut byte, 1);
            // SAFETY: one writable byte.
            let taken = unsafe { sys::recvmsg(self.fd, &part, 1, libc::MSG_OOB | libc::MSG_DONTWAIT) };
            if taken == Err(libc::EAGAIN) {
                // Announced, and still on its way.
                return Step::Waits;
            }
            if taken != Ok(1) || byte != MARK {
                return Step::Failed("the other end has sent urgent data of its own");
            }
            self.input = Input::Record;
            return Step::Progress;
        }
        // No more than is queued now: a read that finds the mark in front of it would skip it.
        let queued = position::readable(self.fd) as usize;
        if queued == 0 {
            let over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
            let ended = kernel_state(self.fd, libc::POLLRDHUP) & over != 0;
            let nothing = position::readable(self.fd) == 0 && !position::at_urgent_mark(self.fd);
            return if ended && nothing {
                Step::Failed("the connection has ended before the other end's mark")
            } else {
                Step::Waits
            };
        }
        match receive(self.fd, queued.min(PIECE)) {
            Ok(bytes) if self.before_mark.len() + bytes.len() > MOST_KEPT => {
                Step::Failed("too many bytes came before the mark")
            }
            Ok(bytes) => {
                self.before_mark.extend_from_slice(&bytes);
                Step::Progress
            }
            Err(step) => step,
        }
    }

    fn read_record(&mut self) -> Step {
        match receive(self.fd, RECORD_BYTES - self.record.len()) {
            Ok(bytes) => {
                self.record.extend_from_slice(&bytes);
                if self.record.len() < RECORD_BYTES { Step::Progress } else { self.take_record() }
            }
            Err(step) => step,
        }
    }

    /// The other end has said how far it is: what it has not got follows the own record.
    fn take_record(&mut self) -> Step {
        let Some(theirs) = Record::decode(&self.record) else {
            return Step::Failed("there is no record behind the mark");
        };
        let oldest = self.own.sent.saturating_sub(self.retained.len() as u64);
        if !(oldest..=self.own.sent).contains(&theirs.received) || theirs.sent < self.own.received {
            return Step::Failed("the other end's counts cannot be");
        }
        let from = (theirs.received - oldest) as usize;
        self.output.extend_from_slice(self.retained.get(from..).unwrap_or_default());
        self.retained = Vec::new();
        self.theirs = Some(theirs);
        self.input = Input::Again;
        Step::Progress
    }

    fn read_again(&mut self) -> Step {
        let missing = self.theirs.map_or(0, |theirs| theirs.sent - self.own.received) as usize;
        let left = missing.saturating_sub(self.again.len());
        if left == 0 {
            self.input = Input::Done;
            return Step::Progress;
        }
        match receive(self.fd, left.min(PIECE)) {
            Ok(bytes) => {
                self.again.extend_from_slice(&bytes);
                Step::Progress
            }
            Err(step) => step,
        }
    }

    /// Both directions are settled: what this end has received is put in order for the program.
    fn finish(&mut self) -> Step {
        let Some(theirs) = self.theirs else { return Step::Failed("the other end's counts are missing") };
        let Some(state) = self.channel.take_received(self.slot, self.generation) else {
            // The program has closed its end: nobody reads.
            return Step::Over;
        };
        let mut channel = state.queued;
        channel.append(&mut self.again);
        let kernel = core::mem::take(&mut self.before_mark);
        let Some(bytes) = in_order(&theirs, state.passed, state.consumed, state.kernel_read, channel, kernel)
        else {
            return Step::Failed("the bytes do not fit the switches");
        };
        if self.channel.put_received(self.slot, &bytes) {
            Step::Over
        } else {
            Step::Failed("memory has run out")
        }
    }
}

/// The byte of urgent data.
const MARK: u8 = 0xc7;

/// Some bytes; or how the step ends without.
fn receive(fd: i32, most: usize) -> Result<Vec<u8>, Step> {
    let mut bytes = vec![0u8; most];
    let part = iov::single(bytes.as_mut_ptr(), most);
    // SAFETY: one writable part.
    match unsafe { sys::recvmsg(fd, &part, 1, libc::MSG_DONTWAIT) } {
        Ok(count @ 1..) => {
            bytes.truncate(count);
            Ok(bytes)
        }
        Err(libc::EAGAIN | libc::EINTR) => Err(Step::Waits),
        Ok(_) | Err(_) => Err(Step::Failed("the connection has ended")),
    }
}

/// Whether the urgent byte on the connection, which has one, is the mark of the other end of a far stream that has begun to
/// return.
pub fn is_marked(fd: i32) -> bool {
    let mut byte = 0u8;
    let part = iov::single(&raw mut byte, 1);
    let flags = libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one writable byte.
    unsafe { sys::recvmsg(fd, &part, 1, flags) == Ok(1) && byte == MARK }
}
