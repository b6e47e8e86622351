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

mod half_close;
mod leaving;
mod over;
mod returning;

use crate::channel::{self, Channel};
use crate::lock::{Mutex, free_in_child};
use crate::promote::{self, Ends};
use crate::shm::party::Recovery;
use crate::socket::{self, Socket};
use crate::{epoll, iov, log, stats, sys, table};
use core::cmp::Reverse;
use core::sync::atomic::Ordering;
use half_close::HalfClosed;
pub use half_close::shut_down_later;
pub use leaving::{close_later, end_all};
pub use over::note_over;
use returning::{Returning, Step, Why};

/// A stream that has to return: channel index, slot, and which stream of the slot.
#[derive(Clone, Copy)]
struct Request {
    channel: u32,
    slot: u32,
    generation: u8,
}

/// Between two steps of streams that return to the kernel, and of those whose ends have lately been shut down.
const BUSY_NS: i64 = 2_000_000;
const FRESH_NS: i64 = 200_000;
/// When both ends and their agents go on it is over in this time, in nanoseconds.
const FRESH_FOR_NS: u64 = 20_000_000;

/// Noted by any thread.
static REQUESTS: Mutex<Vec<Request>> = Mutex::new(Vec::new());

/// The way of a stream is gone: it has to return to the kernel. The caller wakes the listener.
pub fn note(channel: &Channel, slot: u32) {
    // Of one that is only being joined who joins it looks afterwards.
    let Some(generation) = generation(channel, slot) else { return };
    if !channel.is_open(slot) || !channel.party.stream(slot).begin_recovery(Recovery::None) {
        return;
    }
    let over = || channel.is_settled(slot) || ended_after_all(channel, slot, generation);
    let settles = channel.is_joined(slot) && !over();
    if settles || other_has_begun(channel, slot) {
        REQUESTS.lock().push(Request { channel: channel.index, slot, generation });
    } else {
        end(channel, slot, generation, Recovery::Quiet);
    }
}

/// Whether this end has sent its last byte, when all before had arrived: it cannot send a mark, and does not have to.
fn ended_after_all(channel: &Channel, slot: u32, generation: u8) -> bool {
    let fd = socket_of(channel, slot).map(|(_, socket)| socket.fd.load(Ordering::Relaxed));
    fd.is_some_and(|fd| channel.has_arrived_and_ended(slot, generation, fd))
}

/// Whether the other end's mark is there already. Who waits may have been woken for it before this stream was there, and is not
/// woken again.
fn other_has_begun(channel: &Channel, slot: u32) -> bool {
    socket_of(channel, slot).is_some_and(|(_, socket)| is_marked(socket.fd.load(Ordering::Relaxed)))
}

/// The other end has begun to return: so does this one. From a thread of the program.
pub fn answer(channel: &Channel, slot: u32) {
    let Some(generation) = generation(channel, slot) else { return };
    let stream = channel.party.stream(slot);
    if stream.begin_recovery(Recovery::None) || stream.begin_recovery(Recovery::Quiet) {
        REQUESTS.lock().push(Request { channel: channel.index, slot, generation });
        super::listener::wake();
    }
}

/// Which stream of the slot this process has. A later one than was meant has nothing to return from, and is let be.
fn generation(channel: &Channel, slot: u32) -> Option<u8> {
    socket_of(channel, slot).map(|(_, socket)| socket.generation())
}

fn socket_of(channel: &Channel, slot: u32) -> Option<(u32, &'static Socket)> {
    let number = channel.socket_of(slot);
    number.checked_sub(1).and_then(socket::at).map(|socket| (number, socket))
}

/// As [`socket_of`], if it is still that stream.
fn stream_of(channel: &Channel, slot: u32, generation: u8) -> Option<(u32, &'static Socket)> {
    socket_of(channel, slot).filter(|(_, socket)| socket.generation() == generation)
}

/// Whether streams wait to return.
pub(super) fn has_requests() -> bool {
    !REQUESTS.lock().is_empty() || half_close::has_requests() || !leaving::is_empty() || !over::is_empty()
}

/// In a forked child, which has none of the other threads: they may have been at any of this.
pub fn after_fork_in_child() {
    free_in_child(&REQUESTS);
    half_close::after_fork_in_child();
    over::after_fork_in_child();
    leaving::after_fork_in_child();
}

/// The streams that are returning, kept by the listener.
#[derive(Default)]
pub(super) struct Failover {
    returning: Vec<Returning>,
    /// Those for which there was no descriptor yet, by their connections: both ends begin with the same ones, or each would wait
    /// for what the other has not begun.
    waiting: Vec<(Option<Ends>, Request)>,
    half_closed: HalfClosed,
}

/// Whether what has been waited for since then may be here at any moment.
fn is_fresh(since: u64) -> bool {
    sys::now_ns() - since < FRESH_FOR_NS
}

impl Failover {
    pub(super) fn is_idle(&self) -> bool {
        self.returning.is_empty() && self.waiting.is_empty() && self.half_closed.is_empty() && !has_requests()
    }

    /// Until the next look at what no descriptor tells, in nanoseconds.
    pub(super) fn pause_ns(&self) -> i64 {
        let fresh = self.half_closed.is_fresh() || leaving::is_fresh() || over::is_fresh();
        if fresh { FRESH_NS } else { BUSY_NS }
    }

