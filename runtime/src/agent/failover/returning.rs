//! One stream that returns to the kernel: what it writes, what it reads, and how the bytes are put in order.

use super::MARK;
use crate::channel::Channel;
use crate::channel::far_return::Received;
use crate::log::Reason;
use crate::wait::kernel_state;
use crate::{iov, position, sys, table};
use convoy_aggregator::record::{RECORD_BYTES, Record, in_order};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::borrow::Cow;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Most bytes that are kept of what came before the mark: of one stream, and of all.
const MOST_KEPT: usize = 64 << 20;
const MOST_KEPT_OF_ALL: usize = 512 << 20;
/// So long may a call of the program that sends through the kernel stand in the way, in nanoseconds. It gets on when the
/// other end reads, which it does when it returns; a thread that was cancelled in the call never does.
const IN_THE_WAY_NS: u64 = 60_000_000_000;

/// Bytes kept of all streams. Written by the listener only.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// One stream that returns.
pub(super) struct Returning {
    pub(super) channel: &'static Channel,
    pub(super) slot: u32,
    pub(super) generation: u8,
    /// A copy of the program's descriptor.
    pub(super) fd: i32,
    /// Most bytes that the other end may have sent through the channel: the credit it was granted.
    granted: u64,
    since: u64,
    own: Record,
    /// What this end has sent and may have to send again: up to `own.sent`.
    retained: Vec<u8>,
    /// The program has ended what this end sends when all of it had arrived: there is nothing to be said.
    says_nothing: bool,
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
    /// The connection has ended, and the other end had nothing to settle.
    Ended,
}

/// What a step came to.
pub(super) enum Step {
    Progress,
    /// Nothing to do until the connection can be read or written again.
    Waits,
    /// Both directions are the kernel's.
    Over,
    /// The connection has ended, or the other end says what cannot be true.
    Failed(Why),
}

/// Why a stream cannot return, with the kernel's answer where there was one.
pub(super) struct Why {
    text: Cow<'static, str>,
    errno: Option<sys::Errno>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => write!(f, "{}: {}", self.text, Reason(errno)),
            None => f.write_str(&self.text),
        }
    }
}

impl Step {
    fn failed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(Why { text: text.into(), errno: None })
    }

    fn failed_by(text: &'static str, errno: sys::Errno) -> Self {
        Self::Failed(Why { text: text.into(), errno: Some(errno) })
    }
}

