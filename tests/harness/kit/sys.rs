//! The C library's calls with slices for buffers and names for errors; nothing is added to what they do.
#![allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

use std::ptr::{null, null_mut};
use std::time::Duration;

use libc::{c_int, c_void, iovec, ssize_t};

use super::{Errno, Outcome};

/// Whether the next byte is behind an urgent one (sockatmark(3), asm-generic/sockios.h).
pub const SIOCATMARK: libc::Ioctl = 0x8905;

/// Turns a C result into an [`Outcome`].
pub fn outcome(result: ssize_t) -> Outcome {
    if result < 0 { Err(Errno::last()) } else { Ok(result as usize) }
}

/// The same for calls that return an `int`.
pub fn status(result: c_int) -> Outcome {
    outcome(result as ssize_t)
}

/// The descriptor that a call made, or the panic that a test deserves.
pub fn descriptor(result: c_int) -> c_int {
    assert!(result >= 0, "no descriptor: {}", Errno::last());
    result
}

/// `read`.
pub fn read(fd: c_int, buffer: &mut [u8]) -> Outcome {
    // SAFETY: the buffer is writable for its length.
    outcome(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// `write`.
pub fn write(fd: c_int, buffer: &[u8]) -> Outcome {
    // SAFETY: the buffer is readable for its length.
    outcome(unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) })
}

/// `recv`.
pub fn recv(fd: c_int, buffer: &mut [u8], flags: c_int) -> Outcome {
    // SAFETY: the buffer is writable for its length.
    outcome(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// `send`.
pub fn send(fd: c_int, buffer: &[u8], flags: c_int) -> Outcome {
    // SAFETY: the buffer is readable for its length.
    outcome(unsafe { libc::send(fd, buffer.as_ptr().cast(), buffer.len(), flags) })
}

/// iovecs for reading memory.
pub fn parts(buffers: &[&[u8]]) -> Vec<iovec> {
    buffers
        .iter()
        .map(|part| iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect()
}

/// iovecs for writing memory.
pub fn parts_mut(buffers: &mut [&mut [u8]]) -> Vec<iovec> {
    buffers.iter_mut().map(|part| iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect()
}

/// A message header around iovecs, without name and control data.
pub fn header(parts: &mut [iovec]) -> libc::msghdr {
    // SAFETY: all zeros is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    header
}

/// `writev`.
pub fn writev(fd: c_int, buffers: &[&[u8]]) -> Outcome {
    let parts = parts(buffers);
    // SAFETY: the parts describe readable slices.
    outcome(unsafe { libc::writev(fd, parts.as_ptr(), parts.len() as c_int) })
}

/// `readv`.
pub fn readv(fd: c_int, buffers: &mut [&mut [u8]]) -> Outcome {
    let parts = parts_mut(buffers);
    // SAFETY: the parts describe writable slices.
    outcome(unsafe { libc::readv(fd, parts.as_ptr(), parts.len() as c_int) })
}

/// `sendmsg` without name and control data.
pub fn sendmsg(fd: c_int, buffers: &[&[u8]], flags: c_int) -> Outcome {
    let mut parts = parts(buffers);
    let header = header(&mut parts);
    // SAFETY: the header describes readable slices.
    outcome(unsafe { libc::sendmsg(fd, &raw const header, flags) })
}

/// `recvmsg` without control data; also gives `msg_flags` and `msg_namelen` (room for 128 bytes was offered).
pub fn recvmsg(fd: c_int, buffers: &mut [&mut [u8]], flags: c_int) -> (Outcome, c_int, u32) {
    let mut parts = parts_mut(buffers);
    let mut name = [0_u8; 128];
    let mut header = header(&mut parts);
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = 128;
    // SAFETY: the header describes writable slices and a writable name.
    let result = outcome(unsafe { libc::recvmsg(fd, &raw mut header, flags) });
    (result, header.msg_flags, header.msg_namelen)
}

/// `recvmsg` with room for control data; also gives the kinds of what came, with the first four bytes of each.
pub fn recvmsg_control(fd: c_int, buffer: &mut [u8], flags: c_int, room: usize) -> (Outcome, Vec<Control>) {
    let mut parts = parts_mut(&mut [buffer]);
    let mut control = vec![0_u64; room.div_ceil(8) + 2];
    let mut header = header(&mut parts);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = room as _;
    // SAFETY: the header describes writable memory.
    let result = outcome(unsafe { libc::recvmsg(fd, &raw mut header, flags) });
    let mut came = Vec::new();
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        came.push(Control { level: -1, kind: -1, length: 0, value: 0 });
    }
    // SAFETY: the walk stays inside what the kernel has written; of an item that was cut off what lies behind is read, too,
    // which is zero.
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(head) = item.as_ref() {
            let value = libc::CMSG_DATA(item).cast::<c_int>().read_unaligned();
            let (level, kind) = (head.cmsg_level, head.cmsg_type);
            came.push(Control { level, kind, length: head.cmsg_len, value });
            item = libc::CMSG_NXTHDR(&raw const header, item);
        }
    }
    (result, came)
}

/// A piece of control data. One that did not fit has the level -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Whose it is.
    pub level: c_int,
    /// What it is.
    pub kind: c_int,
    /// How long it is with its head.
    pub length: usize,
    /// How it begins.
    pub value: c_int,
}

/// `close`.
pub fn close(fd: c_int) -> Outcome {
    // SAFETY: no memory is involved.
    status(unsafe { libc::close(fd) })
}

/// `shutdown`.
pub fn shutdown(fd: c_int, how: c_int) -> Outcome {
    // SAFETY: no memory is involved.
    status(unsafe { libc::shutdown(fd, how) })
}

/// `dup`.
pub fn dup(fd: c_int) -> Outcome {
    // SAFETY: no memory is involved.
    status(unsafe { libc::dup(fd) })
}

/// `dup2`.
pub fn dup2(old: c_int, new: c_int) -> Outcome {
    // SAFETY: no memory is involved.
    status(unsafe { libc::dup2(old, new) })
}

/// `fcntl` with a number.
pub fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Outcome {
    // SAFETY: the commands that tests use take a number.
    status(unsafe { libc::fcntl(fd, command, argument) })
}

/// Switches O_NONBLOCK.
pub fn set_nonblocking(fd: c_int, on: bool) {
    let flags = fcntl(fd, libc::F_GETFL, 0).unwrap() as c_int;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    fcntl(fd, libc::F_SETFL, flags).unwrap();
}

/// `ioctl` that fills in one int, such as FIONREAD.
pub fn ioctl_int(fd: c_int, request: libc::Ioctl) -> Outcome {
    let mut value: c_int = -1;
    // SAFETY: the requests that tests use write one int.
    status(unsafe { libc::ioctl(fd, request, &raw mut value) }).map(|_| value as usize)
}

/// What the other end's kernel has not acknowledged (SIOCOUTQ of tcp(7)), asked of the kernel past all who intercept ioctl(2).
pub fn unacknowledged(fd: c_int) -> c_int {
    let mut value: c_int = -1;
    // SAFETY: the request writes one int.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCOUTQ, &raw mut value) };
    value
}

/// `setsockopt` with any plain value.
pub fn setsockopt<T>(fd: c_int, level: c_int, name: c_int, value: &T) -> Outcome {
    let length = size_of::<T>() as u32;
    // SAFETY: the value is readable for its size.
    status(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), length) })
}