    /// What the listener has to poll for.
    pub(super) fn poll_set(&self) -> impl Iterator<Item = libc::pollfd> {
        self.returning.iter().map(Returning::poll_entry)
    }

    /// Takes requests and goes on with every stream as far as it gets.
    pub(super) fn work(&mut self) {
        let requests = core::mem::take(&mut *REQUESTS.lock());
        let with_ends = |request: Request| {
            let fd = request.socket().map(|(socket, _)| socket.fd.load(Ordering::Relaxed));
            (fd.and_then(promote::ends), request)
        };
        self.waiting.extend(requests.into_iter().map(with_ends));
        self.waiting.sort_by_key(|(ends, _)| Reverse(*ends));
        while let Some((_, request)) = self.waiting.last().copied()
            && self.begin(request)
        {
            self.waiting.pop();
        }
        self.returning.retain_mut(|stream| !is_over(stream));
        self.half_closed.work();
        leaving::work();
        over::work();
    }

    /// False when there is no descriptor for it at the moment.
    fn begin(&mut self, request: Request) -> bool {
        let Request { slot, generation, .. } = request;
        let Some((socket, channel)) = request.socket() else { return true };
        let fd = match super::copy_of(socket, || request.socket().is_some()) {
            Ok(Some(fd)) => fd,
            // Another of the program's descriptors may lead there: then it is found at the next look.
            Ok(None) => return request.socket().is_none(),
            Err(libc::EMFILE | libc::ENFILE) => return false,
            Err(errno) => {
                let why = log::Reason(errno);
                crate::log_warn!("{socket} is reset, it cannot return to the kernel: no descriptor: {why}");
                end(channel, slot, generation, Recovery::Failed);
                return true;
            }
        };
        crate::log_info!("{socket} returns to the kernel: the way to the other host is gone");
        if channel.is_traced() {
            channel.trace_demote(slot, generation, "the way to the other host is gone");
        }
        match Returning::begin(channel, slot, generation, fd) {
            Some(stream) => self.returning.push(stream),
            None => {
                let _ = sys::shutdown(fd, libc::SHUT_RDWR);
                table::abandon(fd);
                end(channel, slot, generation, Recovery::Failed);
            }
        }
        true
    }
}

impl Request {
    /// The socket and the channel of the stream, if it is still there and has to return.
    fn socket(self) -> Option<(&'static Socket, &'static Channel)> {
        let channel = channel::at(self.channel)?;
        let (_, socket) = stream_of(channel, self.slot, self.generation)?;
        let returns = channel.is_open(self.slot) && channel.recovery(self.slot) == Recovery::Running;
        returns.then_some((socket, channel))
    }
}

/// Goes on with a stream as far as it gets; whether that was to the end.
fn is_over(stream: &mut Returning) -> bool {
    let outcome = loop {
        match stream.step() {
            Step::Progress => {}
            Step::Waits => return false,
            Step::Over => break Recovery::Done,
            Step::Failed(why) => {
                reset(stream, &why);
                stream.give_up();
                break Recovery::Failed;
            }
        }
    };
    end(stream.channel, stream.slot, stream.generation, outcome);
    true
}

fn reset(stream: &Returning, why: &Why) {
    let Returning { channel, slot, generation, .. } = *stream;
    // The program may have closed it.
    if let Some((_, socket)) = socket_of(channel, slot) {
        crate::log_warn!("{socket} is reset, it cannot return to the kernel: {why}");
    }
    if channel.is_traced() {
        channel.trace_reset(slot, generation, "the stream cannot return to the kernel");
    }
}

/// Lets calls on the stream go on, and wakes those that wait.
fn end(channel: &Channel, slot: u32, generation: u8, outcome: Recovery) {
    if !channel.end_return(slot, generation, outcome) {
        // The program has closed it, and the slot may be another stream's.
        return;
    }
    let found = socket_of(channel, slot);
    if let Some((_, socket)) = found {
        crate::log_info!("{socket} has returned to the kernel: {outcome:?}");
    }
    if outcome != Recovery::Quiet {
        stats::process().failovers.add(1);
    }
    if let Some((_, socket)) = found {
        socket.hint.store(true, Ordering::Relaxed);
        socket.calls.store(0, Ordering::Relaxed);
        socket.returned.store(outcome != Recovery::Failed, Ordering::Release);
        half_close::shut_down(channel, slot, generation);
    }
    epoll::writable(found.map_or(0, |(number, _)| number));
    channel.wake_all(slot);
}

/// The byte of urgent data.
const MARK: u8 = 0xc7;

/// Whether the urgent byte on the connection, which has one, is the mark of the other end of a far stream that has begun to
/// return.
pub fn is_marked(fd: i32) -> bool {
    peek_urgent(fd) == Ok(MARK)
}

/// As [`is_marked`], or it is announced and still on its way.
pub fn may_be_marked(fd: i32) -> bool {
    matches!(peek_urgent(fd), Ok(MARK) | Err(libc::EAGAIN))
}

fn peek_urgent(fd: i32) -> Result<u8, sys::Errno> {
    let mut byte = 0u8;
    let part = iov::single(&raw mut byte, 1);
    let flags = libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one writable byte.
    unsafe { sys::recvmsg(fd, &part, 1, flags) }.map(|_| byte)
}
