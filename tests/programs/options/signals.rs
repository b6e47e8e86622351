//! Signals for what arrives, and urgent bytes.

use std::sync::atomic::{AtomicI32, Ordering};

use convoy_tests::kit::epoll::Epoll;
use convoy_tests::kit::net::{Address, Family};
use convoy_tests::kit::stream::{Stream, chat, pair};
use convoy_tests::kit::{Case, Link, net, show, sys};
use convoy_tests::say;

use crate::{await_count, until};

/// Signals so far.
static COUNT: AtomicI32 = AtomicI32::new(0);
static OTHERS: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn count_other(_: i32) {
    OTHERS.fetch_add(1, Ordering::SeqCst);
}

/// Whether one comes after `happen`.
fn signalled(counter: &AtomicI32, happen: impl FnOnce()) -> bool {
    let before = counter.load(Ordering::SeqCst);
    happen();
    until(|| counter.load(Ordering::SeqCst) > before)
}

fn own(fd: i32) {
    let pid = i32::try_from(std::process::id()).unwrap();
    say!("owner: {}", show(sys::fcntl(fd, libc::F_SETOWN, pid)));
}

fn asynchronous(fd: i32, on: bool) {
    let flags = i32::try_from(sys::fcntl(fd, libc::F_GETFL, 0).unwrap()).unwrap();
    let flags = if on { flags | libc::O_ASYNC } else { flags & !libc::O_ASYNC };
    say!("signals {on}: {}", show(sys::fcntl(fd, libc::F_SETFL, flags)));
}

fn receive_by_signal(link: &mut Link, counter: &AtomicI32) {
    for round in 0..3 {
        let signal = signalled(counter, || drop(link.ask("send 10")));
        await_count(link.fd, 10);
        say!("{round}: signal {signal}, {}", show(link.recv_with(100, libc::MSG_DONTWAIT)));
    }
}

pub(crate) fn signal_driven(case: &mut Case) {
    const F_SETSIG: i32 = 10;
    let mut link = case.link();
    sys::on_signal(libc::SIGIO, count, libc::SA_RESTART);
    sys::on_signal(libc::SIGUSR2, count_other, libc::SA_RESTART);
    own(link.fd);
    asynchronous(link.fd, true);
    receive_by_signal(&mut link, &COUNT);
    say!("another signal: {}", show(sys::fcntl(link.fd, F_SETSIG, libc::SIGUSR2)));
    receive_by_signal(&mut link, &OTHERS);
    asynchronous(link.fd, false);
    link.ask("send 10");
    say!("without: {}", show(link.recv_with(10, libc::MSG_WAITALL)));
}

pub(crate) fn signal_driven_by_ioctl(case: &mut Case) {
    let mut link = case.link();
    sys::on_signal(libc::SIGIO, count, libc::SA_RESTART);
    own(link.fd);
    let on = 1_i32;
    // SAFETY: FIOASYNC reads one int.
    let set = sys::status(unsafe { libc::ioctl(link.fd, libc::FIOASYNC, &raw const on) });
    say!("on: {}", show(set));
    receive_by_signal(&mut link, &COUNT);
}

/// Both ends in one process, with the flag set before the first byte, on the socket that connects.
pub(crate) fn signal_driven_early(_: &mut Case) {
    sys::on_signal(libc::SIGIO, count, libc::SA_RESTART);
    let (listener, port) = net::listen(Family::V4);
    let client = net::socket(Family::V4, 0);
    own(client);
    asynchronous(client, true);
    let (mut one, mut two) = pair(listener, client, 0, &Address::loopback(Family::V4, port));
    chat(&mut one, &mut two, 20, 50);
    for round in 0..3 {
        let send = |two: &mut Stream| assert_eq!(two.send_all(10, 10), (10, None));
        let signal = signalled(&COUNT, || send(&mut two));
        say!("{round}: signal {signal}, {}", show(one.recv_with(10, libc::MSG_WAITALL)));
    }
}

unsafe extern "C" {
    fn sockatmark(fd: i32) -> i32;
}

/// Whether the next byte is the urgent one, asked in both ways.
fn at_mark(fd: i32) -> String {
    // SAFETY: no memory is involved.
    let by_call = sys::status(unsafe { sockatmark(fd) });
    format!("{} {}", show(sys::ioctl_int(fd, sys::SIOCATMARK)), show(by_call))
}

/// Waits for urgent data, in one of three ways.
fn await_urgent(fd: i32, way: i32) -> String {
    match way {
        0 => sys::events(sys::poll_one(fd, libc::POLLPRI, 10_000)),
        1 => {
            // SAFETY: all zeros is an empty set, which has room for this descriptor.
            let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
            let mut limit = sys::timeval(10_000);
            // SAFETY: as above.
            let ready = unsafe {
                libc::FD_SET(fd, &raw mut set);
                libc::select(fd + 1, std::ptr::null_mut(), std::ptr::null_mut(), &raw mut set, &raw mut limit)
            };
            format!("select {}", show(sys::status(ready)))
        }
        _ => {
            let group = Epoll::new();
            group.add(fd, libc::EPOLLPRI.cast_unsigned(), 7).unwrap();
            let found = group.look(10_000);
            group.close().unwrap();
            format!("epoll {found}")
        }
    }
}

pub(crate) fn urgent_mark(case: &mut Case) {
    let mut link = case.link();
    sys::on_signal(libc::SIGURG, count, libc::SA_RESTART);
    own(link.fd);
    for round in 0..3 {
        link.ask("send 20");
        await_count(link.fd, 20);
        say!("{round}: no mark: {}", at_mark(link.fd));
        let signal = signalled(&COUNT, || drop(link.ask("urgent")));
        say!("signal {signal}, {}", await_urgent(link.fd, round));
        say!("before the mark: {}, {}", at_mark(link.fd), show(sys::ioctl_int(link.fd, libc::FIONREAD)));
        say!("up to it: {}", show(link.recv_with(100, 0)));
        say!("at the mark: {}", at_mark(link.fd));
        let mut byte = [0];
        let urgent = sys::recv(link.fd, &mut byte, libc::MSG_OOB);
        say!("urgent: {} {byte:?}", show(urgent));
        link.ask("send 5");
        say!("behind it: {}", show(link.recv_with(5, libc::MSG_WAITALL)));
        say!("no mark: {}", at_mark(link.fd));
    }
}

pub(crate) fn urgent_inline(case: &mut Case) {
    let mut link = case.link();
    say!("inline: {}", show(sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, &1_i32)));
    for round in 0..3 {
        link.ask("send 20");
        link.ask("urgent");
        sys::poll_one(link.fd, libc::POLLPRI, 10_000);
        say!("{round}: up to it: {}, {}", show(link.recv_with(100, 0)), at_mark(link.fd));
        let mut byte = [0];
        say!("the byte: {} {byte:?}", show(sys::recv(link.fd, &mut byte, 0)));
        link.ask("send 5");
        say!("behind it: {}", show(link.recv_with(5, libc::MSG_WAITALL)));
    }
}
