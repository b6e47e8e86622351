//! One end of a connection: its descriptors, what is known of the bytes on their way, and the calls that answer at once.

use convoy_tests::kit::net::Family;
use convoy_tests::kit::{Case, Errno, Link, Outcome, show, sys};
use libc::c_int;

use crate::forms::{POLLS, option, select, send_file, splice_in, splice_out};

/// Bytes that are sent and not read, at most: no send may find the buffers full.
pub const MOST_UNREAD: usize = 32 << 10;
/// Copies of a descriptor.
pub const MOST_COPIES: usize = 4;

pub struct End {
    pub link: Link,
    pub connects: bool,
    /// The other end is on another host.
    pub far: bool,
    pub descriptors: Vec<c_int>,
    /// Those that an epoll has. While another copy is open, the kernel goes on to report for them when they are closed; Convoy
    /// does not, so they stay open as long as there are others.
    pub watched: Vec<c_int>,
    /// Bytes on their way to this end, and to the other.
    pub inbound: usize,
    pub outbound: usize,
    pub reads_no_more: bool,
    pub sends_no_more: bool,
    pub there_sends_no_more: bool,
    pub there_closed: bool,
    there_reset: bool,
    /// Another process has copies.
    pub held: bool,
    /// One that was killed had copies of a connection to another host: that this end was the last is not known, nor that its close
    /// leaves something unread.
    holder_was_killed: bool,
}

impl End {
    pub fn new(case: &mut Case, family: Family) -> Self {
        let link = case.link_over(family);
        let descriptors = vec![link.fd];
        Self {
            link,
            connects: case.connects(),
            far: case.is_far(),
            descriptors,
            watched: Vec::new(),
            inbound: 0,
            outbound: 0,
            reads_no_more: false,
            sends_no_more: false,
            there_sends_no_more: false,
            there_closed: false,
            there_reset: false,
            held: false,
            holder_was_killed: false,
        }
    }

    pub fn copies(&self) -> usize {
        self.descriptors.len().max(1)
    }

    pub fn descriptor(&self, number: usize) -> Option<c_int> {
        self.descriptors.get(number % self.copies()).copied()
    }

    pub fn watch(&mut self, fd: c_int) {
        self.watched.push(fd);
    }

    pub fn is_closed(&self) -> bool {
        self.descriptors.is_empty()
    }

    pub fn is_at_end(&self) -> bool {
        self.inbound == 0 && (self.there_sends_no_more || self.reads_no_more)
    }

    /// Waits until everything that the other end has sent is here.
    pub fn settle(&mut self) {
        if self.is_closed() || self.reads_no_more {
            return;
        }
        if self.inbound > 0 {
            self.link.await_bytes(self.inbound);
        }
        if self.there_reset {
            sys::poll_one(self.link.fd, 0, -1);
        } else if self.there_sends_no_more {
            sys::poll_one(self.link.fd, libc::POLLRDHUP, -1);
        }
    }

    /// Nothing is on its way, and both ends may send.
    pub fn is_quiet(&self) -> bool {
        let ended = self.is_closed() || self.reads_no_more || self.sends_no_more || self.there_sends_no_more;
        !ended && self.inbound == 0 && self.outbound == 0
    }

    pub fn step(&mut self, verb: &str, numbers: &[usize]) -> String {
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        match verb {
            "there-recv" => return self.there_recv(number(0)),
            "there-shutdown" => return self.there_shutdown(),
            "there-close" => return self.there_close(),
            "there-reset" => return self.there_reset(),
            "there-send" => return self.there_send(number(0), number(1)),
            _ => {}
        }
        let Some(fd) = self.descriptor(number(0)) else { return "closed".into() };
        self.settle();
        match verb {
            "send" => self.send(fd, number(1), number(2)),
            "recv" => self.recv(fd, number(1), number(2)),
            "poll" => sys::events(sys::poll_one(fd, POLLS[number(1) % POLLS.len()], 0)),
            "select" => select(fd),
            "queued" => show(sys::ioctl_int(fd, libc::FIONREAD)),
            "dup" => self.dup(fd),
            "dup-over" => self.dup_over(fd, number(1)),
            "close-one" => self.close_one(number(0)),
            "nonblocking" => {
                sys::set_nonblocking(fd, number(1) % 2 == 1);
                show(sys::fcntl(fd, libc::F_GETFL, 0))
            }
            "option" => option(fd, number(1)),
            "child-send" => self.child_send(fd, number(1)),
            "child-recv" => self.child_recv(fd),
            "impatient" => self.impatient(fd, number(1)),
            "interrupted" => self.interrupted(fd, number(1)),
            "await" => self.sleep_until(fd, number(1), number(2)),
            "bulk" => self.bulk(number(0), number(1), number(2)),
            "fill" => self.fill(fd, number(1)),
            // The mark of a return is urgent data itself.
            "urgent" | "there-urgent" if crate::faults() => "skipped".into(),
            "urgent" => self.urgent(fd),
            "there-urgent" => self.there_urgent(fd),
            "pass-to-itself" => self.pass_to_itself(fd),
            "exec" => self.exec(fd, number(1), number(2)),
            "shutdown" => self.shutdown(fd, number(0)),
            "reset" => self.reset(fd),
            "close" => self.close(),
            _ => panic!("no step is called {verb}"),
        }
    }

