//! exec and spawn, with and without the stream.

use std::process::Command;

use convoy_tests::kit::stream::Stream;
use convoy_tests::kit::{Case, Link, show, sys};
use convoy_tests::say;

use crate::{catch_up, check};

/// What this program does after an exec: takes up the stream where the image before has left it.
pub(crate) fn go_on(words: &[String]) {
    let numbers: Vec<u64> = words.iter().map(|word| word.parse().unwrap()).collect();
    let mut stream = Stream::new(i32::try_from(numbers[0]).unwrap(), numbers[1], numbers[2] == 1);
    stream.out.position = numbers[3];
    stream.inn.position = numbers[4];
    let unread = usize::try_from(numbers[5]).unwrap();
    assert_eq!(stream.recv_all(unread, 40), (unread, None));
    stream.ping(20, 100);
    assert_eq!(stream.send_all(50_000, 5000), (50_000, None));
    assert_eq!(stream.recv_all(50_000, 5000), (50_000, None));
}

fn words_for(link: &Link, connects: bool, unread: u64) -> Vec<String> {
    let (fd, positions) =
        (link.fd.unsigned_abs().into(), (link.stream.out.position, link.stream.inn.position));
    let numbers = [fd, link.number, u64::from(connects), positions.0, positions.1, unread];
    numbers.iter().map(u64::to_string).collect()
}

fn exec_self(words: &[String], preloaded: bool) -> i32 {
    let mut arguments = vec!["processes", "go-on"];
    arguments.extend(words.iter().map(String::as_str));
    sys::exec("/proc/self/exe", &arguments, preloaded);
    102
}

fn inherit(fd: i32) {
    sys::fcntl(fd, libc::F_SETFD, 0).unwrap();
}

pub(crate) fn exec_itself(case: &mut Case, preloaded: bool) {
    let connects = case.connects();
    let mut link = case.link();
    link.ask("send 100");
    link.await_bytes(100);
    assert_eq!(link.recv_with(40, 0), Ok(40));
    assert_eq!(link.recv_all(60, 60), (60, None));
    inherit(link.fd);
    let words = words_for(&link, connects, 0);
    let pid = sys::fork(|| exec_self(&words, preloaded));
    link.ask("pong 20 100");
    say!("arrived: {}", link.ask("recv 50000"));
    say!("sent: {}", link.ask("send 50000"));
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 52_000, 52_000);
    check(&mut link, "parent");
}

/// The last holder of the stream becomes another image, with bytes unread and unsent.
pub(crate) fn exec_without_fork(case: &mut Case) {
    for preloaded in [true, false] {
        let connects = case.connects();
        let mut link = case.link();
        inherit(link.fd);
        let (out, inn) = sys::pipe();
        let number = link.number;
        let pid = sys::fork(|| {
            // The stream's bytes from before the exec are read by the image after it.
            link.stream.ping(20, 10);
            assert_eq!(sys::read(out, &mut [0]), Ok(1));
            link.stream.await_bytes(100);
            let words = words_for(&link, connects, 100);
            exec_self(&words, preloaded)
        });
        sys::close(link.fd).unwrap();
        link.ask("pong 20 10");
        link.ask("send 100");
        link.start("pong 20 100");
        sys::write(inn, b"x").unwrap();
        // The puppet only answers; the pings come from the image after the exec.
        say!("{number}: pings: {}", link.finish());
        say!("arrived: {}", link.ask("recv 50000"));
        say!("sent: {}", link.ask("send 50000"));
        say!("child: {}, end: {}", sys::wait(pid), link.ask("drain"));
    }
}

pub(crate) fn exec_failed(case: &mut Case) {
    let mut link = case.link();
    for _ in 0..3 {
        say!("exec: {}", sys::exec("/does/not/exist", &["nothing"], true));
        check(&mut link, "afterwards");
    }
    let pid = sys::fork(|| {
        sys::exec("/etc/passwd", &["nothing"], true);
        link.stream.ping(3, 10);
        0
    });
    link.ask("pong 3 10");
    say!("child: {}", sys::wait(pid));
    catch_up(&mut link, 30, 30);
    check(&mut link, "parent");
}

/// What inetd does: the connection becomes standard input and output of a program that knows nothing of it.
pub(crate) fn exec_cat(case: &mut Case, preloaded: bool) {
    let link = case.link();
    let pid = sys::fork(|| {
        sys::dup2(link.fd, 0).unwrap();
        sys::dup2(link.fd, 1).unwrap();
        sys::close(link.fd).unwrap();
        sys::exec("/bin/cat", &["cat"], preloaded);
        102
    });
    sys::close(link.fd).unwrap();
    for size in [10, 1000, 100_000] {
        // cat sends back what it gets: the bytes of the puppet's own direction.
        say!("{size}: sent {}", link.ask(&format!("send {size}")));
        say!("back: {}", link.ask(&format!("count {size}")));
    }
    link.ask("shutdown 1");
    say!("child: {}, end: {}", sys::wait(pid), link.ask("drain"));
}

/// The same through posix_spawn, as `Command` does it.
pub(crate) fn spawned_cat(case: &mut Case) {
    use std::os::fd::{BorrowedFd, OwnedFd};
    let link = case.link();
    // SAFETY: the descriptor is open for the length of this call.
    let copy = || unsafe { BorrowedFd::borrow_raw(link.fd) }.try_clone_to_owned().unwrap();
    let (one, two): (OwnedFd, OwnedFd) = (copy(), copy());
    let mut child = Command::new("cat").stdin(one).stdout(two).spawn().unwrap();
    sys::close(link.fd).unwrap();
    for size in [10, 1000, 50_000] {
        say!("{size}: sent {}", link.ask(&format!("send {size}")));
        say!("back: {}", link.ask(&format!("count {size}")));
    }
    link.ask("shutdown 1");
    say!("child: {}", child.wait().unwrap());
    say!("end: {}", link.ask("drain"));
}

pub(crate) fn system_and_popen(case: &mut Case) {
    let mut link = case.link();
    for round in 0..5 {
        // SAFETY: a valid command.
        say!("{round}: {}", unsafe { libc::system(c"exit 3".as_ptr()) } >> 8);
        check(&mut link, "after system");
        // SAFETY: a valid command and mode.
        let file = unsafe { libc::popen(c"echo hello".as_ptr(), c"r".as_ptr()) };
        let mut buffer = [0_u8; 16];
        // SAFETY: an open file and a writable buffer.
        let count = unsafe { libc::fread(buffer.as_mut_ptr().cast(), 1, 16, file) };
        // SAFETY: an open file, which is not used afterwards.
        say!("{count} bytes, {}", unsafe { libc::pclose(file) });
        check(&mut link, "after popen");
        let output = Command::new("true").output().unwrap();
        say!("{}", output.status);
        check(&mut link, "after a spawn");
    }
}

/// A child image that does not get the stream changes nothing for it.
pub(crate) fn close_on_exec(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    let pid = sys::fork(|| {
        sys::dup2(out, 0).unwrap();
        sys::dup2(2, 1).unwrap();
        sys::exec("/bin/cat", &["cat"], true);
        102
    });
    check(&mut link, "while it runs");
    link.ask("shutdown 1");
    say!("end: {}", show(link.recv_with(10, 0)));
    link.start("drain");
    say!("close: {}, end at once: {}", show(sys::close(link.fd)), link.finish());
    sys::close(inn).unwrap();
    say!("child: {}", sys::wait(pid));
}
