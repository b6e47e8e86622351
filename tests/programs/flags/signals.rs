//! Signals that come from streams, and signals that come in between.

use std::sync::atomic::{AtomicI32, Ordering};

use convoy_tests::kit::pester::pester;
use convoy_tests::kit::stream::told;
use convoy_tests::kit::{Case, Link, show, sys};
use convoy_tests::say;

static SIGNALS: AtomicI32 = AtomicI32::new(0);
static REFUSED: AtomicI32 = AtomicI32::new(0);
static TARGET: AtomicI32 = AtomicI32::new(-1);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Closes the other end and waits until this end has noticed.
fn break_pipe(link: &mut Link) {
    link.ask("reset");
    while sys::poll_one(link.fd, libc::POLLIN, -1) & libc::POLLHUP == 0 {}
}

pub(crate) fn broken_pipe(case: &mut Case) {
    sys::on_signal(libc::SIGPIPE, count, 0);
    let mut link = case.link();
    break_pipe(&mut link);
    say!("first: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("second: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("sendmsg: {}", show(sys::sendmsg(link.fd, &[b"abc"], libc::MSG_NOSIGNAL)));
    say!("recv: {}", show(link.recv_with(10, 0)));
    say!("signals: {}", SIGNALS.load(Ordering::SeqCst));
    let mut link = case.link();
    say!("shut: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
    say!("signals: {}", SIGNALS.load(Ordering::SeqCst));
}

pub(crate) fn broken_pipe_signal(case: &mut Case) {
    sys::on_signal(libc::SIGPIPE, count, 0);
    let mut link = case.link();
    say!("shut: {}", show(sys::shutdown(link.fd, libc::SHUT_WR)));
    let told =
        |what: &str, result| say!("{what}: {}, signals {}", show(result), SIGNALS.load(Ordering::SeqCst));
    told("send", link.send_with(10, 0));
    told("write", link.put(10, sys::write));
    told("writev", sys::writev(link.fd, &[b"ab", b"c"]));
    told("sendmsg", sys::sendmsg(link.fd, &[b"ab"], 0));
    told("of nothing", sys::write(link.fd, &[]));
    let mut link = case.link();
    break_pipe(&mut link);
    told("after a reset", link.put(10, sys::write));
    told("once more", link.put(10, sys::write));
    sys::disposition(libc::SIGPIPE, libc::SIG_IGN);
    told("ignored", link.put(10, sys::write));
}

pub(crate) fn interrupted(case: &mut Case) {
    sys::on_signal(libc::SIGUSR1, count, 0);
    let mut link = case.link();
    pester(|| say!("recv: {}", show(link.recv_with(10, 0))));
    pester(|| say!("read: {}", show(link.get(10, sys::read))));
    let mut set = [libc::pollfd { fd: link.fd, events: libc::POLLIN, revents: 0 }];
    pester(|| say!("poll: {}", show(sys::poll(&mut set, -1))));
    let total = link.fill_up(30_000);
    let mut blocked = 0;
    pester(|| {
        let last = loop {
            match link.send_with(30_000, 0) {
                Ok(count) => blocked += count,
                Err(error) => break error,
            }
        };
        say!("send: {last}");
    });
    link.start(&format!("recv {}", total + blocked));
    say!("all arrived: {}", link.finish() == (total + blocked).to_string());
    link.start("send 10");
    say!("and back: {}", show(link.recv_with(10, libc::MSG_WAITALL)));
    link.finish();
}

pub(crate) fn restarted(case: &mut Case) {
    sys::on_signal(libc::SIGUSR1, count, libc::SA_RESTART);
    let mut link = case.link();
    // The puppet answers only after some signals have come.
    let stream = &mut link.stream;
    let puppet = std::rc::Rc::clone(&case.puppet());
    pester(|| {
        let before = SIGNALS.load(Ordering::SeqCst);
        while SIGNALS.load(Ordering::SeqCst) < before + 20 {
            std::thread::yield_now();
        }
        puppet.start("0 send 200000 100");
        say!("recv: {}", told(stream.recv_all(200_000, 200_000)));
        assert_eq!(puppet.finish(), "200000");
        puppet.start("0 recv 5000000");
        say!("send: {}", told(stream.send_all(5_000_000, 5_000_000)));
        say!("arrived {}", puppet.finish());
    });
}

extern "C" fn send_one(_: i32) {
    let byte = [0x55_u8];
    let sent =
        // SAFETY: as above.
        unsafe { libc::send(TARGET.load(Ordering::SeqCst), byte.as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
    if sent == 1 {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    } else {
        // SAFETY: one readable byte; send is allowed in a handler.
        REFUSED.store(unsafe { *libc::__errno_location() }, Ordering::SeqCst);
    }
}

/// A handler that sends on one stream while the thread is busy with another.
pub(crate) fn handler_sends(case: &mut Case) {
    let mut link = case.link();
    let other = case.link();
    TARGET.store(other.fd, Ordering::SeqCst);
    sys::on_signal(libc::SIGUSR1, send_one, libc::SA_RESTART);
    let stream = &mut link.stream;
    let puppet = case.puppet();
    pester(|| {
        let mut rounds = 0;
        while rounds < 300 || SIGNALS.load(Ordering::SeqCst) < 30 && REFUSED.load(Ordering::SeqCst) == 0 {
            rounds += 1;
            puppet.start("0 pong 10 64");
            stream.ping(10, 64);
            assert_eq!(puppet.finish(), "done");
        }
    });
    say!(
        "signals came: {}, last error {}",
        SIGNALS.load(Ordering::SeqCst) > 0,
        REFUSED.load(Ordering::SeqCst)
    );
    let count = SIGNALS.load(Ordering::SeqCst);
    let answer = puppet.ask(&format!("1 count {count}"));
    say!("each sent its byte: {}", answer == count.to_string());
}
