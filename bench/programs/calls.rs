//! Single calls, one after the other, for counting their instructions: `convoy-instructions` runs this program under
//! callgrind, which counts inside the functions named `counted_*` and writes down what it has counted at `write_down`.
//!
//! Both ends of every connection are in this process and its only thread, so a call finds the same state in every run.
//! Some of what Convoy does depends on the time since the last such call (a look at the kernel connection); counting
//! makes the time between calls long, so the same call is made just before, uncounted.
//!
//! `--only foreign` counts only the calls on descriptors that are no sockets, to compare them without Convoy. Otherwise
//! prints `streams`, the number of connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, bail, ensure};
use convoy_bench::args::Args;
use convoy_bench::buffer;
use convoy_bench::epoll::Epoll;
use libc::{epoll_event, pollfd};

/// Counted calls of each path; the middle one of their counts is used.
const ROUNDS: usize = 31;
/// Connections in the epoll instance.
const STREAMS: usize = 64;
/// Bytes of a small message.
const SMALL: usize = 64;
/// Bytes of a large one.
const LARGE: usize = 64 << 10;
/// Messages in each direction before anything is counted: promotion, and windows that have grown.
const WARM_UP: usize = 32;
/// Bytes of the messages by which the window grows until a large one fits.
const MEDIUM: usize = 16 << 10;

/// Defines a counted function around one libc call. The answer goes through memory, so that the call is none in tail
/// position, which would leave the function before it is made; its name too, so that equal ones do not become one.
macro_rules! counted {
    ($($name:ident => $call:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(#[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($($argument: $kind),*) -> $answer {
            std::hint::black_box(stringify!($name));
            // SAFETY: the callers below pass live buffers with their lengths.
            std::hint::black_box(unsafe { libc::$call($($argument),*) })
        })*
    };
}

counted! {
    counted_send => send(fd: RawFd, bytes: *const libc::c_void, length: usize, flags: i32) -> isize;
    counted_recv => recv(fd: RawFd, bytes: *mut libc::c_void, length: usize, flags: i32) -> isize;
    counted_recv_sorted => recv(fd: RawFd, bytes: *mut libc::c_void, length: usize, flags: i32) -> isize;
    counted_recv_nothing => recv(fd: RawFd, bytes: *mut libc::c_void, length: usize, flags: i32) -> isize;
    counted_send_64k => send(fd: RawFd, bytes: *const libc::c_void, length: usize, flags: i32) -> isize;
    counted_recv_64k => recv(fd: RawFd, bytes: *mut libc::c_void, length: usize, flags: i32) -> isize;
    counted_epoll_wait_1 => epoll_wait(fd: RawFd, events: *mut epoll_event, count: i32, timeout: i32) -> i32;
    counted_epoll_wait_64 => epoll_wait(fd: RawFd, events: *mut epoll_event, count: i32, timeout: i32) -> i32;
    counted_poll => poll(set: *mut pollfd, count: libc::nfds_t, timeout: i32) -> i32;
    counted_write_foreign => write(fd: RawFd, bytes: *const libc::c_void, length: usize) -> isize;
    counted_read_foreign => read(fd: RawFd, bytes: *mut libc::c_void, length: usize) -> isize;
}

/// When this is left, callgrind writes down what was counted since the last time.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_down() {
    std::hint::black_box(());
}

type Send = unsafe extern "C" fn(RawFd, *const libc::c_void, usize, i32) -> isize;
type Receive = unsafe extern "C" fn(RawFd, *mut libc::c_void, usize, i32) -> isize;
type EpollWait = unsafe extern "C" fn(RawFd, *mut epoll_event, i32, i32) -> i32;
type Poll = unsafe extern "C" fn(*mut pollfd, libc::nfds_t, i32) -> i32;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    foreign()?;
    if args.text("only").is_ok_and(|only| only == "foreign") {
        return Ok(());
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut alone = Pair::new(&listener)?;
    single(&mut alone)?;
    large(&mut alone)?;
    let mut many = (0..STREAMS).map(|_| Pair::new(&listener)).collect::<Result<Vec<_>>>()?;
    waits(&mut many)?;
    println!("streams {}", 1 + many.len());
    Ok(())
}

/// Both ends of a promoted connection, nonblocking.
struct Pair {
    near: TcpStream,
    far: TcpStream,
    message: Vec<u8>,
    room: Vec<u8>,
}

impl Pair {
    fn new(listener: &TcpListener) -> Result<Self> {
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        for end in [&near, &far] {
            end.set_nonblocking(true)?;
            end.set_nodelay(true)?;
        }
        let mut pair = Self { near, far, message: buffer::message(SMALL), room: vec![0; SMALL] };
        for _ in 0..WARM_UP {
            pair.message()?;
            std::mem::swap(&mut pair.near, &mut pair.far);
            pair.message()?;
            std::mem::swap(&mut pair.near, &mut pair.far);
        }
        Ok(pair)
    }

    fn resize(&mut self, size: usize) {
        self.message = buffer::message(size);
        self.room = vec![0; size];
    }

