//! The receiving half of a stream's calls: from the channel's queue, from the kernel, and where one follows the other.

use super::outcome::Outcome;
use super::{Call, PARTS, count_kernel, in_kernel};
use crate::api::{Handled, Reason};
use crate::channel::hold;
use crate::channel::queue::Mode;
use crate::channel::receive::Received;
use crate::iov::{self, Cursor, EMPTY};
use crate::shm::party::Recovery;
use crate::socket::{self, State};
use crate::wait::{self, Patience, spin};
use crate::{demote, options, position, promote, sys, table};
use core::sync::atomic::Ordering;

/// See [`crate::api::receive_with_control`].
///
/// # Safety
/// As there.
pub unsafe fn receive_with_control(fd: i32, message: *mut libc::msghdr, flags: i32) -> Handled {
    let index = table::socket(fd)?;
    let socket = socket::at(index)?;
    match socket.state() {
        State::Candidate => {
            if options::first_look(socket, fd) {
                demote::demote(fd, Reason::Option);
                return None;
            }
            if promote::consider(index, socket, fd) {
                return None;
            }
            // SAFETY: the caller's promise.
            let receive = || unsafe { sys::cancellable(|| sys::receive_message(fd, message, flags)) };
            let result = in_kernel(socket, receive)?;
            Some(result.inspect(|bytes| {
                count_kernel(false, *bytes);
                socket.note_answered();
            }))
        }
        State::Promoted => {
            let (channel, slot, generation) = socket.stream_of(index, fd)?;
            if !channel.reads_kernel_for_good(slot, generation, fd) {
                return None;
            }
            // SAFETY: the caller's promise.
            let result = unsafe { sys::cancellable(|| sys::receive_message(fd, message, flags)) };
            if let Ok(bytes) = result {
                count_kernel(false, bytes);
                if flags & libc::MSG_PEEK == 0 {
                    channel.count_kernel_read(slot, bytes as u64);
                }
            }
            Some(result)
        }
        State::Moving | State::Free => None,
    }
}

