//! Streams and threads: many pairs at once, several threads on one stream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use convoy_tests::kit::net::{self, Family};
use convoy_tests::kit::stream::{Stream, chat, told};
use convoy_tests::kit::{Case, main as run, pattern, show, sys};
use convoy_tests::say;

fn main() {
    run(&[
        ("echo_pairs", echo_pairs),
        ("echo_pairs_poll", echo_pairs_poll),
        ("thread_for_each_connection", thread_for_each_connection),
        ("full_duplex", full_duplex),
        ("several_senders", several_senders),
        ("several_receivers", several_receivers),
        ("several_pollers", several_pollers),
        ("handed_from_thread_to_thread", handed_from_thread_to_thread),
        ("short_threads", short_threads),
        ("accept_in_threads", accept_in_threads),
        ("connect_in_threads", connect_in_threads),
        ("open_and_close_everywhere", open_and_close_everywhere),
        ("close_beside_traffic", close_beside_traffic),
        ("threads_against_puppet", threads_against_puppet),
    ]);
}

/// Both ends of a new connection inside this process.
fn pair(listener: i32, port: u16, number: u64) -> (Stream, Stream) {
    let client = net::connected(Family::V4, port);
    let server = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
    net::no_delay(client);
    net::no_delay(server);
    (Stream::new(client, number, true), Stream::new(server, number, false))
}

fn pairs(count: u64) -> Vec<(Stream, Stream)> {
    let (listener, port) = net::listen(Family::V4);
    let pairs = (0..count).map(|number| pair(listener, port, number)).collect();
    sys::close(listener).unwrap();
    pairs
}

fn echo_pairs(_: &mut Case) {
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (mut one, mut two) in pairs(8) {
            scope.spawn(move || two.pong(2000, 64));
            let done = &done;
            scope.spawn(move || {
                one.ping(2000, 64);
                done.fetch_add(2000, Ordering::SeqCst);
            });
        }
    });
    say!("{} exchanges", done.load(Ordering::SeqCst));
}

/// The same with nonblocking sockets and `poll`; afterwards one pair goes on, because all this can be over before the first of these
/// threads has made a channel.
fn echo_pairs_poll(_: &mut Case) {
    let done = AtomicUsize::new(0);
    let mut pairs = pairs(6);
    std::thread::scope(|scope| {
        for (one, two) in &mut pairs {
            for stream in [one, two] {
                let done = &done;
                sys::set_nonblocking(stream.fd, true);
                scope.spawn(move || {
                    stream.both(100_000, 100_000, 50);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        }
    });
    say!("{} ends", done.load(Ordering::SeqCst));
    let (one, two) = &mut pairs[0];
    for stream in [&one, &two] {
        sys::set_nonblocking(stream.fd, false);
    }
    chat(one, two, 20, 50);
}

fn thread_for_each_connection(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let clients = 20;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::scope(|inner| {
                for _ in 0..clients {
                    let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
                    inner.spawn(move || {
                        let mut buffer = [0; 500];
                        while let Ok(count @ 1..) = sys::read(fd, &mut buffer) {
                            assert_eq!(sys::write(fd, &buffer[..count]), Ok(count));
                        }
                        sys::close(fd).unwrap();
                    });
                }
            });
        });
        for number in 0..clients {
            scope.spawn(move || {
                let fd = net::connected(Family::V4, port);
                for round in 0..200_usize {
                    let size = 1 + (round * 7) % 300;
                    let mut message = vec![0; size];
                    pattern::fill(number, round as u64, &mut message);
                    assert_eq!(sys::send(fd, &message, 0), Ok(size));
                    let mut answer = vec![0; size];
                    assert_eq!(sys::recv(fd, &mut answer, libc::MSG_WAITALL), Ok(size));
                    assert_eq!(message, answer);
                }
                sys::close(fd).unwrap();
            });
        }
    });
    say!("{clients} served");
}

/// One thread sends, another receives, on both ends.
fn full_duplex(_: &mut Case) {
    let total = 5_000_000;
    std::thread::scope(|scope| {
        for (one, two) in pairs(2) {
            for end in [one, two] {
                let (mut sender, mut receiver) = (end, end);
                scope.spawn(move || assert_eq!(sender.send_all(total, 5000), (total, None)));
                scope.spawn(move || assert_eq!(receiver.recv_all(total, 7000), (total, None)));
            }
        }
    });
    say!("each way {total}");
}