    fn message(&mut self) -> Result<()> {
        self.send(libc::send)?;
        self.receive(libc::recv)
    }

    fn send(&self, send: Send) -> Result<()> {
        // SAFETY: a live buffer with its length.
        let sent =
            unsafe { send(self.near.as_raw_fd(), self.message.as_ptr().cast(), self.message.len(), 0) };
        ensure!(sent == self.message.len() as isize, "{sent} of {} bytes sent", self.message.len());
        Ok(())
    }

    fn receive(&mut self, receive: Receive) -> Result<()> {
        let got = self.try_receive(receive);
        ensure!(got == self.room.len() as isize, "{got} of {} bytes received", self.room.len());
        Ok(())
    }

    fn try_receive(&mut self, receive: Receive) -> isize {
        // SAFETY: a live buffer with its length.
        unsafe { receive(self.far.as_raw_fd(), self.room.as_mut_ptr().cast(), self.room.len(), 0) }
    }
}

/// One message at a time on one connection, as in a ping-pong.
fn single(pair: &mut Pair) -> Result<()> {
    for _ in 0..ROUNDS {
        pair.message()?;
        pair.send(counted_send)?;
        write_down();
        pair.receive(libc::recv)?;
    }
    for _ in 0..ROUNDS {
        pair.message()?;
        pair.send(libc::send)?;
        pair.receive(counted_recv)?;
        write_down();
    }
    for _ in 0..ROUNDS {
        for receive in [libc::recv as Receive, counted_recv_nothing] {
            ensure!(pair.try_receive(receive) == -1, "bytes came unasked");
        }
        write_down();
    }
    Ok(())
}

fn large(pair: &mut Pair) -> Result<()> {
    pair.resize(MEDIUM);
    for _ in 0..WARM_UP {
        pair.message()?;
    }
    pair.resize(LARGE);
    for _ in 0..ROUNDS {
        pair.message()?;
        pair.send(counted_send_64k)?;
        write_down();
        pair.receive(libc::recv)?;
    }
    for _ in 0..ROUNDS {
        pair.message()?;
        pair.send(libc::send)?;
        pair.receive(counted_recv_64k)?;
        write_down();
    }
    Ok(())
}

/// The far ends of all streams are waited for, by one epoll instance.
fn waits(pairs: &mut [Pair]) -> Result<()> {
    let epoll = Epoll::new()?;
    for (index, pair) in pairs.iter().enumerate() {
        epoll.add(pair.far.as_raw_fd(), index)?;
    }
    for _ in 0..ROUNDS {
        pairs.iter().try_for_each(|pair| pair.send(libc::send))?;
        wait(&epoll, counted_epoll_wait_64, pairs.len())?;
        write_down();
        for (index, pair) in pairs.iter_mut().enumerate() {
            pair.receive(if index == STREAMS / 2 { counted_recv_sorted } else { libc::recv })?;
        }
        write_down();
    }
    let [pair, ..] = pairs else { bail!("no streams") };
    for _ in 0..ROUNDS {
        wait(&epoll, libc::epoll_wait, 0)?;
        pair.send(libc::send)?;
        wait(&epoll, counted_epoll_wait_1, 1)?;
        write_down();
        pair.receive(libc::recv)?;
    }
    for _ in 0..ROUNDS {
        wait_by_poll(pair, libc::poll, 0)?;
        pair.send(libc::send)?;
        wait_by_poll(pair, counted_poll, 1)?;
        write_down();
        pair.receive(libc::recv)?;
    }
    Ok(())
}

fn wait(epoll: &Epoll, wait: EpollWait, expected: usize) -> Result<()> {
    let mut events = [epoll_event { events: 0, u64: 0 }; STREAMS];
    // SAFETY: a live array with its length.
    let ready = unsafe { wait(epoll.as_raw_fd(), events.as_mut_ptr(), STREAMS as i32, timeout(expected)) };
    ensure!(ready == expected as i32, "{ready} streams ready instead of {expected}");
    Ok(())
}

fn wait_by_poll(pair: &Pair, poll: Poll, expected: usize) -> Result<()> {
    let mut entry = pollfd { fd: pair.far.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    let ready = unsafe { poll(&raw mut entry, 1, timeout(expected)) };
    ensure!(ready == expected as i32, "{ready} streams ready instead of {expected}");
    Ok(())
}

/// A program that waits for something gives no limit; one that knows there is nothing only looks.
fn timeout(expected: usize) -> i32 {
    if expected > 0 { -1 } else { 0 }
}

/// A pipe: nothing that Convoy follows.
fn foreign() -> Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let mut message = buffer::message(SMALL);
    for _ in 0..ROUNDS {
        writer.write_all(&message)?;
        reader.read_exact(&mut message)?;
        let written = counted_write_foreign(writer.as_raw_fd(), message.as_ptr().cast(), message.len());
        write_down();
        let read = counted_read_foreign(reader.as_raw_fd(), message.as_mut_ptr().cast(), message.len());
        write_down();
        ensure!([written, read] == [SMALL as isize; 2], "{written} bytes written, {read} read");
    }
    Ok(())
}
