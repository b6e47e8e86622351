//! select and pselect.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::{SIGNALS, count, serve};

/// A set of descriptors of any size.
struct Set(Vec<u64>);

impl Set {
    fn of(fds: &[i32]) -> Self {
        let mut set = Self(vec![0; 128]);
        fds.iter().for_each(|&fd| set.0[usize::try_from(fd).unwrap() / 64] |= 1 << (fd % 64));
        set
    }

    fn has(&self, fd: i32) -> bool {
        self.0[usize::try_from(fd).unwrap() / 64] & (1 << (fd % 64)) != 0
    }

    fn pointer(&mut self) -> *mut libc::fd_set {
        self.0.as_mut_ptr().cast()
    }
}

/// `select` on a few descriptors: the result, and for each descriptor what it is ready for.
fn select(fds: &[i32], write: bool, milliseconds: i64) -> String {
    let (mut readers, mut writers, mut others) =
        (Set::of(fds), Set::of(if write { fds } else { &[] }), Set::of(fds));
    let mut time = sys::timeval(milliseconds.max(0));
    let time = if milliseconds < 0 { std::ptr::null_mut() } else { &raw mut time };
    let highest = fds.iter().max().unwrap() + 1;
    // SAFETY: sets with room for every descriptor.
    let result =
        unsafe { libc::select(highest, readers.pointer(), writers.pointer(), others.pointer(), time) };
    let bit = |set: &Set, fd, letter| if set.has(fd) { letter } else { "-" };
    let words: Vec<String> = fds
        .iter()
        .map(|&fd| format!("{}{}{}", bit(&readers, fd, "r"), bit(&writers, fd, "w"), bit(&others, fd, "x")))
        .collect();
    format!("{} {}", show(sys::status(result)), words.join(" "))
}

pub(crate) fn select_states(case: &mut Case) {
    let mut link = case.link();
    let fd = link.fd;
    say!("fresh: {}", select(&[fd], true, 0));
    link.ask("send 10");
    say!("data: {}", select(&[fd], false, -1));
    say!("both: {}", select(&[fd], true, -1));
    link.recv_with(10, 0).unwrap();
    say!("read: {}", select(&[fd], true, 0));
    let sent = link.fill_up(30_000);
    say!("full: {}", select(&[fd], true, 5));
    link.ask(&format!("recv {sent}"));
    say!("room: {}", select(&[fd], true, -1));
    link.ask("shutdown 1");
    say!("end: {}", select(&[fd], false, -1));
    sys::shutdown(fd, libc::SHUT_WR).unwrap();
    say!("both ends: {}", select(&[fd], true, -1));
    let link = case.link();
    link.ask("reset");
    say!("reset: {}", select(&[link.fd], false, -1));
    sys::close(link.fd).unwrap();
    say!("closed: {}", select(&[link.fd], false, 5).split(' ').next().unwrap());
}

