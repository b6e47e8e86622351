//! send and receive on a connection, wherever its bytes travel at the moment.

use crate::api::Handled;
use crate::channel::queue::Mode;
use crate::channel::receive::Received;
use crate::channel::send::Sent;
use crate::channel::{Channel, Trouble, hold};
use crate::iov::{self, Cursor, EMPTY};
use crate::socket::{self, Socket, State};
use crate::wait::{self, spin};
use crate::{position, promote, stats, sys, table};
use convoy_aggregator::path::Path;
use core::sync::atomic::Ordering;

/// Parts of one kernel call; more are left to the next.
const PARTS: usize = 64;
/// Flags that only the kernel's own data path can honour.
const KERNEL_ONLY: i32 = libc::MSG_OOB | libc::MSG_ERRQUEUE | libc::MSG_ZEROCOPY | libc::MSG_FASTOPEN;

/// Between two looks whether a stream that returns to the kernel has done so.
const BUSY_NS: u64 = 200_000;

/// A connection that a call is about.
struct Call<'a> {
    fd: i32,
    socket: &'a Socket,
    channel: &'static Channel,
    slot: u32,
    generation: u8,
    flags: i32,
}

/// See [`crate::api::send`].
///
/// # Safety
/// As there.
#[inline]
pub unsafe fn send(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Handled {
    let index = table::socket(fd)?;
    let socket = socket::at(index)?;
    if flags & KERNEL_ONLY != 0 {
        crate::demote::demote(fd, crate::api::Reason::Call);
        return None;
    }
    loop {
        match socket.state() {
            State::Promoted => {
                promote::leave_again(index, socket, fd);
                break;
            }
            State::Candidate if promote::consider(index, socket, fd) => break,
            State::Candidate => {
                // SAFETY: the caller's promise.
                let sent = in_kernel(socket, || unsafe {
                    sys::cancellable(|| sys::sendmsg(fd, parts, count, flags))
                });
                if let Some(result) = sent {
                    return Some(result.inspect(|bytes| count_kernel(true, *bytes)));
                }
            }
            State::Moving => sys::sched_yield(),
            State::Free => return None,
        }
    }
    // SAFETY: the caller's promise.
    let mut bytes = match unsafe { Cursor::new(parts, count, true) } {
        Ok(bytes) => bytes,
        Err(errno) => return Some(Err(errno)),
    };
    with_stream(index, socket, fd, flags, |call| call.send(&mut bytes))
}

/// See [`crate::api::receive`].
///
/// # Safety
/// As there.
#[inline]
pub unsafe fn receive(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Handled {
    let index = table::socket(fd)?;
    let socket = socket::at(index)?;
    if flags & KERNEL_ONLY != 0 {
        return None;
    }
    loop {
        match socket.state() {
            State::Promoted => {
                promote::leave_again(index, socket, fd);
                break;
            }
            State::Candidate if promote::consider(index, socket, fd) => break,
            // A read of no bytes has rules of its own, which differ between read and recv.
            // SAFETY: the caller's promise.
            State::Candidate if unsafe { iov::is_empty(parts, count) } => return None,
            State::Candidate => {
                // SAFETY: the caller's promise.
                let received = in_kernel(socket, || unsafe {
                    sys::cancellable(|| sys::recvmsg(fd, parts, count, flags))
                });
                if let Some(result) = received {
                    return Some(result.inspect(|bytes| count_kernel(false, *bytes)));
                }
            }
            State::Moving => sys::sched_yield(),
            State::Free => return None,
        }
    }
    // SAFETY: the caller's promise.
    let mut target = match unsafe { Cursor::new(parts, count, flags & libc::MSG_TRUNC == 0) } {
        Ok(target) => target,
        Err(errno) => return Some(Err(errno)),
    };
    with_stream(index, socket, fd, flags, |call| call.receive(&mut target))
}

/// Makes a call on the socket's stream; again when the socket has got another stream meanwhile.
#[inline]
fn with_stream(
    index: u32,
    socket: &Socket,
    fd: i32,
    flags: i32,
    mut make: impl FnMut(&Call<'_>) -> Result<usize, i32>,
) -> Handled {
    loop {
        let (channel, slot, generation) = socket.whole_stream()?;
        let call = Call { fd, socket, channel, slot, generation, flags };
        let result = make(&call);
        if result != Err(libc::EBADF) || !call.moved(index) {
            return Some(result);
        }
        sys::sched_yield();
    }
}

/// A kernel call on a candidate, visible to whoever wants to promote it; nothing when that has begun meanwhile.
pub fn in_kernel<T>(socket: &Socket, call: impl FnOnce() -> T) -> Option<T> {
    let uses = socket.enter_kernel();
    let result = (socket.state() == State::Candidate).then(call);
    socket.leave_kernel(uses);
    result
}

fn count_kernel(sent: bool, bytes: usize) {
    let process = stats::process();
    if sent {
        process.kernel_sends.add(1);
        process.kernel_bytes_sent.add(bytes as u64);
    } else {
        process.kernel_receives.add(1);
        process.kernel_bytes_received.add(bytes as u64);
    }
}

impl Call<'_> {
    fn send(&self, bytes: &mut Cursor) -> Result<usize, i32> {
        let mut total = 0;
        self.look_for_closed_peer();
        loop {
            let before = *bytes;
            match self.channel.send(self.slot, self.generation, self.fd, bytes) {
                Ok(Sent::Bytes(sent)) => {
                    total += sent;
                    if bytes.remaining() == 0 {
                        return Ok(total);
                    }
                }
                Ok(Sent::Kernel) => {
                    let (wanted, sent) = self.send_in_kernel(bytes);
                    match sent {
                        Ok(sent) => {
                            total += bytes.skip(sent);
                            if sent < wanted || bytes.remaining() == 0 {
                                return Ok(total);
                            }
                        }
                        Err(errno) => return if total > 0 { Ok(total) } else { Err(errno) },
                    }
                }
                Ok(Sent::Recalled(sent)) => {
                    let again = self.channel.obey_recall(self.slot, self.generation).unwrap_or(0).min(sent);
                    *bytes = before;
                    bytes.skip(sent - again);
                    total += sent - again;
                    if bytes.remaining() == 0 {
                        return Ok(total);
                    }
                }
                Ok(Sent::Busy) if self.nonblocking() => {
                    return if total > 0 { Ok(total) } else { Err(libc::EAGAIN) };
                }
                Ok(Sent::Busy) => sys::sleep_ns(BUSY_NS),
                Ok(Sent::NoRoom) if bytes.remaining() == 0 => return Ok(total),
                Ok(Sent::NoRoom) => {
                    let nonblocking = self.nonblocking();
                    let room = spin::for_room(nonblocking, || self.channel.has_room(self.slot));
                    if !room && self.channel.may_use_kernel(self.slot) {
                        self.channel.spill(self.slot);
                    } else if !room && nonblocking {
                        return if total > 0 { Ok(total) } else { Err(libc::EAGAIN) };
                    }
                }
                Err(trouble) => {
                    return if total > 0 { Ok(total) } else { Err(self.errno(trouble)) };
                }
            }
        }
    }

    /// One kernel call with as much as fits into it: how much that was, and what the kernel said.
    fn send_in_kernel(&self, bytes: &Cursor) -> (usize, Result<usize, i32>) {
        let mut parts = [EMPTY; PARTS];
        let count = bytes.rest(usize::MAX, &mut parts);
        let wanted = parts.iter().take(count).map(|part| part.iov_len).sum();
        // SAFETY: the parts are the rest of the program's buffers.
        let result = unsafe { sys::cancellable(|| sys::sendmsg(self.fd, parts.as_ptr(), count, self.flags)) };
        self.channel.end_kernel_send(self.slot);
        (wanted, result.inspect(|bytes| count_kernel(true, *bytes)))
    }

    /// A peer that has closed its end reads nothing any more; the kernel knows whether that means EPIPE.
    #[inline]
    fn look_for_closed_peer(&self) {
        if self.socket.peer_gone.load(Ordering::Relaxed) {
            return;
        }
        if self.socket.look_due() || self.socket.hint.load(Ordering::Relaxed) {
            self.look();
        }
    }

    /// Asks the kernel about end of stream and errors.
    #[cold]
    fn look(&self) -> i16 {
        let news = wait::kernel_state(self.fd, libc::POLLIN | libc::POLLRDHUP);
        if self.channel.leads_to_agent() && self.channel.note_mark(self.slot, self.fd) {
            return 0;
        }
        let over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        if news & over != 0 {
            self.channel.reveal();
            self.socket.hint.store(true, Ordering::Relaxed);
            self.socket.over.store(true, Ordering::Relaxed);
            if !self.socket.peer_gone.swap(true, Ordering::Relaxed)
                && self.channel.send_through_kernel(self.slot)
            {
                stats::process().demotions_peer_closed.add(1);
            }
        }
        news
    }

    fn receive(&self, target: &mut Cursor) -> Result<usize, i32> {
        let wanted = target.remaining();
        if wanted == 0 {
            return self.receive_nothing();
        }
        let mode = match self.flags {
            flags if flags & libc::MSG_PEEK != 0 => Mode::Peek,
            flags if flags & libc::MSG_TRUNC != 0 => Mode::Discard,
            _ => Mode::Take,
        };
        let whole = self.flags & libc::MSG_WAITALL != 0 && mode != Mode::Peek;
        let mut total = 0;
        loop {
            match self.receive_once(target, mode) {
                Ok(Some(0)) => return Ok(total),
                Ok(Some(bytes)) if mode == Mode::Peek => return Ok(bytes + self.peek_on(target, bytes)),
                Ok(Some(bytes)) => {
                    total += bytes;
                    let more = whole || self.channel.switch_pending(self.slot);
                    if !more || total == wanted {
                        return Ok(total);
                    }
                }
                Ok(None) if total > 0 && (!whole || self.nonblocking()) => return Ok(total),
                Ok(None) if self.nonblocking() => return Err(libc::EAGAIN),
                Ok(None) => {
                    if let Err(errno) = wait::for_bytes(self.fd, self.socket, self.channel, self.slot) {
                        return if total > 0 { Ok(total) } else { Err(errno) };
                    }
                }
                Err(errno) => return if total > 0 { Ok(total) } else { Err(errno) },
            }
        }
    }

    /// A read of no bytes: at once, but EAGAIN when a nonblocking one finds nothing.
    fn receive_nothing(&self) -> Result<usize, i32> {
        let _ = self.channel.sort();
        let wanted = libc::POLLIN | libc::POLLRDHUP;
        let ready = wait::readiness(self.fd, self.socket, self.channel, self.slot, wanted);
        if ready == 0 && self.nonblocking() { Err(libc::EAGAIN) } else { Ok(0) }
    }

    /// Bytes, 0 at the end of the stream, or nothing at the moment.
    fn receive_once(&self, target: &mut Cursor, mode: Mode) -> Result<Option<usize>, i32> {
        // What the kernel side had to say, once it was asked.
        let mut news: Option<i16> = None;
        loop {
            if !self.still_open() {
                return Err(libc::EBADF);
            }
            // Before the path: see aggregator::path on why the order matters.
            let queued = self.kernel_bytes(news.is_some());
            let may_end = self.channel.may_end(self.slot, self.generation);
            match self.channel.receive(self.slot, self.generation, self.fd, target, mode) {
                Ok(Received::Bytes(bytes)) => {
                    // Bytes from the peer: it was there a moment ago.
                    self.socket.looked.store(position::ticks(), Ordering::Relaxed);
                    return Ok(Some(bytes));
                }
                Ok(Received::Kernel(_) | Received::Empty) if queued > 0 => {
                    let read = |most| self.read_kernel(target, most);
                    return match self.channel.read_beneath(self.slot, self.fd, read) {
                        Ok(read) => read.unwrap_or(Ok(None)),
                        Err(trouble) => Err(self.errno(trouble)),
                    };
                }
                Ok(Received::Empty) if news.is_none() && !self.look_before_empty() => return Ok(None),
                Ok(Received::Kernel(_) | Received::Empty) => match news {
                    None => match self.look() {
                        0 => return Ok(None),
                        heard => news = Some(heard),
                    },
                    Some(_) if !may_end => return Ok(None),
                    Some(news) => return self.without_bytes(target, news),
                },
                Err(trouble) => return Err(self.errno(trouble)),
            }
        }
    }

    /// Whether the socket is still there and has another stream, or is about to get one.
    #[cold]
    fn moved(&self, index: u32) -> bool {
        let other = self.socket.whole_stream().is_some_and(|(channel, slot, generation)| {
            !core::ptr::eq(channel, self.channel) || (slot, generation) != (self.slot, self.generation)
        });
        table::socket(self.fd) == Some(index) && (other || self.socket.state() == State::Moving)
    }

    /// Whether the descriptor still means this stream; another thread may have closed it during a sleep.
    #[inline]
    fn still_open(&self) -> bool {
        let same = |(channel, slot, generation): (&Channel, u32, u8)| {
            core::ptr::eq(channel, self.channel) && (slot, generation) == (self.slot, self.generation)
        };
        self.socket.whole_stream().is_some_and(same) && self.socket.state() == State::Promoted
    }

    /// Bytes in the kernel's queue, when the stream is read from there or `always`.
    #[inline]
    fn kernel_bytes(&self, always: bool) -> u64 {
        if !always && self.channel.own_line(self.slot).passed.load(Ordering::Relaxed) & 1 == 1 {
            return 0;
        }
        position::readable(self.fd)
    }

    /// A peek has seen all of one path before a switch: what follows on the other path can be seen too.
    fn peek_on(&self, target: &mut Cursor, seen: usize) -> usize {
        if target.remaining() == 0 {
            return 0;
        }
        match self.channel.before_switch(self.slot, self.fd) {
            Some((Path::Channel, before)) if before == seen as u64 => {
                self.read_kernel(target, u64::MAX).ok().flatten().unwrap_or(0)
            }
            Some((Path::Kernel, before)) if before == seen as u64 => {
                self.channel.peek_queue(self.slot, target)
            }
            _ => 0,
        }
    }

    /// Nothing on the channel: whether it is time to ask the kernel side.
    #[inline]
    fn look_before_empty(&self) -> bool {
        hold::release_all();
        self.socket.look_due() || self.socket.hint.load(Ordering::Relaxed)
    }

    /// The end of the stream or an error, if `news` say so; otherwise nothing. No byte is taken that may have come
    /// since the path was looked at, because it may belong behind the channel's; but a byte at the urgent mark,
    /// which the count leaves out, stands before all others (and its sender stays on the kernel).
    fn without_bytes(&self, target: &mut Cursor, news: i16) -> Result<Option<usize>, i32> {
        if news & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLIN) == 0 {
            return Ok(None);
        }
        if position::at_urgent_mark(self.fd) {
            return self.read_kernel(target, 1);
        }
        let mut byte = 0u8;
        let part = iov::single(&raw mut byte, 1);
        // SAFETY: one writable byte.
        match unsafe { sys::recvmsg(self.fd, &part, 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) } {
            Ok(0) if news & (libc::POLLRDHUP | libc::POLLHUP) != 0 => Ok(Some(0)),
            Ok(_) | Err(libc::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn read_kernel(&self, target: &mut Cursor, most: u64) -> Result<Option<usize>, i32> {
        let mut parts = [EMPTY; PARTS];
        let count = target.rest(most.min(usize::MAX as u64) as usize, &mut parts);
        let flags = (self.flags | libc::MSG_DONTWAIT) & !libc::MSG_WAITALL;
        // SAFETY: the parts are the rest of the program's buffers.
        match unsafe { sys::recvmsg(self.fd, parts.as_ptr(), count, flags) } {
            Ok(bytes) => {
                count_kernel(false, bytes);
                if flags & libc::MSG_PEEK == 0 {
                    self.channel.count_kernel_read(self.slot, bytes as u64);
                }
                target.skip(bytes);
                Ok(Some(bytes))
            }
            Err(libc::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn nonblocking(&self) -> bool {
        self.flags & libc::MSG_DONTWAIT != 0
            || sys::fcntl(self.fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
    }

    fn errno(&self, trouble: Trouble) -> i32 {
        match trouble {
            Trouble::Broken => {
                let _ = sys::shutdown(self.fd, libc::SHUT_RDWR);
                libc::ECONNRESET
            }
            Trouble::Reentered => libc::EAGAIN,
            Trouble::Lost => libc::ECONNRESET,
            Trouble::Closed => libc::EBADF,
        }
    }
}