/// Records of several threads on one stream may come in any order, but each of them whole.
fn several_senders(_: &mut Case) {
    let (one, two) = pairs(1)[0];
    let (senders, records) = (4_u8, 3000);
    let mut seen = vec![0_u32; usize::from(senders)];
    std::thread::scope(|scope| {
        for sender in 0..senders {
            scope.spawn(move || {
                for number in 0..records {
                    let mut record = [sender; 48];
                    record[..4].copy_from_slice(&u32::to_le_bytes(number));
                    assert_eq!(sys::send(one.fd, &record, 0), Ok(48));
                }
            });
        }
        for _ in 0..u32::from(senders) * records {
            let mut record = [0; 48];
            assert_eq!(sys::recv(two.fd, &mut record, libc::MSG_WAITALL), Ok(48));
            let (sender, number) =
                (usize::from(record[47]), u32::from_le_bytes(record[..4].try_into().unwrap()));
            assert!(record[4..].iter().all(|&byte| byte == record[47]), "a torn record");
            assert_eq!(seen[sender], number, "a sender's records in order");
            seen[sender] += 1;
        }
    });
    say!("{seen:?}");
}

/// Threads that read one stream get each byte once.
fn several_receivers(_: &mut Case) {
    let (mut one, two) = pairs(1)[0];
    let (total, sums) = (AtomicUsize::new(0), [const { AtomicUsize::new(0) }; 256]);
    let mut expected = vec![0; 256];
    one.out.peek(300_000).iter().for_each(|&byte| expected[usize::from(byte)] += 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut buffer = [0; 300];
                while let Ok(count @ 1..) = sys::recv(two.fd, &mut buffer, 0) {
                    total.fetch_add(count, Ordering::SeqCst);
                    for &byte in &buffer[..count] {
                        sums[usize::from(byte)].fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        assert_eq!(one.send_all(300_000, 700), (300_000, None));
        sys::shutdown(one.fd, libc::SHUT_WR).unwrap();
    });
    let found: Vec<usize> = sums.iter().map(|sum| sum.load(Ordering::SeqCst)).collect();
    say!("{} bytes, each once: {}", total.load(Ordering::SeqCst), found == expected);
}

/// What one thread is told of another may have read before it looks. A poll without a limit never says that time is over.
fn several_pollers(_: &mut Case) {
    let (one, two) = pairs(1)[0];
    // It does not leave the kernel while threads sleep there.
    for _ in 0..200 {
        for (from, to) in [(one, two), (two, one)] {
            assert_eq!(sys::send(from.fd, &[7; 60], 0), Ok(60));
            assert_eq!(sys::recv(to.fd, &mut [0; 60], libc::MSG_WAITALL), Ok(60));
        }
    }
    let (total, timeouts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut buffer = [0; 100];
                loop {
                    let mut set = [libc::pollfd { fd: two.fd, events: libc::POLLIN, revents: 0 }];
                    if sys::poll(&mut set, -1) == Ok(0) {
                        timeouts.fetch_add(1, Ordering::SeqCst);
                    }
                    match sys::recv(two.fd, &mut buffer, libc::MSG_DONTWAIT) {
                        Ok(0) => return,
                        Ok(count) => {
                            total.fetch_add(count, Ordering::SeqCst);
                            assert_eq!(sys::send(two.fd, &buffer[..count], 0), Ok(count));
                        }
                        Err(errno) => assert_eq!(errno.0, libc::EAGAIN),
                    }
                }
            });
        }
        for _ in 0..5000 {
            assert_eq!(sys::send(one.fd, &[7; 60], 0), Ok(60));
            assert_eq!(sys::recv(one.fd, &mut [0; 60], libc::MSG_WAITALL), Ok(60));
        }
        sys::shutdown(one.fd, libc::SHUT_WR).unwrap();
    });
    say!("{} bytes, {} times nothing", total.into_inner(), timeouts.into_inner());
}