/// `getsockopt` for an int.
pub fn getsockopt_int(fd: c_int, level: c_int, name: c_int) -> Outcome {
    let (mut value, mut length): (c_int, u32) = (0, 4);
    // SAFETY: the value is writable for the length.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    status(result).map(|_| value as usize)
}

/// A `timeval` of milliseconds.
pub fn timeval(milliseconds: i64) -> libc::timeval {
    libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 }
}

/// A `timespec` of milliseconds.
pub fn timespec(milliseconds: i64) -> libc::timespec {
    libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

/// Processor time that this thread has used.
pub fn thread_time() -> Duration {
    let mut time = timespec(0);
    // SAFETY: a valid place for the time.
    status(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }).expect("a clock");
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Whether a thread of this process sleeps (proc_pid_stat(5)).
pub fn sleeps(thread: i32) -> bool {
    let about = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    about.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}

/// `poll` on several descriptors; -1 milliseconds waits for ever.
pub fn poll(set: &mut [libc::pollfd], milliseconds: c_int) -> Outcome {
    // SAFETY: the set is valid for its length.
    status(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, milliseconds) })
}

/// `poll` on one descriptor: the events that came, or 0 after the time.
pub fn poll_one(fd: c_int, events: i16, milliseconds: c_int) -> i16 {
    let mut set = [libc::pollfd { fd, events, revents: 0 }];
    poll(&mut set, milliseconds).unwrap();
    set[0].revents
}

