//! Lengths, memory and descriptors at the edge of what is allowed.

use convoy_tests::kit::stream::told;
use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::exchange;

/// Bytes that came in several pieces are read as if they had come in one, and the other way round.
pub(crate) fn short_reads(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 1000 10");
    link.await_bytes(1000);
    for wanted in [1, 3, 15, 100, 500, 1000] {
        say!("read {wanted}: {}", show(link.get(wanted, sys::read)));
    }
    link.ask("send 5000");
    link.await_bytes(5000);
    for wanted in [1, 7, 1000, 3000, 5000] {
        say!("read {wanted}: {}", show(link.get(wanted, sys::read)));
    }
    link.ask("send 30 3");
    link.await_bytes(30);
    let results: Vec<String> = (0..30).map(|_| show(link.get(1, sys::read))).collect();
    say!("one by one: {}", results.join(" "));
    link.ask("send 20000 1");
    say!("in small pieces: {}", told(link.recv_all(20000, 333)));
}

/// Several iovecs are filled one after the other, across the borders of what was sent.
pub(crate) fn gathered_reads(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 100 7");
    link.await_bytes(100);
    let (mut one, mut two, mut three) = ([0; 5], [0; 50], [0; 200]);
    let result = sys::readv(link.fd, &mut [&mut one, &mut two, &mut three]);
    say!("readv: {}", show(result));
    let all: Vec<u8> = one.iter().chain(&two).chain(&three[..45]).copied().collect();
    link.stream.inn.accept(&all);
    say!("behind the data: {:?}", &three[45..50]);
    link.ask("send 60 60");
    link.await_bytes(60);
    let mut many: Vec<[u8; 1]> = vec![[0]; 1024];
    let mut views: Vec<&mut [u8]> = many.iter_mut().map(|part| part.as_mut_slice()).collect();
    say!("1024 parts: {}", show(sys::readv(link.fd, &mut views)));
    let all: Vec<u8> = many.iter().take(60).map(|part| part[0]).collect();
    link.stream.inn.accept(&all);
    let parts = vec![&[][..]; 1025];
    say!("1025 parts: {}", show(sys::writev(link.fd, &parts)));
    let bytes = link.stream.out.peek(1024);
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    link.start("recv 1024");
    say!("1024 parts out: {}, arrived {}", show(sys::writev(link.fd, &parts)), link.finish());
}

pub(crate) fn zero_lengths(case: &mut Case) {
    let mut link = case.link();
    let fd = link.fd;
    say!("write: {}", show(sys::write(fd, &[])));
    say!("send: {}", show(sys::send(fd, &[], 0)));
    say!("writev of none: {}", show(sys::writev(fd, &[])));
    say!("writev of empty: {}", show(sys::writev(fd, &[&[], &[]])));
    say!("sendmsg of none: {}", show(sys::sendmsg(fd, &[], 0)));
    say!("read, nothing there: {}", show(sys::read(fd, &mut [])));
    say!("readv of none: {}", show(sys::readv(fd, &mut [])));
    say!("recv at once: {}", show(sys::recv(fd, &mut [], libc::MSG_DONTWAIT)));
    link.ask("send 5");
    link.await_bytes(5);
    say!("read: {}", show(sys::read(fd, &mut [])));
    say!("recv: {}", show(sys::recv(fd, &mut [], 0)));
    say!("recvmsg of none: {:?}", sys::recvmsg(fd, &mut [], 0));
    say!("the bytes: {}", show(link.recv_with(10, 0)));
    // recv waits for a byte that it does not take; read does not.
    let sleeper = std::thread::spawn(move || show(sys::recv(fd, &mut [], 0)));
    say!("read at once: {}", show(sys::read(fd, &mut [])));
    link.ask("send 5");
    say!("recv that waits: {}", sleeper.join().unwrap());
    say!("the bytes: {}", show(link.recv_with(10, 0)));
    exchange(&mut link, &[3], sys::write, sys::read);
    link.ask("reset");
    sys::poll_one(fd, 0, -1);
    say!("after a reset: {}", show(sys::recv(fd, &mut [], 0)));
    say!("again: {}", show(sys::recv(fd, &mut [], 0)));
}

