//! One end of a connection: its descriptors, and what is known of the bytes on their way.

use convoy_tests::kit::{Link, show, sys};
use libc::c_int;

/// Bytes that are sent and not read, at most: no send may find the buffers full.
const MOST_UNREAD: usize = 32 << 10;
/// Copies of a descriptor.
const MOST_COPIES: usize = 4;

pub struct End {
    link: Link,
    descriptors: Vec<c_int>,
    /// Those that an epoll has. While another copy is open, the kernel goes on to report for them when they are closed; Convoy
    /// does not, so they stay open as long as there are others.
    watched: Vec<c_int>,
    /// Bytes on their way to this end, and to the other.
    inbound: usize,
    outbound: usize,
    reads_no_more: bool,
    sends_no_more: bool,
    there_sends_no_more: bool,
    there_closed: bool,
}

impl End {
    pub fn new(link: Link) -> Self {
        let descriptors = vec![link.fd];
        Self {
            link,
            descriptors,
            watched: Vec::new(),
            inbound: 0,
            outbound: 0,
            reads_no_more: false,
            sends_no_more: false,
            there_sends_no_more: false,
            there_closed: false,
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

    fn is_closed(&self) -> bool {
        self.descriptors.is_empty()
    }

    fn is_at_end(&self) -> bool {
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
        if self.there_sends_no_more {
            sys::poll_one(self.link.fd, libc::POLLRDHUP, -1);
        }
    }

    pub fn step(&mut self, verb: &str, numbers: &[usize]) -> String {
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        match verb {
            "there-recv" => return self.there_recv(number(0)),
            "there-shutdown" => return self.there_shutdown(),
            "there-close" => return self.there_close(),
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
            "impatient" => self.impatient(fd),
            "shutdown" => self.shutdown(fd, number(0)),
            "close" => self.close(),
            _ => panic!("no step is called {verb}"),
        }
    }

    fn send(&mut self, fd: c_int, count: usize, how: usize) -> String {
        if self.outbound + count > MOST_UNREAD || self.there_closed {
            return "skipped".into();
        }
        let third = count / 3;
        let sent = self.link.put(count, |_, bytes| {
            let (one, rest) = bytes.split_at(third);
            match how % 6 {
                0 => sys::send(fd, bytes, libc::MSG_NOSIGNAL),
                1 => sys::write(fd, bytes),
                2 => sys::writev(fd, &[one, rest]),
                3 => sys::sendmsg(fd, &[one, &[], rest], libc::MSG_NOSIGNAL),
                4 => sys::send(fd, bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT),
                _ => sys::send(fd, bytes, libc::MSG_NOSIGNAL | libc::MSG_MORE),
            }
        });
        self.outbound += sent.unwrap_or(0);
        show(sent)
    }

    fn recv(&mut self, fd: c_int, count: usize, how: usize) -> String {
        let ready = self.inbound > 0 || self.is_at_end();
        // MSG_WAITALL waits for what is not there.
        let whole = self.inbound >= count || self.is_at_end();
        let flags = match how % 7 {
            _ if !ready => libc::MSG_DONTWAIT,
            4 => libc::MSG_DONTWAIT,
            5 if whole => libc::MSG_WAITALL,
            6 => libc::MSG_PEEK,
            _ => 0,
        };
        let (one, two, here) = (count / 2, count - count / 2, self.link.inn);
        let received = self.link.get(count, |_, buffer| match how % 7 {
            1 if ready => sys::read(fd, buffer),
            2 if ready => {
                let (left, right) = buffer.split_at_mut(one);
                sys::readv(fd, &mut [left, right])
            }
            3 if ready => {
                let (left, right) = buffer.split_at_mut(two);
                sys::recvmsg(fd, &mut [left, right], 0).0
            }
            _ => sys::recv(fd, buffer, flags),
        });
        if flags & libc::MSG_PEEK == 0 {
            self.inbound -= received.unwrap_or(0);
        } else {
            self.link.inn = here;
        }
        show(received)
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
        show(sys::shutdown(fd, how))
    }

    /// Closes all descriptors, if nothing is unread: that would be a reset, which takes what it meets.
    fn close(&mut self) -> String {
        if self.inbound > 0 {
            return "skipped".into();
        }
        let closed: Vec<String> = self.descriptors.drain(..).map(|fd| show(sys::close(fd))).collect();
        if self.there_closed {
            return closed.join(" ");
        }
        // The other end reads what was sent, and the end.
        let rest = self.link.ask("drain");
        self.outbound = 0;
        format!("{}, drained {rest}", closed.join(" "))
    }

    fn child_send(&mut self, fd: c_int, count: usize) -> String {
        if self.outbound + count > MOST_UNREAD || self.there_closed || self.sends_no_more || count == 0 {
            return "skipped".into();
        }
        let bytes = self.link.out.peek(count);
        let child = sys::fork(|| {
            let mut sent = 0;
            while sent < count {
                match sys::send(fd, &bytes[sent..], libc::MSG_NOSIGNAL) {
                    Ok(more) => sent += more,
                    Err(error) if error.0 == libc::EAGAIN => {
                        sys::poll_one(fd, libc::POLLOUT, -1);
                    }
                    Err(error) => return error.0,
                }
            }
            0
        });
        let ended = sys::wait(child);
        self.link.out.advance(count);
        self.outbound += count;
        ended
    }

    /// A child reads everything that is there.
    fn child_recv(&mut self, fd: c_int) -> String {
        if self.inbound == 0 || self.reads_no_more {
            return "skipped".into();
        }
        let (count, mut flow) = (self.inbound, self.link.inn);
        let child = sys::fork(|| {
            let (mut buffer, mut received) = (vec![0; count], 0);
            while received < count {
                match sys::recv(fd, &mut buffer[..count - received], 0) {
                    Ok(0) => return 1,
                    Ok(more) => {
                        flow.accept(&buffer[..more]);
                        received += more;
                    }
                    Err(error) if error.0 == libc::EAGAIN => {
                        sys::poll_one(fd, libc::POLLIN, -1);
                    }
                    Err(error) => return error.0,
                }
            }
            0
        });
        let ended = sys::wait(child);
        self.link.inn.advance(count);
        self.inbound = 0;
        ended
    }

    /// A read with a time limit.
    fn impatient(&mut self, fd: c_int) -> String {
        if self.inbound > 0 || self.is_at_end() {
            return "skipped".into();
        }
        let (soon, never) = (sys::timeval(20), sys::timeval(0));
        sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &soon).unwrap();
        let received = sys::recv(fd, &mut [0; 8], 0);
        sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &never).unwrap();
        show(received)
    }