pub(crate) fn select_time_limits(case: &mut Case) {
    let link = case.link();
    for milliseconds in [0, 1, 30] {
        let start = Instant::now();
        let result = select(&[link.fd], false, milliseconds);
        let enough = start.elapsed() + Duration::from_millis(1)
            >= Duration::from_millis(u64::try_from(milliseconds).unwrap());
        say!("{milliseconds}: {result}, waited long enough: {enough}");
    }
    // Linux writes back what is left of the time.
    link.ask("send 1");
    let (mut readers, mut time) = (Set::of(&[link.fd]), sys::timeval(50_000));
    // SAFETY: a valid set and time.
    let result = unsafe {
        libc::select(
            link.fd + 1,
            readers.pointer(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut time,
        )
    };
    say!("in time: {result}, time is left: {}", time.tv_sec > 0 && time.tv_sec < 50);
    let (mut readers, mut time) = (Set::of(&[link.fd]), libc::timeval { tv_sec: -1, tv_usec: 0 });
    // SAFETY: a valid set; the time is to be refused.
    let result = unsafe {
        libc::select(
            link.fd + 1,
            readers.pointer(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut time,
        )
    };
    say!("wrong time: {}", show(sys::status(result)));
    let none = std::ptr::null_mut();
    let mut time = sys::timeval(5);
    say!(
        "no sets: {}",
        // SAFETY: no sets at all, and a valid time.
        show(sys::status(unsafe { libc::select(0, none, none, none, &raw mut time) }))
    );
    say!(
        "negative: {}",
        // SAFETY: as above; the count is to be refused.
        show(sys::status(unsafe { libc::select(-1, none, none, none, &raw mut time) }))
    );
}

pub(crate) fn select_mixed(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    let fds = [link.fd, out];
    say!("nothing: {}", select(&fds, false, 5));
    sys::write(inn, b"x").unwrap();
    say!("pipe: {}", select(&fds, false, -1));
    link.ask("send 1");
    link.await_bytes(1);
    say!("both: {}", select(&fds, false, -1));
    sys::read(out, &mut [0]).unwrap();
    say!("stream: {}", select(&fds, false, -1));
    link.recv_with(1, 0).unwrap();
    for _ in 0..20 {
        link.start("send 1");
        say!("sleeping: {}", select(&fds, false, -1));
        link.finish();
        link.recv_with(1, 0).unwrap();
        let thread = std::thread::spawn(move || sys::write(inn, b"y").unwrap());
        say!("sleeping: {}", select(&fds, false, -1));
        thread.join().unwrap();
        sys::read(out, &mut [0]).unwrap();
    }
}

/// Descriptors above FD_SETSIZE with a set that has room for them.
pub(crate) fn select_large_numbers(case: &mut Case) {
    let mut link = case.link();
    for number in [1023, 1024, 1500, 4000] {
        sys::dup2(link.fd, number).unwrap();
        let old = link.fd;
        sys::close(old).unwrap();
        link.stream.fd = number;
        say!("{number}: nothing: {}", select(&[number], false, 0));
        link.start("send 7");
        say!("data: {}", select(&[number], true, -1).len() > 2);
        link.finish();
        say!("data: {}", select(&[number], false, -1));
        say!("{}", show(link.recv_with(7, libc::MSG_WAITALL)));
        link.start("pong 10 10");
        link.ping(10, 10);
        link.finish();
    }
}

pub(crate) fn pselect_signals(case: &mut Case) {
    sys::on_signal(libc::SIGUSR1, count, 0);
    let mut link = case.link();
    sys::block(libc::SIGUSR1);
    for round in 0..5 {
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGUSR1) };
        let none = std::ptr::null_mut();
        let mut readers = Set::of(&[link.fd]);
        // SAFETY: a valid set and mask.
        let result = unsafe {
            libc::pselect(link.fd + 1, readers.pointer(), none, none, std::ptr::null(), &sys::mask(&[]))
        };
        say!("{round}: {}, signals {}", show(sys::status(result)), SIGNALS.load(Ordering::SeqCst));
        link.ask("send 4");
        let (mut readers, time) = (Set::of(&[link.fd]), sys::timespec(30_000));
        // SAFETY: as above.
        let result = unsafe {
            libc::pselect(link.fd + 1, readers.pointer(), none, none, &raw const time, &sys::mask(&[]))
        };
        say!("data: {} {}", show(sys::status(result)), show(link.recv_with(4, libc::MSG_WAITALL)));
    }
}

pub(crate) fn select_loop_traffic(case: &mut Case) {
    serve(case, |fds| {
        let mut readers = Set::of(fds);
        let (none, highest) = (std::ptr::null_mut(), fds.iter().max().unwrap() + 1);
        // SAFETY: a set with room for every descriptor.
        let result = unsafe { libc::select(highest, readers.pointer(), none, none, std::ptr::null_mut()) };
        assert!(result > 0);
        fds.iter().copied().filter(|&fd| readers.has(fd)).collect()
    });
}
