//! Much data, little room: backpressure, partial calls, both ways at once, many streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::kit::stream::{Stop, told};
use convoy_tests::kit::{Case, Errno, main as run, show, sys};
use convoy_tests::say;

fn main() {
    run(&[
        ("filled_and_drained", filled_and_drained),
        ("filled_by_peer", filled_by_peer),
        ("writable_again", writable_again),
        ("partial_writes", partial_writes),
        ("huge_calls", huge_calls),
        ("slow_reader", slow_reader),
        ("tiny_reads", tiny_reads),
        ("tiny_writes", tiny_writes),
        ("both_ways", both_ways),
        ("both_ways_threads", both_ways_threads),
        ("blocked_writer_and_end", blocked_writer_and_end),
        ("blocked_writer_and_reset", blocked_writer_and_reset),
        ("little_room", little_room),
        ("one_slow_among_many", one_slow_among_many),
        ("sizes_at_borders", sizes_at_borders),
    ]);
}

fn filled_and_drained(case: &mut Case) {
    let mut link = case.link();
    for (round, piece) in [1, 100, 4096, 4097, 65_536, 1_000_000].into_iter().enumerate() {
        // Very small pieces take long to fill a kernel's buffers; a bounded number of them does as well.
        let sent =
            if piece == 1 { told(link.send_all(20_000, 1)).parse().unwrap() } else { link.fill_up(piece) };
        say!("{round}: something fitted: {}", sent > 0);
        link.start(&format!("recv {sent} 9999"));
        say!("all arrived: {}", link.finish() == sent.to_string());
    }
    link.start("pong 5 100");
    link.ping(5, 100);
    say!("as fresh: {}", link.finish());
}

fn filled_by_peer(case: &mut Case) {
    let mut link = case.link();
    for piece in [1000, 100_000] {
        let answer = link.ask(&format!("fill {piece}"));
        let sent: usize = answer.rsplit(' ').next().unwrap().parse().unwrap();
        say!("something fitted: {}", sent > 0);
        say!("all came: {}", link.recv_all(sent, 12_345) == (sent, None));
        say!("nothing more: {}", show(link.recv_with(1, libc::MSG_DONTWAIT)));
    }
}

fn writable_again(case: &mut Case) {
    let mut link = case.link();
    for round in 0..3 {
        let sent = link.fill_up(20_000);
        say!("{round}: full: {}", sys::events(sys::poll_one(link.fd, libc::POLLOUT, 0)));
        link.start(&format!("recv {sent}"));
        say!("room: {}", sys::events(sys::poll_one(link.fd, libc::POLLOUT, -1)));
        say!("all arrived: {}", link.finish() == sent.to_string());
        say!("takes more: {}", link.send_with(10, libc::MSG_DONTWAIT) == Ok(10));
        link.ask("recv 10");
    }
}

/// A nonblocking writer of large blocks, which are taken in parts, against a reader.
fn partial_writes(case: &mut Case) {
    let mut link = case.link();
    sys::set_nonblocking(link.fd, true);
    let total = 20_000_000;
    link.start(&format!("recv {total} 50000"));
    let mut sent = 0;
    while sent < total {
        match link.put((total - sent).min(3_000_000), sys::write) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error, Errno(libc::EAGAIN));
                assert_ne!(sys::poll_one(link.fd, libc::POLLOUT, -1), 0);
            }
        }
    }
    say!("sent {sent}, arrived {}", link.finish());
}

/// One blocking call takes everything, however large.
fn huge_calls(case: &mut Case) {
    let mut link = case.link();
    for size in [1_000_000, 10_000_000] {
        link.start(&format!("recv {size} 100000"));
        say!("write {size}: {}, arrived {}", show(link.put(size, sys::write)), link.finish());
        link.start(&format!("send {size} {size}"));
        say!("wait for all {size}: {}, {}", show(link.recv_with(size, libc::MSG_WAITALL)), link.finish());
    }
    let size = 5_000_000;
    link.start(&format!("recv {size}"));
    let cut = |fd, buffer: &[u8]| {
        let parts: Vec<&[u8]> = buffer.chunks(5000).collect();
        sys::writev(fd, &parts)
    };
    say!("writev of 1000 parts: {}, arrived {}", show(link.put(size, cut)), link.finish());
}