pub(crate) fn bad_memory(case: &mut Case) {
    let mut link = case.link();
    let (fd, bad) = (link.fd, sys::nowhere());
    link.ask("send 5");
    link.await_bytes(5);
    say!(
        "write: {}",
        // SAFETY: the kernel's and Convoy's part is to notice the address.
        show(sys::outcome(unsafe { libc::write(fd, bad, 10) }))
    );
    say!(
        "send: {}",
        // SAFETY: as above.
        show(sys::outcome(unsafe { libc::send(fd, bad, 10, 0) }))
    );
    say!(
        "writev without parts: {}",
        // SAFETY: as above.
        show(sys::outcome(unsafe { libc::writev(fd, bad.cast(), 2) }))
    );
    say!(
        "sendmsg: {}",
        // SAFETY: as above.
        show(sys::outcome(unsafe { libc::sendmsg(fd, bad.cast(), 0) }))
    );
    say!(
        "recvmsg: {}",
        // SAFETY: as above.
        show(sys::outcome(unsafe { libc::recvmsg(fd, bad.cast(), 0) }))
    );
    say!(
        "too many parts: {}",
        // SAFETY: as above.
        show(sys::outcome(unsafe { libc::writev(fd, bad.cast(), -1) }))
    );
    // SAFETY: as above.
    say!("read: {}", show(sys::outcome(unsafe { libc::read(fd, bad, 10) })));
    say!("the bytes: {}", show(link.recv_with(10, 0)));
    // recv waits for a byte that it does not take; read does not.
    let sleeper = std::thread::spawn(move || show(sys::recv(fd, &mut [], 0)));
    say!("read at once: {}", show(sys::read(fd, &mut [])));
    link.ask("send 5");
    say!("recv that waits: {}", sleeper.join().unwrap());
    say!("the bytes: {}", show(link.recv_with(10, 0)));
    exchange(&mut link, &[3], sys::write, sys::read);
    link.ask("reset");
    sys::poll_one(fd, 0, -1);
    say!("after a reset: {}", show(sys::recv(fd, &mut [], 0)));
    say!("again: {}", show(sys::recv(fd, &mut [], 0)));
}

pub(crate) fn bad_descriptors(case: &mut Case) {
    let link = case.link();
    let mut buffer = [0_u8; 8];
    for fd in [-1, 1_000_000, i32::MAX, i32::MIN] {
        let all = [
            sys::read(fd, &mut buffer),
            sys::write(fd, &buffer),
            sys::recv(fd, &mut buffer, 0),
            sys::send(fd, &buffer, 0),
            sys::writev(fd, &[&buffer]),
            sys::sendmsg(fd, &[&buffer], 0),
            sys::close(fd),
            sys::dup(fd),
            sys::dup2(fd, 500),
            sys::shutdown(fd, libc::SHUT_WR),
            sys::fcntl(fd, libc::F_GETFL, 0),
            sys::ioctl_int(fd, libc::FIONREAD),
            sys::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_ERROR),
        ];
        say!("{fd}: {}", all.map(show).join(" "));
        say!("poll {fd}: {}", sys::events(sys::poll_one(fd, libc::POLLIN, 0)));
    }
    say!("closed: {} {}", show(sys::close(link.fd)), show(sys::close(link.fd)));
    say!("read: {}", show(sys::read(link.fd, &mut buffer)));
    say!("write: {}", show(sys::write(link.fd, &buffer)));
    say!("the other end: {}", link.ask("drain"));
}

/// Socket calls on what is no connected socket, and file calls on files, in a process with live streams.
pub(crate) fn wrong_kinds(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    say!("send to a pipe: {}", show(sys::send(inn, b"x", 0)));
    say!("recv from a pipe: {}", show(sys::recv(out, &mut [0], 0)));
    say!("shutdown of a pipe: {}", show(sys::shutdown(inn, libc::SHUT_WR)));
    say!("pipe: {} {}", show(sys::write(inn, b"hello")), show(sys::read(out, &mut [0; 10])));
    let fresh = convoy_tests::kit::net::socket(convoy_tests::kit::net::Family::V4, 0);
    say!("read unconnected: {}", show(sys::read(fresh, &mut [0; 4])));
    say!("send unconnected: {}", show(sys::send(fresh, b"x", libc::MSG_NOSIGNAL)));
    say!("shutdown unconnected: {}", show(sys::shutdown(fresh, libc::SHUT_RDWR)));
    let mut pair = [0; 2];
    // SAFETY: room for two descriptors.
    sys::status(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) }).unwrap();
    say!("socket pair: {} {}", show(sys::send(pair[0], b"abc", 0)), show(sys::recv(pair[1], &mut [0; 9], 0)));
    exchange(&mut link, &[64], sys::write, sys::read);
}