/// A stream that is used by another thread each time, as in a thread pool.
fn handed_from_thread_to_thread(_: &mut Case) {
    let (one, mut two) = pairs(1)[0];
    let stream = std::sync::Mutex::new(one);
    std::thread::scope(|scope| {
        scope.spawn(move || two.pong(1000, 30));
        for _ in 0..10 {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            stream.lock().unwrap().ping(1, 30);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    });
    say!("1000 exchanges");
}

/// Threads that come and go leave the streams alone.
fn short_threads(_: &mut Case) {
    let (mut one, mut two) = pairs(1)[0];
    for _ in 0..200 {
        let threads = [
            std::thread::spawn(move || {
                one.ping(1, 20);
                one
            }),
            std::thread::spawn(move || {
                two.pong(1, 20);
                two
            }),
        ];
        [one, two] = threads.map(|thread| thread.join().unwrap());
    }
    say!("200 exchanges");
    sys::close(one.fd).unwrap();
    say!("end: {}", show(two.recv_with(10, 0)));
}

fn accept_in_threads(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(fd) = net::accept(listener, libc::SOCK_CLOEXEC) {
                    let mut buffer = [0; 100];
                    while let Ok(count @ 1..) = sys::read(fd, &mut buffer) {
                        assert_eq!(sys::write(fd, &buffer[..count]), Ok(count));
                    }
                    sys::close(fd).unwrap();
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..60_u64 {
            let fd = net::connected(Family::V4, port);
            for _ in 0..20 {
                assert_eq!(sys::send(fd, &[1; 40], 0), Ok(40));
                assert_eq!(sys::recv(fd, &mut [0; 40], libc::MSG_WAITALL), Ok(40));
            }
            sys::close(fd).unwrap();
        }
        while served.load(Ordering::SeqCst) < 60 {
            std::thread::yield_now();
        }
        sys::shutdown(listener, libc::SHUT_RDWR).unwrap();
    });
    say!("{} served", served.load(Ordering::SeqCst));
}

fn connect_in_threads(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8_u64 {
            scope.spawn(|| {
                barrier.wait();
                for round in 0..30_u8 {
                    let fd = net::connected(Family::V4, port);
                    for _ in 0..5 {
                        assert_eq!(sys::send(fd, &[round; 40], 0), Ok(40));
                        let mut answer = [0; 40];
                        assert_eq!(sys::recv(fd, &mut answer, libc::MSG_WAITALL), Ok(40));
                        assert_eq!(answer, [round; 40]);
                    }
                    sys::close(fd).unwrap();
                }
            });
        }
        for _ in 0..240 {
            let fd = net::accept(listener, libc::SOCK_CLOEXEC).unwrap();
            scope.spawn(move || {
                let mut buffer = [0; 40];
                while sys::recv(fd, &mut buffer, libc::MSG_WAITALL) == Ok(40) {
                    assert_eq!(sys::send(fd, &buffer, libc::MSG_NOSIGNAL), Ok(40));
                }
                sys::close(fd).unwrap();
            });
        }
    });
    say!("240 connections");
}

/// Numbers are reused all the time, by streams and by other things.
fn open_and_close_everywhere(_: &mut Case) {
    let (listener, port) = net::listen(Family::V4);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let (out, inn) = sys::pipe();
                    assert_eq!(sys::write(inn, b"pipe"), Ok(4));
                    let mut buffer = [0; 8];
                    assert_eq!(sys::read(out, &mut buffer), Ok(4));
                    assert_eq!(&buffer[..4], b"pipe");
                    sys::close(out).unwrap();
                    sys::close(inn).unwrap();
                    // SAFETY: a valid path.
                    let file = sys::descriptor(unsafe {
                        libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC)
                    });
                    assert_eq!(sys::read(file, &mut buffer), Ok(8));
                    assert_eq!(buffer, [0; 8]);
                    sys::close(file).unwrap();
                }
            });
        }
        for number in 0..150 {
            let (mut one, mut two) = pair(listener, port, number);
            scope.spawn(move || {
                two.pong(5, 30);
                assert_eq!(two.recv_with(10, 0), Ok(0));
                sys::close(two.fd).unwrap();
            });
            one.ping(5, 30);
            sys::close(one.fd).unwrap();
        }
    });
    say!("150 streams among pipes and files");
}

/// One stream is closed while others work; nobody is disturbed.
fn close_beside_traffic(_: &mut Case) {
    let mut all = pairs(6);
    let (one, mut two) = all.pop().unwrap();
    std::thread::scope(|scope| {
        for (mut one, mut two) in all {
            scope.spawn(move || two.pong(1500, 64));
            scope.spawn(move || one.ping(1500, 64));
        }
        sys::close(one.fd).unwrap();
        say!("end: {}", show(two.recv_with(10, 0)));
        sys::close(two.fd).unwrap();
    });
    say!("the others worked");
}

fn threads_against_puppet(case: &mut Case) {
    let links = case.links(6);
    let puppet = case.puppet();
    let streams: Vec<Stream> = links.iter().map(|link| link.stream).collect();
    (0..6).for_each(|number| puppet.start(&format!("{number} mirror 200000")));
    std::thread::scope(|scope| {
        for mut stream in streams {
            scope.spawn(move || {
                let mut sender = stream;
                std::thread::scope(|inner| {
                    inner.spawn(move || assert_eq!(sender.send_all(200_000, 999), (200_000, None)));
                    assert_eq!(told(stream.recv_all(200_000, 1111)), "200000");
                });
            });
        }
    });
    (0..6).for_each(|number| say!("{number}: {}", puppet.finish()));
}