fn slow_reader(case: &mut Case) {
    let mut link = case.link();
    link.start("send 3000000 3000000");
    let mut total = 0;
    while total < 3_000_000 {
        let wanted = 1 + (total * 7) % 3000;
        total += link.recv_with(wanted.min(3_000_000 - total), 0).unwrap();
        std::thread::yield_now();
    }
    say!("received {total}, sent {}", link.finish());
}

fn tiny_reads(case: &mut Case) {
    let mut link = case.link();
    link.start("send 60000 60000");
    say!("received {}, sent {}", told(link.recv_all(60_000, 1)), link.finish());
}

fn tiny_writes(case: &mut Case) {
    let mut link = case.link();
    link.start("recv 60000 60000");
    say!("sent {}, arrived {}", told(link.send_all(60_000, 1)), link.finish());
}

fn both_ways(case: &mut Case) {
    let mut link = case.link();
    for piece in [500, 8192, 300_000] {
        link.start(&format!("both 8000000 8000000 {piece}"));
        link.both(8_000_000, 8_000_000, piece);
        say!("pieces of {piece}: {}", link.finish());
    }
}

/// Blocking calls in two threads on one socket, one for each direction.
fn both_ways_threads(case: &mut Case) {
    let mut link = case.link();
    link.start("both 20000000 20000000 65536");
    let (mut sender, mut receiver) = (link.stream, link.stream);
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || told(sender.send_all(20_000_000, 40_000)));
        let received = scope.spawn(move || told(receiver.recv_all(20_000_000, 70_000)));
        say!("sent {}", sent.join().unwrap());
        say!("received {}", received.join().unwrap());
    });
    say!("other end {}", link.finish());
    link.stream.out.advance(20_000_000);
    link.stream.inn.advance(20_000_000);
    link.start("pong 5 100");
    link.ping(5, 100);
    say!("as fresh: {}", link.finish());
}

/// The reader takes some, then stops reading for good and closes its sending side only.
fn blocked_writer_and_end(case: &mut Case) {
    let mut link = case.link();
    let sent = link.fill_up(50_000);
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(10, 0)));
    link.start(&format!("recv {}", sent + 1_000_000));
    say!("blocked write: {}", told(link.send_all(1_000_000, 1_000_000)));
    say!("all arrived: {}", link.finish() == (sent + 1_000_000).to_string());
}

fn blocked_writer_and_reset(case: &mut Case) {
    let mut link = case.link();
    link.fill_up(50_000);
    link.start("reset");
    let stop = loop {
        match link.send_with(100_000, libc::MSG_NOSIGNAL) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    say!("ended by a reset: {}", stop == Errno(libc::ECONNRESET) || stop == Errno(libc::EPIPE));
    link.finish();
    say!("send: {}", show(link.send_with(10, libc::MSG_NOSIGNAL)));
}

/// A receiver with very little room makes the sender wait, and gets everything.
fn little_room(case: &mut Case) {
    let mut link = case.link();
    say!("room: {}", link.ask("room 20000"));
    sys::setsockopt(link.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &20_000_i32).unwrap();
    link.start("recv 300000 1500");
    say!("sent {}, arrived {}", told(link.send_all(300_000, 10_000)), link.finish());
}

/// A stream that nobody reads does not hold up its neighbours.
fn one_slow_among_many(case: &mut Case) {
    let mut links = case.links(5);
    let sent = links[2].fill_up(60_000);
    for round in 0..200_usize {
        let link = &mut links[if round % 4 < 2 { round % 4 } else { round % 4 + 1 }];
        link.start("pong 5 300");
        link.ping(5, 300);
        assert_eq!(link.finish(), "done");
    }
    say!("the others worked");
    links[0].start("both 3000000 3000000");
    links[0].both(3_000_000, 3_000_000, 30_000);
    say!("in bulk too: {}", links[0].finish());
    say!("the slow one: {}", links[2].ask(&format!("recv {sent}")) == sent.to_string());
    say!("nothing more: {}", links[2].ask("shutdown 1"));
    say!("its end: {}", links[2].recv_all(10, 10) == (0, Some(Stop::End)));
}

/// One call each of many sizes around powers of two.
fn sizes_at_borders(case: &mut Case) {
    let mut link = case.link();
    for power in 1..18 {
        for size in [(1_usize << power) - 1, 1 << power, (1 << power) + 1] {
            link.start(&format!("mirror {size}"));
            let sent = link.send_with(size, 0);
            say!("{size}: {} {} {}", show(sent), told(link.recv_all(size, size)), link.finish());
        }
    }
}
