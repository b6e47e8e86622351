//! Threads that share an epoll, and loops that serve many streams.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use convoy_tests::kit::epoll::{ET, Epoll, IN, ONESHOT, OUT};
use convoy_tests::kit::pester::pester;
use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, Errno, show, sys};
use convoy_tests::say;

use crate::{SIGNALS, arrive, count};

/// Several threads take events from one epoll, edge-triggered; no edge is lost, each byte is read once.
pub(crate) fn threads_in_one_epoll(case: &mut Case) {
    let links = case.links(8);
    let puppet = case.puppet();
    let (epoll, done) = (Epoll::new(), AtomicUsize::new(0));
    let streams: Vec<Mutex<Stream>> = links.iter().map(|link| Mutex::new(link.stream)).collect();
    let (stop_out, stop_in) = sys::pipe();
    links
        .iter()
        .enumerate()
        .for_each(|(at, link)| epoll.add(link.fd, IN | ET, at as u64).map(|_| ()).unwrap());
    epoll.add(stop_out, IN, 999).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    for (data, _) in epoll.wait(3, -1).unwrap() {
                        if data == 999 {
                            return;
                        }
                        let mut stream = streams[usize::try_from(data).unwrap()].lock().unwrap();
                        while let Ok(count) = stream.recv_with(100, libc::MSG_DONTWAIT) {
                            done.fetch_add(count, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
        for _ in 0..200 {
            (0..8).for_each(|number| puppet.start(&format!("{number} send 50")));
            (0..8).for_each(|_| assert_eq!(puppet.finish(), "50"));
        }
        while done.load(Ordering::SeqCst) < 80_000 {
            std::thread::yield_now();
        }
        sys::write(stop_in, b"x").unwrap();
    });
    say!("received {}", done.load(Ordering::SeqCst));
}

/// The usual thread pool: one-shot entries, set again after each piece of work.
pub(crate) fn threads_oneshot(case: &mut Case) {
    let links = case.links(6);
    let puppet = case.puppet();
    let (epoll, done) = (Epoll::new(), AtomicUsize::new(0));
    let streams: Vec<Mutex<Stream>> = links.iter().map(|link| Mutex::new(link.stream)).collect();
    let (stop_out, stop_in) = sys::pipe();
    let wanted = IN | ONESHOT;
    links
        .iter()
        .enumerate()
        .for_each(|(at, link)| epoll.add(link.fd, wanted, at as u64).map(|_| ()).unwrap());
    epoll.add(stop_out, IN, 999).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(&(data, _)) = epoll.wait(1, -1).unwrap().first() else {
                        continue;
                    };
                    if data == 999 {
                        return;
                    }
                    let mut stream =
                        streams[usize::try_from(data).unwrap()].try_lock().expect("one thread each");
                    let count = stream.recv_with(40, libc::MSG_DONTWAIT).unwrap();
                    assert_eq!(stream.send_all(count, count), (count, None));
                    let fd = stream.fd;
                    drop(stream);
                    epoll.modify(fd, wanted, data).unwrap();
                    done.fetch_add(count, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..200 {
            (0..6).for_each(|number| puppet.start(&format!("{number} ping 1 30")));
            (0..6).for_each(|_| assert_eq!(puppet.finish(), "done"));
        }
        while done.load(Ordering::SeqCst) < 36_000 {
            std::thread::yield_now();
        }
        sys::write(stop_in, b"x").unwrap();
    });
    say!("served {}", done.load(Ordering::SeqCst));
}

/// Entries that another thread adds or changes reach a thread that sleeps already.
pub(crate) fn control_while_waiting(case: &mut Case) {
    let mut links = case.links(3);
    for link in &mut links {
        arrive(link, 5);
    }
    let epoll = Epoll::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| epoll.look(-1));
        std::thread::yield_now();
        epoll.add(links[0].fd, IN, 1).unwrap();
        say!("added: {}", waiter.join().unwrap());
        links[0].recv_with(5, 0).unwrap();
        let waiter = scope.spawn(|| epoll.look(-1));
        std::thread::yield_now();
        epoll.modify(links[0].fd, OUT, 2).unwrap();
        say!("changed: {}", waiter.join().unwrap());
        epoll.delete(links[0].fd).unwrap();
        let waiter = scope.spawn(|| epoll.look(-1));
        std::thread::yield_now();
        epoll.add(links[1].fd, IN | ET, 3).unwrap();
        say!("added: {}", waiter.join().unwrap());
    });
}

