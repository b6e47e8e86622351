//! Calls that sleep: until bytes come from the other end, until a time is over, until a signal; and traffic that fills buffers.

use std::thread;

use convoy_tests::kit::epoll::{ET, Epoll, IN};
use convoy_tests::kit::pattern::Flow;
use convoy_tests::kit::pester::pester;
use convoy_tests::kit::{Errno, show, sys};
use libc::c_int;

use crate::end::{End, MOST_UNREAD};

/// Long enough to be a sleep, for a wait in which nothing comes.
const SHORT: c_int = 20;

extern "C" fn nothing(_: c_int) {}

impl End {
    /// A thread waits and receives, and the other end sends meanwhile.
    pub fn sleep_until(&mut self, fd: c_int, how: usize, count: usize) -> String {
        if self.inbound > 0 || self.is_at_end() || self.reads_no_more || count == 0 || count > MOST_UNREAD {
            return "skipped".into();
        }
        let flow = self.link.inn;
        let thread = thread::spawn(move || receive_asleep(fd, how, count, flow));
        let sent = self.link.ask(&format!("send {count} {}", 1 + count / (1 + how % 3)));
        self.link.inn.advance(count);
        format!("{sent} {}", thread.join().expect("the receiving thread"))
    }

    /// A wait with a time limit, in which nothing comes.
    pub fn impatient(&mut self, fd: c_int, how: usize) -> String {
        if self.inbound > 0 || self.is_at_end() {
            return "skipped".into();
        }
        match how % 3 {
            0 => sys::events(sys::poll_one(fd, libc::POLLIN, SHORT)),
            1 => {
                let epoll = Epoll::new();
                format!("{} {}", show(epoll.add(fd, IN, 1)), epoll.look(SHORT))
            }
            _ => {
                let (soon, never) = (sys::timeval(SHORT.into()), sys::timeval(0));
                sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &soon).unwrap();
                let received = sys::recv(fd, &mut [0; 8], 0);
                sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &never).unwrap();
                show(received)
            }
        }
    }

    /// A wait that a handler ends.
    pub fn interrupted(&mut self, fd: c_int, how: usize) -> String {
        if self.inbound > 0 || self.is_at_end() {
            return "skipped".into();
        }
        sys::on_signal(libc::SIGUSR1, nothing, 0);
        let mut set = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        let epoll = Epoll::new();
        epoll.add(fd, IN, 1).unwrap();
        pester(|| match how % 3 {
            0 => show(sys::poll(&mut set, -1)),
            1 => epoll.look(-1),
            _ => show(sys::recv(fd, &mut [0; 8], 0)),
        })
    }

    /// Both ends send much at the same time.
    pub fn bulk(&mut self, out: usize, inn: usize, piece: usize) -> String {
        if !self.is_quiet() {
            return "skipped".into();
        }
        let (out, inn, piece) = (out << 4, inn << 4, 1 + piece);
        self.link.start(&format!("both {inn} {out} {}", 1 + piece / 2));
        self.link.both(out, inn, piece + out / 100);
        self.link.finish()
    }

    /// Fills the buffers, whose size is nobody's business, and lets the other end empty them.
    pub fn fill(&mut self, fd: c_int, piece: usize) -> String {
        if !self.is_quiet() {
            return "skipped".into();
        }
        let sent = self.link.fill_up(1000 + piece);
        let all = self.link.ask(&format!("recv {sent}")) == sent.to_string();
        format!("all arrived: {all}, {}", sys::events(sys::poll_one(fd, libc::POLLOUT, -1)))
    }

    /// An urgent byte for the other end, and one behind it, so that nothing of it remains.
    pub fn urgent(&mut self, fd: c_int) -> String {
        if !self.is_quiet() {
            return "skipped".into();
        }
        let sent = sys::send(fd, b"!", libc::MSG_OOB | libc::MSG_NOSIGNAL);
        let there = self.link.ask("receive-urgent");
        let behind = self.link.send_with(1, libc::MSG_NOSIGNAL);
        format!("{} {there} {} {}", show(sent), show(behind), self.link.ask("recv 1"))
    }

    /// The same the other way.
    pub fn there_urgent(&mut self, fd: c_int) -> String {
        if !self.is_quiet() {
            return "skipped".into();
        }
        let sent = self.link.ask("urgent");
        let urgent = sys::receive_urgent(fd);
        let behind = self.link.ask("send 1");
        // A byte behind the mark may be seen a moment after it has come.
        self.link.await_bytes(1);
        format!("{sent} {urgent} {behind} {:?}", self.link.recv_all(1, 1))
    }
}

/// Receives so many bytes, however long it takes; how many came and were right.
fn receive_asleep(fd: c_int, how: usize, count: usize, mut flow: Flow) -> String {
    let epoll = Epoll::new();
    let events = if how % 5 == 3 { IN | ET } else { IN };
    if how % 5 >= 2 {
        epoll.add(fd, events, 1).unwrap();
    }
    let (mut buffer, mut received) = (vec![0; count], 0);
    while received < count {
        let flags = match how % 5 {
            0 => 0,
            1 => {
                sys::poll_one(fd, libc::POLLIN, -1);
                libc::MSG_DONTWAIT
            }
            2 | 3 => {
                epoll.wait(4, -1).unwrap();
                libc::MSG_DONTWAIT
            }
            _ => libc::MSG_WAITALL,
        };
        // An edge is told once for all the bytes there are.
        loop {
            match sys::recv(fd, &mut buffer[..count - received], flags) {
                Ok(0) => return format!("end after {received}"),
                Ok(more) => {
                    flow.accept(&buffer[..more]);
                    received += more;
                }
                Err(Errno(libc::EAGAIN)) if flags == libc::MSG_DONTWAIT => break,
                Err(Errno(libc::EAGAIN)) => {
                    sys::poll_one(fd, libc::POLLIN, -1);
                }
                Err(error) => return format!("{error} after {received}"),
            }
            if received == count || flags != libc::MSG_DONTWAIT {
                break;
            }
        }
    }
    "received".into()
}