    fn send(&mut self, fd: c_int, count: usize, how: usize) -> String {
        // Where the other end has only closed, the first send is what makes it complain.
        if self.outbound + count > MOST_UNREAD || self.there_closed && !self.there_reset {
            return "skipped".into();
        }
        let count = if how % 9 == 7 { 0 } else { count };
        let mut sent = self.send_once(fd, count, how);
        while crate::faults() && sent == Err(Errno(libc::EAGAIN)) {
            sys::poll_one(fd, libc::POLLOUT, -1);
            sent = self.send_once(fd, count, how);
        }
        self.outbound += sent.unwrap_or(0);
        show(sent)
    }

    fn send_once(&mut self, fd: c_int, count: usize, how: usize) -> Outcome {
        let third = count / 3;
        self.link.put(count, |_, bytes| {
            let (one, rest) = bytes.split_at(third);
            match how % 9 {
                0 => sys::send(fd, bytes, libc::MSG_NOSIGNAL),
                1 => sys::write(fd, bytes),
                2 => sys::writev(fd, &[one, rest]),
                3 => sys::sendmsg(fd, &[one, &[], rest], libc::MSG_NOSIGNAL),
                4 => sys::send(fd, bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT),
                5 => send_file(fd, bytes),
                6 => splice_in(fd, bytes),
                7 => sys::writev(fd, &[&[], &[]]),
                _ => sys::send(fd, bytes, libc::MSG_NOSIGNAL | libc::MSG_MORE),
            }
        })
    }

    fn recv(&mut self, fd: c_int, count: usize, how: usize) -> String {
        let mut received = self.recv_once(fd, count, how);
        while crate::faults() && self.inbound > 0 && received == Err(Errno(libc::EAGAIN)) {
            self.settle();
            received = self.recv_once(fd, count, how);
        }
        show(received)
    }

    fn recv_once(&mut self, fd: c_int, count: usize, how: usize) -> Outcome {
        let ready = self.inbound > 0 || self.is_at_end();
        // MSG_WAITALL waits for what is not there.
        let whole = self.inbound >= count || self.is_at_end();
        let flags = match how % 8 {
            _ if !ready => libc::MSG_DONTWAIT,
            4 => libc::MSG_DONTWAIT,
            5 if whole => libc::MSG_WAITALL,
            6 => libc::MSG_PEEK,
            _ => 0,
        };
        let (one, two, here) = (count / 2, count - count / 2, self.link.inn);
        let received = self.link.get(count, |_, buffer| match how % 8 {
            1 if ready => sys::read(fd, buffer),
            2 if ready => {
                let (left, right) = buffer.split_at_mut(one);
                sys::readv(fd, &mut [left, right])
            }
            3 if ready => {
                let (left, right) = buffer.split_at_mut(two);
                sys::recvmsg(fd, &mut [left, right], 0).0
            }
            7 if self.inbound >= count => splice_out(fd, buffer),
            _ => sys::recv(fd, buffer, flags),
        });
        if flags & libc::MSG_PEEK == 0 {
            self.inbound -= received.unwrap_or(0);
        } else {
            self.link.inn = here;
        }
        received
    }

    fn there_send(&mut self, count: usize, piece: usize) -> String {
        let refused = self.is_closed() || self.reads_no_more || self.there_sends_no_more;
        if refused || self.inbound + count > MOST_UNREAD {
            return "skipped".into();
        }
        self.inbound += count;
        self.link.ask(&format!("send {count} {}", piece.clamp(1 + count / 16, count.max(1) + 1)))
    }

