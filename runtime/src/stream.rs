//! send and receive on a connection, wherever its bytes travel at the moment.

mod outcome;
mod receive;
#[cfg(test)]
mod tests;

pub use receive::receive_with_control;

use crate::api::Handled;
use crate::channel::send::Sent;
use crate::channel::{Channel, Trouble};
use crate::iov::{self, Cursor, EMPTY};
use crate::naps::Naps;
use crate::shm::party::{KernelSend, Recovery};
use crate::socket::{self, Socket, State};
use crate::wait::{self, spin};
use crate::{agent, promote, stats, sys, table};
use core::sync::atomic::Ordering;
use outcome::Outcome;

/// Parts of one kernel call; more are left to the next.
const PARTS: usize = 64;
/// Flags that only the kernel's own data path can honour.
const KERNEL_ONLY: i32 =
    libc::MSG_OOB | libc::MSG_ERRQUEUE | libc::MSG_ZEROCOPY | libc::MSG_FASTOPEN | MSG_SOCK_DEVMEM;
/// Bytes in the memory of a device.
const MSG_SOCK_DEVMEM: i32 = 0x200_0000;

/// A connection that a call is about.
struct Call<'a> {
    fd: i32,
    socket: &'a Socket,
    channel: &'static Channel,
    slot: u32,
    generation: u8,
    /// All three, as the socket has them.
    place: u64,
    flags: i32,
}

/// See [`crate::api::send`].
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn send(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { send_parts(fd, parts, count, flags) }.handled()
}