impl Call<'_> {
    #[inline]
    pub(super) fn receive(&self, target: &mut Cursor) -> Outcome {
        let wanted = target.remaining();
        if wanted == 0 {
            return self.receive_nothing().into();
        }
        let mode = match self.flags {
            flags if flags & libc::MSG_PEEK != 0 => Mode::Peek,
            flags if flags & libc::MSG_TRUNC != 0 => Mode::Discard,
            _ => Mode::Take,
        };
        let first = self.look_into_channel(target, mode);
        match first {
            Ok(Received::Bytes(bytes))
                if mode == Mode::Take
                    && self.flags & libc::MSG_WAITALL == 0
                    && !self.channel.switch_pending(self.slot) =>
            {
                self.note_bytes();
                Outcome::from(Ok(bytes))
            }
            first => self.receive_on(target, mode, wanted, first).into(),
        }
    }

    /// What the channel has, unless the descriptor has been closed.
    #[inline]
    fn look_into_channel(&self, target: &mut Cursor, mode: Mode) -> Result<Received, i32> {
        if !self.still_open() {
            return Err(libc::EBADF);
        }
        let received = self.channel.receive(self.slot, self.generation, self.fd, target, mode);
        received.map_err(|trouble| self.errno(trouble))
    }

    /// Bytes from the peer: it was there a moment ago.
    #[inline]
    fn note_bytes(&self) {
        self.socket.note_peer(spin::last_found());
    }

    /// The call after its first look.
    fn receive_on(
        &self,
        target: &mut Cursor,
        mode: Mode,
        wanted: usize,
        first: Result<Received, i32>,
    ) -> Result<usize, i32> {
        let whole = self.flags & libc::MSG_WAITALL != 0 && mode != Mode::Peek;
        let (mut total, mut waited, mut first) = (0, false, Some(first));
        let mut patience = Patience::default();
        loop {
            match self.receive_once(target, mode, total > 0, first.take()) {
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
                    // Woken for nothing: the kernel side has more to say than how many bytes there are.
                    if waited {
                        self.socket.hint.store(true, Ordering::Relaxed);
                    }
                    waited = true;
                    if let Err(errno) = self.wait_for_bytes(&mut patience) {
                        return if total > 0 { Ok(total) } else { Err(errno) };
                    }
                    first = Some(self.look_into_channel(target, mode));
                }
                Err(errno) => return if total > 0 { Ok(total) } else { Err(errno) },
            }
        }
    }

    fn wait_for_bytes(&self, patience: &mut Patience) -> Result<(), i32> {
        wait::for_bytes(self.fd, self.socket, self.channel, self.slot, patience)
    }

    /// A `recv` of no bytes waits as any other: for a byte, the end, or an error, which it takes (tcp_recvmsg in the kernel).
    fn receive_nothing(&self) -> Result<usize, i32> {
        let mut patience = Patience::default();
        loop {
            if !self.still_open() {
                return Err(libc::EBADF);
            }
            let _ = self.channel.sort();
            let wanted = libc::POLLIN | libc::POLLRDHUP;
            let ready =
                wait::readiness(self.fd, self.socket, self.channel, self.slot, wanted, position::ticks());
            if ready & libc::POLLERR != 0 && self.channel.readable(self.slot, self.generation, self.fd) == 0 {
                // SAFETY: no parts.
                return unsafe { sys::recvmsg(self.fd, core::ptr::null(), 0, libc::MSG_DONTWAIT) };
            }
            if ready != 0 {
                return Ok(0);
            }
            if self.nonblocking() {
                return Err(libc::EAGAIN);
            }
            self.wait_for_bytes(&mut patience)?;
        }
    }

    /// Bytes, 0 at the end of the stream, or nothing at the moment. For a call that has bytes already, an error is an end: it is
    /// left for the next call. `first` is a look into the channel that was made already.
    fn receive_once(
        &self,
        target: &mut Cursor,
        mode: Mode,
        has_bytes: bool,
        mut first: Option<Result<Received, i32>>,
    ) -> Result<Option<usize>, i32> {
        // What the kernel side had to say, once it was asked.
        let mut news: Option<i16> = None;
        loop {
            // Before the path: see aggregator::path on why the order matters.
            let queued = self.bytes_beneath(news.is_some());
            let may_end = self.channel.may_end(self.slot, self.generation);
            let received = first.take().unwrap_or_else(|| self.look_into_channel(target, mode));
            match received? {
                Received::Bytes(bytes) => {
                    self.note_bytes();
                    return Ok(Some(bytes));
                }
                found => {
                    let kernel = matches!(found, Received::Kernel(_));
                    if kernel || queued > 0 {
                        let read = |most| self.read_kernel(target, most);
                        match self.channel.read_beneath(self.slot, self.generation, self.fd, read) {
                            Ok(Some(read)) => {
                                // There may be more, of which nothing else tells.
                                self.socket.hint.fetch_or(!kernel, Ordering::Relaxed);
                                return read;
                            }
                            Ok(None) if !kernel => return Ok(None),
                            Ok(None) => {}
                            Err(trouble) => return Err(self.errno(trouble)),
                        }
                    }
                    match news {
                        None if !self.look_before_empty() => return Ok(None),
                        None => match self.look() {
                            0 => return Ok(None),
                            heard => news = Some(heard),
                        },
                        Some(_) if !may_end && !self.channel.reads_no_more(self.slot, self.fd) => {
                            return Ok(None);
                        }
                        Some(news) if has_bytes => return Ok(self.ends_call(news).then_some(0)),
                        Some(news) => return self.without_bytes(target, news),
                    }
                }
            }
        }
    }

    /// Bytes in the kernel's queue although the stream is on the channel, when that is to be asked.
    #[inline]
    fn bytes_beneath(&self, ask: bool) -> u64 {
        if ask { position::readable(self.fd) } else { 0 }
    }

    /// A peek has seen what stands before a switch: what follows it can be seen too.
    fn peek_on(&self, target: &mut Cursor, seen: usize) -> usize {
        let both =
            self.channel.switch_pending(self.slot) || self.channel.recovery(self.slot) != Recovery::None;
        if target.remaining() == 0 || !both {
            return 0;
        }
        self.channel.peek_across(self.slot, self.fd, seen, target)
    }

    /// Nothing to read: whether it is time to ask the kernel side. Whoever is going to sleep asks it that way.
    #[inline]
    fn look_before_empty(&self) -> bool {
        hold::release_all();
        self.socket.hint.load(Ordering::Relaxed) || self.nonblocking() && self.socket.look_due()
    }

    /// Whether a call that has bytes gets no more: the stream has ended, or the next byte is an urgent one.
    fn ends_call(&self, news: i16) -> bool {
        news & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0 || position::at_urgent_mark(self.fd)
    }

    /// The end of the stream or an error, if `news` say so; otherwise nothing. No byte is taken that may have come
    /// since the path was looked at, because it may belong behind the channel's; but a byte at the urgent mark,
    /// which the count leaves out, stands before all others (and its sender stays on the kernel).
    fn without_bytes(&self, target: &mut Cursor, news: i16) -> Result<Option<usize>, i32> {
        if news & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLIN) == 0 {
            return Ok(None);
        }
        if position::at_urgent_mark(self.fd) {
            // The count leaves it out again after a peek.
            self.socket.hint.store(true, Ordering::Relaxed);
            if self.channel.leads_to_agent() && self.channel.meets_mark(self.slot, self.fd) {
                return Ok(None);
            }
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
                self.note_kernel(false, bytes);
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
}