impl Returning {
    /// With a copy of the program's descriptor, which goes with it. Nothing when the stream cannot say how far it is.
    pub(super) fn begin(channel: &'static Channel, slot: u32, generation: u8, fd: i32) -> Option<Self> {
        let (received, granted) = channel.stop_receiving(slot, generation)?;
        let (own, retained) = channel.stop_sending(slot, generation, received)?;
        // Not freed while this looks into it, even when the program closes meanwhile.
        channel.streams.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            channel,
            slot,
            generation,
            fd,
            granted,
            since: sys::now_ns(),
            own,
            retained,
            says_nothing: channel.has_arrived_and_ended(slot, generation, fd),
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

    pub(super) fn step(&mut self) -> Step {
        let read = self.read();
        if self.input == Input::Ended && !self.marked {
            return self.finish();
        }
        let wrote = self.write();
        match (wrote, read) {
            (_, Step::Failed(why)) => Step::Failed(why),
            // Its end may have come since the read.
            // Nobody reads the rest of what this end says.
            (Step::Failed(_), _) if self.input == Input::Ended => self.finish(),
            (Step::Failed(why), _) => match self.read() {
                Step::Progress => Step::Progress,
                _ => Step::Failed(why),
            },
            (Step::Over, Step::Over) if self.theirs.is_some() => self.finish(),
            (Step::Progress, _) | (_, Step::Progress) => Step::Progress,
            _ => Step::Waits,
        }
    }

    fn write(&mut self) -> Step {
        if self.says_nothing {
            return Step::Over;
        }
        if !self.marked {
            // A call of the program that is inside the kernel's send comes first.
            if self.channel.sends_in_kernel(self.slot) {
                return if sys::now_ns() - self.since < IN_THE_WAY_NS {
                    Step::Waits
                } else {
                    Step::failed("a call of the program does not leave the kernel")
                };
            }
            if !may_point_at_a_byte(self.fd) {
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
                Err(errno) => Step::failed_by("the mark cannot be written", errno),
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
            Err(errno) => Step::failed_by("the record cannot be written", errno),
        }
    }

    fn read(&mut self) -> Step {
        match self.input {
            Input::BeforeMark => self.read_before_mark(),
            Input::Record => self.read_record(),
            Input::Again => self.read_again(),
            Input::Done | Input::Ended => Step::Over,
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
            if let Err(errno) = taken {
                return Step::failed_by("the mark cannot be read", errno);
            }
            if byte != MARK {
                return Step::failed(format!("the other end has sent urgent data of its own: {byte:#04x}"));
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
            return if ended && nothing { self.end_without_mark() } else { Step::Waits };
        }
        match receive(self.fd, queued.min(PIECE)) {
            Ok(bytes)
                if self.before_mark.len() + bytes.len() > MOST_KEPT
                    || KEPT.load(Ordering::Relaxed) + bytes.len() > MOST_KEPT_OF_ALL =>
            {
                Step::failed("too many bytes came before the mark")
            }
            Ok(bytes) => {
                KEPT.fetch_add(bytes.len(), Ordering::Relaxed);
                self.before_mark.extend_from_slice(&bytes);
                Step::Progress
            }
            Err(step) => step,
        }
    }

    /// The other end has ended without a mark: it knew that both directions were the kernel's. This end did not yet know it of what it
    /// sends itself; what it receives is as the agent has told.
    fn end_without_mark(&mut self) -> Step {
        if !self.channel.other_stays(self.slot) {
            return Step::failed("the connection has ended before the other end's mark");
        }
        self.theirs = Some(self.channel.switches_heard_of(self.slot));
        self.input = Input::Ended;
        Step::Progress
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
            return Step::failed("there is no record behind the mark");
        };
        let oldest = self.own.sent.saturating_sub(self.retained.len() as u64);
        let could_get = oldest..=self.own.sent;
        let could_send = self.own.received..=self.granted;
        if !(could_get.contains(&theirs.received) && could_send.contains(&theirs.sent)) {
            return Step::failed(format!(
                "the other end's counts cannot be: {} bytes received, not {could_get:?}, or {} sent, not {could_send:?}",
                theirs.received, theirs.sent
            ));
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
        let Some(theirs) = self.theirs else { return Step::failed("the other end's counts are missing") };
        let Some(state) = self.channel.take_received(self.slot, self.generation) else {
            // The program has closed its end: nobody reads.
            return Step::Over;
        };
        let place = state.place;
        let (channel, kernel) = (state.queued.len() + self.again.len(), self.before_mark.len());
        let (bytes, whole) = self.in_order(&theirs, state);
        if !self.channel.put_received(self.slot, self.generation, &bytes) {
            Step::failed("memory has run out")
        } else if whole {
            Step::Over
        } else {
            Step::failed(format!(
                "{channel} bytes of the channel and {kernel} of TCP do not fit the switches: {theirs:?}, {place:?}"
            ))
        }
    }

    /// The stream cannot return. The program reads what is there in order and then of the end, as it would of a connection
    /// that is reset.
    pub(super) fn give_up(&mut self) {
        if let Some(state) = self.channel.take_received(self.slot, self.generation) {
            // What the other end said of its switches, now or through the agent.
            let theirs = self.theirs.unwrap_or_else(|| self.channel.switches_heard_of(self.slot));
            let (bytes, _) = self.in_order(&theirs, state);
            let _ = self.channel.put_received(self.slot, self.generation, &bytes);
        }
        let _ = sys::shutdown(self.fd, libc::SHUT_RDWR);
    }

    fn in_order(&mut self, theirs: &Record, state: Received) -> (Vec<u8>, bool) {
        let Received { queued: mut channel, place } = state;
        channel.append(&mut self.again);
        in_order(theirs, place, &channel, &self.before_mark)
    }

    /// What the listener has to poll for.
    pub(super) fn poll_entry(&self) -> libc::pollfd {
        let mut events = 0;
        if !matches!(self.input, Input::Done | Input::Ended) {
            events |= libc::POLLIN | libc::POLLPRI;
        }
        // What stands in the way of the mark is looked at again soon.
        if self.marked && self.written < self.output.len() {
            events |= libc::POLLOUT;
        }
        libc::pollfd { fd: self.fd, events, revents: 0 }
    }
}

/// Whether urgent data would be told from the bytes before it: none of them is on its way, or none gets there any more.
///
/// A segment can point no further ahead than 64 KiB. Before that, Linux points as far as it can (tcp_transmit_skb), and one that is
/// sent again in several pieces has the same pointer in each: of bytes that were lost and are sent again, one is taken for the
/// urgent one.
fn may_point_at_a_byte(fd: i32) -> bool {
    position::unacknowledged(fd) == 0 || kernel_state(fd, 0) & (libc::POLLERR | libc::POLLHUP) != 0
}

impl Drop for Returning {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.before_mark.len(), Ordering::Relaxed);
        self.channel.streams.fetch_sub(1, Ordering::Relaxed);
        table::abandon(self.fd);
    }
}

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
        Ok(_) => Err(Step::failed("the connection has ended")),
        Err(errno) => Err(Step::failed_by("the connection has ended", errno)),
    }
}