/// # Safety
/// As for [`send()`].
unsafe fn send_parts(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Outcome {
    let Some((index, socket)) = socket::of(fd) else { return Outcome::NOT_OURS };
    if flags & KERNEL_ONLY != 0 {
        crate::demote::demote(fd, crate::api::Reason::Call);
        return Outcome::NOT_OURS;
    }
    if !socket.is_settled() {
        // SAFETY: the caller's promise.
        let kernel = move || unsafe { send_in_kernel(socket, fd, parts, count, flags) };
        if let Before::Over(answer) = before(index, socket, fd, kernel) {
            return answer.into();
        }
    }
    // SAFETY: the caller's promise.
    let mut bytes = match unsafe { Cursor::new(parts, count, true) } {
        Ok(bytes) => bytes,
        Err(errno) => return Outcome::failed(errno),
    };
    with_stream(index, socket, fd, flags, |call| {
        let sent = call.send(&mut bytes);
        if call.channel.leads_to_agent()
            && let Some(bytes) = sent.bytes()
        {
            call.channel.note_sent(call.slot, socket.take_answered(), bytes);
        }
        sent
    })
}

/// See [`crate::api::receive`].
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn receive(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Handled {
    // SAFETY: the caller's promise.
    unsafe { receive_parts(fd, parts, count, flags) }.handled()
}

/// # Safety
/// As for [`receive()`].
unsafe fn receive_parts(fd: i32, parts: *const libc::iovec, count: usize, flags: i32) -> Outcome {
    let Some((index, socket)) = socket::of(fd) else { return Outcome::NOT_OURS };
    if flags & KERNEL_ONLY != 0 {
        return Outcome::NOT_OURS;
    }
    if !socket.is_settled() {
        // SAFETY: the caller's promise.
        let kernel = move || unsafe { receive_in_kernel(socket, fd, parts, count, flags) };
        if let Before::Over(answer) = before(index, socket, fd, kernel) {
            return answer.into();
        }
    }
    // SAFETY: the caller's promise.
    let mut target = match unsafe { Cursor::new(parts, count, flags & libc::MSG_TRUNC == 0) } {
        Ok(target) => target,
        Err(errno) => return Outcome::failed(errno),
    };
    with_stream(index, socket, fd, flags, |call| {
        let received = call.receive(&mut target);
        if call.channel.leads_to_agent() && !received.is_failure() {
            socket.note_answered();
        }
        received
    })
}

/// What comes before a call on a promoted stream.
enum Before {
    Promoted,
    /// Nothing: the call has been made, or is not Convoy's.
    Over(Handled),
}

/// Serves a call on a connection that is not promoted, by `kernel`, unless it is promoted now; that gives nothing when a promotion has
/// begun meanwhile.
#[cold]
fn before(index: u32, socket: &Socket, fd: i32, kernel: impl Fn() -> Option<Handled>) -> Before {
    loop {
        match socket.state() {
            State::Promoted => {
                promote::leave_again(index, socket, fd);
                return Before::Promoted;
            }
            State::Candidate => {
                if !promote::consider(index, socket, fd)
                    && let Some(answer) = kernel()
                {
                    return Before::Over(answer);
                }
            }
            State::Moving => sys::sched_yield(),
            State::Free => return Before::Over(None),
        }
    }
}

/// # Safety
/// As for [`send()`].
unsafe fn send_in_kernel(
    socket: &Socket,
    fd: i32,
    parts: *const libc::iovec,
    count: usize,
    flags: i32,
) -> Option<Handled> {
    // SAFETY: the caller's promise.
    let send = || unsafe { sys::cancellable(|| sys::sendmsg(fd, parts, count, flags)) };
    let sent = in_kernel(socket, send)?;
    Some(Some(sent.inspect(|bytes| {
        count_kernel(true, *bytes);
        agent::note_sent(socket, *bytes);
    })))
}

/// # Safety
/// As for [`receive()`].
unsafe fn receive_in_kernel(
    socket: &Socket,
    fd: i32,
    parts: *const libc::iovec,
    count: usize,
    flags: i32,
) -> Option<Handled> {
    // A read of no bytes has rules of its own, which differ between read and recv.
    // SAFETY: the caller's promise.
    if unsafe { iov::is_empty(parts, count) } {
        return Some(None);
    }
    // SAFETY: the caller's promise.
    let receive = || unsafe { sys::cancellable(|| sys::recvmsg(fd, parts, count, flags)) };
    let received = in_kernel(socket, receive)?;
    Some(Some(received.inspect(|bytes| {
        count_kernel(false, *bytes);
        socket.note_answered();
    })))
}

/// Makes a call on the socket's stream; again when the socket has got another stream meanwhile.
#[inline]
fn with_stream(
    index: u32,
    socket: &Socket,
    fd: i32,
    flags: i32,
    mut make: impl FnMut(&Call<'_>) -> Outcome,
) -> Outcome {
    loop {
        let Some(place) = socket.place_of(index, fd) else { return gone(fd) };
        let Some((channel, slot, generation)) = socket::stream_at(place) else { return Outcome::NOT_OURS };
        let call = Call { fd, socket, channel, slot, generation, place, flags };
        let result = make(&call);
        if result != Outcome::failed(libc::EBADF) || !call.moved(index) {
            return result;
        }
        sys::sched_yield();
    }
}

/// Another thread has left the connection to the kernel since its socket was looked up, or has closed it and the number is another
/// connection's.
#[cold]
fn gone(fd: i32) -> Outcome {
    if table::socket(fd).is_none() { Outcome::NOT_OURS } else { Outcome::failed(libc::EBADF) }
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
    fn send(&self, bytes: &mut Cursor) -> Outcome {
        self.send_all(bytes).into()
    }

    #[inline(always)]
    fn send_all(&self, bytes: &mut Cursor) -> Result<usize, i32> {
        let (mut total, mut naps) = (0, Naps::new());
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
                Ok(Sent::Kernel(call)) => {
                    let (wanted, sent) = self.send_in_kernel(bytes, call);
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
                    let again =
                        self.channel.obey_recall(self.slot, self.generation, self.fd).unwrap_or(0).min(sent);
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
                Ok(Sent::Busy) => {
                    if let Err(errno) = wait::for_return(self.fd, self.channel, self.slot) {
                        return if total > 0 { Ok(total) } else { Err(errno) };
                    }
                }
                Ok(Sent::NoRoom) if bytes.remaining() == 0 => return Ok(total),
                Ok(Sent::NoRoom) => {
                    let nonblocking = self.nonblocking();
                    if spin::for_room(nonblocking, || self.channel.has_room(self.slot)) {
                        continue;
                    }
                    if self.channel.may_use_kernel(self.slot) {
                        self.channel.spill(self.slot, self.generation);
                    } else if nonblocking {
                        return if total > 0 { Ok(total) } else { Err(libc::EAGAIN) };
                    } else {
                        naps.nap();
                    }
                }
                Err(trouble) => {
                    return if total > 0 { Ok(total) } else { Err(self.errno(trouble)) };
                }
            }
        }
    }

    /// One kernel call with as much as fits into it: how much that was, and what the kernel said.
    fn send_in_kernel(&self, bytes: &Cursor, call: KernelSend) -> (usize, Result<usize, i32>) {
        let mut parts = [EMPTY; PARTS];
        let count = bytes.rest(usize::MAX, &mut parts);
        let wanted = parts.iter().take(count).map(|part| part.iov_len).sum();
        // SAFETY: the parts are the rest of the program's buffers.
        let result = unsafe { sys::cancellable(|| sys::sendmsg(self.fd, parts.as_ptr(), count, self.flags)) };
        self.channel.end_kernel_send(self.slot, call);
        (wanted, result.inspect(|bytes| self.note_kernel(true, *bytes)))
    }

    /// Bytes of the stream went through the kernel.
    fn note_kernel(&self, sent: bool, bytes: usize) {
        count_kernel(sent, bytes);
        if self.channel.is_traced() {
            self.channel.trace_kernel(sent, self.slot, self.generation, bytes);
        }
    }

    /// A peer that has closed its end reads nothing any more; the kernel knows whether that means EPIPE.
    #[inline]
    fn look_for_closed_peer(&self) {
        // On the kernel path the kernel says so itself.
        let silent = || self.channel.recovery(self.slot) == Recovery::Quiet;
        if self.socket.peer_gone.load(Ordering::Relaxed) || !self.channel.sends_here(self.slot) && !silent() {
            return;
        }
        if self.socket.look_due() || self.socket.hint.load(Ordering::Relaxed) {
            self.look();
        }
    }

    /// Asks the kernel about end of stream and errors.
    #[cold]
    fn look(&self) -> i16 {
        let far = self.channel.leads_to_agent();
        let urgent = if far { libc::POLLPRI } else { 0 };
        // Before the look: what another thread hears after it stays.
        self.socket.hint.store(false, Ordering::Relaxed);
        let mut news = wait::kernel_state(self.fd, libc::POLLIN | libc::POLLRDHUP | urgent);
        if news & urgent != 0 {
            self.socket.hint.store(true, Ordering::Relaxed);
            if self.channel.note_mark(self.slot, self.fd) {
                return 0;
            }
            news &= !urgent;
        }
        let over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        if news & over != 0 {
            self.channel.reveal();
            self.socket.hint.store(true, Ordering::Relaxed);
            wait::note_over(self.fd, self.socket, self.channel, self.slot);
            if !self.socket.peer_gone.swap(true, Ordering::Relaxed)
                && self.channel.send_through_kernel(self.slot, self.generation)
            {
                stats::process().demotions_peer_closed.add(1);
                self.trace_demote("the other end has closed");
            }
        }
        news
    }

    fn trace_demote(&self, why: &str) {
        if self.channel.is_traced() {
            self.channel.trace_demote(self.slot, self.generation, why);
        }
    }

    /// Whether the socket is still there and has another stream, or is about to get one.
    #[cold]
    fn moved(&self, index: u32) -> bool {
        let other = self.socket.place_word() != self.place;
        table::is_socket(self.fd, index) && (other || self.socket.state() == State::Moving)
    }

    /// Whether the descriptor still means this stream; another thread may have closed it during a sleep.
    #[inline]
    fn still_open(&self) -> bool {
        self.socket.place_word() == self.place && self.socket.state() == State::Promoted
    }

    fn nonblocking(&self) -> bool {
        let ask = || sys::fcntl(self.fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0);
        self.flags & libc::MSG_DONTWAIT != 0 || self.socket.nonblocking(ask)
    }

    fn errno(&self, trouble: Trouble) -> i32 {
        match trouble {
            Trouble::Broken => {
                let _ = sys::shutdown(self.fd, libc::SHUT_RDWR);
                libc::ECONNRESET
            }
            Trouble::Reentered => libc::EAGAIN,
            Trouble::Lost => {
                if self.channel.is_traced() {
                    let why = "the kernel connection was reset before bytes that come next";
                    self.channel.trace_reset(self.slot, self.generation, why);
                }
                libc::ECONNRESET
            }
            Trouble::Closed => libc::EBADF,
        }
    }
}