/// The events of `poll` by name.
pub fn events(bits: i16) -> String {
    let names = [
        (libc::POLLIN, "IN"),
        (libc::POLLPRI, "PRI"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLNVAL, "NVAL"),
        (libc::POLLRDHUP, "RDHUP"),
    ];
    let found: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if found.is_empty() { "none".into() } else { found.join("|") }
}

/// Waits for the urgent byte and takes it.
pub fn receive_urgent(fd: c_int) -> String {
    let ready = events(poll_one(fd, libc::POLLPRI, -1));
    let mut byte = [0];
    let received = recv(fd, &mut byte, libc::MSG_OOB);
    format!("{ready} {} {byte:?} mark {}", super::show(received), super::show(ioctl_int(fd, SIOCATMARK)))
}

/// A pipe.
pub fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    status(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }).unwrap();
    (ends[0], ends[1])
}

/// Runs a closure in a forked child, which then ends with the closure's value.
pub fn fork(child: impl FnOnce() -> i32) -> c_int {
    // SAFETY: the child only runs what the caller gave, and leaves without returning.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", Errno::last());
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) }
    }
    pid
}

/// Waits for a child and says how it ended.
pub fn wait(pid: c_int) -> String {
    let mut status = 0;
    // SAFETY: room for a status.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if result != pid {
        return format!("waitpid: {}", Errno::last());
    }
    if libc::WIFEXITED(status) {
        format!("exit {}", libc::WEXITSTATUS(status))
    } else {
        format!("signal {}", libc::WTERMSIG(status))
    }
}

/// `kill`.
pub fn kill(pid: c_int, signal: c_int) {
    // SAFETY: no memory is involved.
    status(unsafe { libc::kill(pid, signal) }).unwrap();
}

/// Installs a signal handler.
pub fn on_signal(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: all zeros is a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the action is valid and the old one is not asked for.
    status(unsafe { libc::sigaction(signal, &raw const action, null_mut()) }).unwrap();
}

/// A set of signals.
pub fn mask(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a set is filled by the calls below.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        signals.iter().for_each(|&signal| assert_eq!(libc::sigaddset(&raw mut set, signal), 0));
        set
    }
}

/// Blocks a signal in this thread.
pub fn block(signal: i32) {
    // SAFETY: a valid set; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &mask(&[signal]), null_mut()) };
}

/// Sets a signal to SIG_IGN or SIG_DFL.
pub fn disposition(signal: c_int, value: libc::sighandler_t) {
    // SAFETY: one of the two fixed dispositions.
    unsafe { libc::signal(signal, value) };
}

/// `splice` without offsets.
pub fn splice(input: c_int, output: c_int, count: usize, flags: u32) -> Outcome {
    // SAFETY: no memory is involved.
    outcome(unsafe { libc::splice(input, null_mut(), output, null_mut(), count, flags) })
}

/// `sendfile`; an offset is advanced as the kernel does.
pub fn sendfile(output: c_int, input: c_int, offset: Option<&mut i64>, count: usize) -> Outcome {
    let offset = offset.map_or(null_mut(), std::ptr::from_mut);
    // SAFETY: the offset is null or valid.
    outcome(unsafe { libc::sendfile(output, input, offset, count) })
}

/// How many descriptors this process may have.
pub fn getrlimit_nofile() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a writable limit.
    status(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).unwrap();
    limit.rlim_cur as usize
}

/// Raises that limit as far as it goes, and gives it back.
pub fn raise_nofile() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a writable limit, then a valid one.
    unsafe {
        status(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)).unwrap();
        limit.rlim_cur = limit.rlim_max;
        status(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).unwrap();
    }
    limit.rlim_cur as usize
}

/// A pointer that no process may touch.
pub fn nowhere() -> *mut c_void {
    16 as *mut c_void
}

/// `execve` of a path with arguments, keeping the environment but for `LD_PRELOAD` where it is not wanted.
/// Comes back only on failure.
pub fn exec(path: &str, arguments: &[&str], preloaded: bool) -> Errno {
    use std::ffi::CString;
    let text = |value: &str| CString::new(value).unwrap();
    let arguments: Vec<CString> = arguments.iter().map(|&value| text(value)).collect();
    let environment: Vec<CString> = std::env::vars()
        .filter(|(name, _)| preloaded || name != "LD_PRELOAD")
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect();
    let list = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([null()]).collect::<Vec<_>>()
    };
    // SAFETY: both lists are null-terminated and their strings outlive the call.
    unsafe { libc::execve(text(path).as_ptr(), list(&arguments).as_ptr(), list(&environment).as_ptr()) };
    Errno::last()
}