    /// Ends the connection in good order.
    pub fn finish(mut self) {
        self.settle();
        for fd in self.descriptors.drain(..) {
            let _ = sys::close(fd);
        }
    }
}

const POLLS: [i16; 5] =
    [libc::POLLIN, libc::POLLIN | libc::POLLOUT, libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT, 0];

fn select(fd: c_int) -> String {
    // SAFETY: all zeros is an empty set; the descriptor is small.
    let (mut reads, mut writes): (libc::fd_set, libc::fd_set) = unsafe { std::mem::zeroed() };
    let mut now = sys::timeval(0);
    // SAFETY: valid sets and a valid time; the descriptor fits into a set.
    unsafe {
        libc::FD_SET(fd, &raw mut reads);
        libc::FD_SET(fd, &raw mut writes);
        let (reads, writes) = (&raw mut reads, &raw mut writes);
        let ready = sys::status(libc::select(fd + 1, reads, writes, std::ptr::null_mut(), &raw mut now));
        format!("{} {} {}", show(ready), libc::FD_ISSET(fd, reads), libc::FD_ISSET(fd, writes))
    }
}

fn option(fd: c_int, number: usize) -> String {
    let get = |level, name| show(sys::getsockopt_int(fd, level, name));
    match number % 6 {
        0 => get(libc::SOL_SOCKET, libc::SO_ERROR),
        1 => get(libc::SOL_SOCKET, libc::SO_TYPE),
        2 => {
            let set = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &((number / 6 % 2) as c_int));
            format!("{} {}", show(set), get(libc::IPPROTO_TCP, libc::TCP_NODELAY))
        }
        3 => {
            let set = sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1);
            format!("{} {}", show(set), get(libc::SOL_SOCKET, libc::SO_KEEPALIVE))
        }
        4 => get(libc::SOL_SOCKET, libc::SO_DOMAIN),
        _ => get(libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    }
}