    fn there_recv(&mut self, count: usize) -> String {
        if self.there_closed {
            return "skipped".into();
        }
        let count = count.min(self.outbound);
        self.outbound -= count;
        self.link.ask(&format!("recv {count}"))
    }

    fn there_shutdown(&mut self) -> String {
        if self.there_sends_no_more || self.is_closed() {
            return "skipped".into();
        }
        self.there_sends_no_more = true;
        self.link.ask("shutdown 1")
    }

    fn there_close(&mut self) -> String {
        if self.there_closed || self.outbound > 0 || self.is_closed() {
            return "skipped".into();
        }
        (self.there_sends_no_more, self.there_closed) = (true, true);
        self.link.ask("close")
    }

    fn there_reset(&mut self) -> String {
        // Of a reset that meets a return the next send may not know yet.
        if self.there_closed || self.is_closed() || crate::faults() {
            return "skipped".into();
        }
        // A reset leaves out what has not arrived.
        self.settle();
        (self.there_sends_no_more, self.there_closed, self.there_reset) = (true, true, true);
        self.outbound = 0;
        self.link.ask("reset")
    }

    fn dup(&mut self, fd: c_int) -> String {
        if self.descriptors.len() >= MOST_COPIES {
            return "skipped".into();
        }
        let copy = sys::dup(fd).expect("a copy");
        self.descriptors.push(copy as c_int);
        "copied".into()
    }

    /// One copy onto another.
    fn dup_over(&mut self, fd: c_int, number: usize) -> String {
        let target = self.descriptor(number).expect("open");
        if self.watched.contains(&target) {
            return "skipped".into();
        }
        (sys::dup2(fd, target) == Ok(target as usize)).to_string()
    }

    fn close_one(&mut self, number: usize) -> String {
        if self.descriptors.len() < 2 {
            return "skipped".into();
        }
        let place = number % self.descriptors.len();
        if self.watched.contains(&self.descriptors[place]) {
            return "skipped".into();
        }
        let closed = sys::close(self.descriptors.remove(place));
        self.link.fd = self.descriptors[0];
        show(closed)
    }

    fn shutdown(&mut self, fd: c_int, how: usize) -> String {
        // The end of reading leaves bytes that are on their way to chance.
        let how = if self.inbound == 0 && how % 8 == 7 { libc::SHUT_RD } else { libc::SHUT_WR };
        if self.there_closed {
            return "skipped".into();
        }
        self.sends_no_more |= how == libc::SHUT_WR;
        self.reads_no_more |= how == libc::SHUT_RD;
        let result = sys::shutdown(fd, how);
        // That the end is acknowledged is an edge to those who watch the connection, now or later.
        while !self.far && sys::unacknowledged(fd) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        show(result)
    }

    /// Closes all descriptors. With bytes unread that is a reset, if nobody else holds the connection.
    fn close(&mut self) -> String {
        // For a registration that another process's copy keeps, see `watched`.
        let watched = self.held && !self.watched.is_empty();
        if watched || (self.held || self.holder_was_killed) && self.inbound > 0 {
            return "skipped".into();
        }
        if self.outbound > 0 && !self.there_closed {
            self.link.ask(&format!("await {}", self.outbound));
        }
        let closed: Vec<String> = self.descriptors.drain(..).map(|fd| show(sys::close(fd))).collect();
        self.watched.clear();
        let rest = if self.held { None } else { self.drained() };
        rest.map_or_else(|| closed.join(" "), |rest| format!("{}, {rest}", closed.join(" ")))
    }

    /// The other end reads what was sent, and the end.
    fn drained(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.there_closed, true) {
            return None;
        }
        self.outbound = 0;
        let rest = self.link.ask("drain");
        Some(format!("drained {rest}, closed {}", self.link.ask("close")))
    }

    /// Nobody else holds the connection any more; what the other end says of that where this one has closed it before.
    pub fn released(&mut self, killed: bool) -> Option<String> {
        let held = std::mem::replace(&mut self.held, false);
        self.holder_was_killed |= held && killed && self.far;
        if held && self.is_closed() { self.drained() } else { None }
    }

    fn reset(&mut self, fd: c_int) -> String {
        if self.held || self.holder_was_killed && self.inbound > 0 {
            return "skipped".into();
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let set = sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        format!("{} {}", show(set), self.close())
    }

    /// Ends the connection in good order.
    pub fn finish(mut self) {
        self.settle();
        for fd in self.descriptors.drain(..) {
            let _ = sys::close(fd);
        }
    }
}