/// A stream that is closed while a thread waits for it is just not reported; others are.
pub(crate) fn closed_while_waiting(case: &mut Case) {
    let links = case.links(2);
    let epoll = Epoll::new();
    links.iter().enumerate().for_each(|(at, link)| epoll.add(link.fd, IN, at as u64).map(|_| ()).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| epoll.look(-1));
        std::thread::yield_now();
        sys::close(links[0].fd).unwrap();
        say!("other end: {}", links[0].ask("drain"));
        links[1].ask("send 5");
        say!("{}", waiter.join().unwrap());
    });
}

/// epoll_wait is never restarted, even with SA_RESTART.
pub(crate) fn signal_while_waiting(case: &mut Case) {
    let link = case.link();
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    for flags in [0, libc::SA_RESTART] {
        sys::on_signal(libc::SIGUSR1, count, flags);
        say!("{}", pester(|| epoll.look(-1)));
    }
}

/// A signal that is blocked but for the time of the sleep ends the sleep, and only then; events come first.
pub(crate) fn masks_while_waiting(case: &mut Case) {
    sys::on_signal(libc::SIGUSR1, count, 0);
    let mut link = case.link();
    sys::block(libc::SIGUSR1);
    let epoll = Epoll::new();
    epoll.add(link.fd, IN, 1).unwrap();
    let wait = |milliseconds: i32| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event, and a valid mask.
        let result = sys::status(unsafe {
            libc::epoll_pwait(epoll.fd, &raw mut event, 1, milliseconds, &sys::mask(&[]))
        });
        format!("{}, signals {}", show(result), SIGNALS.load(Ordering::SeqCst))
    };
    for round in 0..5 {
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGUSR1) };
        say!("{round}: {}, signals {}", epoll.look(5), SIGNALS.load(Ordering::SeqCst));
        say!("epoll_pwait: {}", wait(-1));
        say!("without a signal: {}", wait(5));
        link.ask("send 4");
        link.await_bytes(4);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGUSR1) };
        say!("with an event: {}", wait(-1));
        say!("recv: {}, then: {}", show(link.recv_with(10, 0)), wait(-1));
    }
}

pub(crate) fn many(case: &mut Case, flags: u32) {
    let mut links = case.links(100);
    let epoll = Epoll::new();
    links
        .iter()
        .enumerate()
        .for_each(|(at, link)| epoll.add(link.fd, IN | flags, at as u64).map(|_| ()).unwrap());
    let puppet = case.puppet();
    for round in 0..20_usize {
        for number in (0..100).step_by(1 + round % 7) {
            puppet.start(&format!("{number} send {}", 1 + (number * round) % 90));
        }
        let mut missing: BTreeMap<u64, usize> = (0..100_usize)
            .step_by(1 + round % 7)
            .map(|number| (number as u64, 1 + (number * round) % 90))
            .collect();
        let answers = missing.len();
        while !missing.is_empty() {
            for (data, _) in epoll.wait(16, -1).unwrap() {
                let link = &mut links[usize::try_from(data).unwrap()];
                loop {
                    match link.recv_with(33, libc::MSG_DONTWAIT) {
                        Ok(count) => *missing.get_mut(&data).expect("bytes that are missing") -= count,
                        Err(error) => break assert_eq!(error, Errno(libc::EAGAIN)),
                    }
                    if missing[&data] == 0 {
                        missing.remove(&data);
                        break;
                    }
                }
            }
        }
        (0..answers).for_each(|_| drop(puppet.finish()));
        say!("{round}: all {answers}");
    }
}

/// A server loop: level-triggered, nonblocking, with bursts of pipelined requests.
pub(crate) fn echo_loop(case: &mut Case) {
    let mut links = case.links(10);
    let epoll = Epoll::new();
    links.iter().enumerate().for_each(|(at, link)| epoll.add(link.fd, IN, at as u64).map(|_| ()).unwrap());
    let puppet = case.puppet();
    for (number, link) in links.iter_mut().enumerate() {
        puppet.start(&format!("{number} both {0} {0} 777", 20_000 + number * 1000));
        let mut missing = 20_000 + number * 1000;
        while missing > 0 {
            for (data, events) in epoll.wait(16, -1).unwrap() {
                assert_eq!((data, events), (number as u64, IN));
                let count = link.recv_with(4000, libc::MSG_DONTWAIT).unwrap();
                assert_eq!(link.send_all(count, count), (count, None));
                missing -= count;
            }
        }
        say!("{number}: {}", puppet.finish());
    }
}
