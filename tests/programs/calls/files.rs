//! Streams and files, pipes and positions.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::ptr;

use convoy_tests::kit::pattern::Flow;
use convoy_tests::kit::{Case, show, sys};
use convoy_tests::say;

use crate::exchange;

/// A socket has no positions.
pub(crate) fn positioned(case: &mut Case) {
    let mut link = case.link();
    link.ask("send 10");
    link.await_bytes(10);
    let mut buffer = [0_u8; 10];
    let (fd, memory) = (link.fd, buffer.as_mut_ptr());
    say!(
        "pread: {}",
        // SAFETY: a writable buffer.
        show(sys::outcome(unsafe { libc::pread(fd, memory.cast(), 10, 0) }))
    );
    say!(
        "pwrite: {}",
        // SAFETY: a readable buffer.
        show(sys::outcome(unsafe { libc::pwrite(fd, memory.cast(), 10, 0) }))
    );
    say!(
        "lseek: {}",
        show(sys::outcome(
            // SAFETY: no memory is involved.
            unsafe { libc::lseek(fd, 0, libc::SEEK_SET) } as isize
        ))
    );
    let part = libc::iovec { iov_base: memory.cast(), iov_len: 10 };
    say!(
        "preadv: {}",
        // SAFETY: one writable part.
        show(sys::outcome(unsafe { libc::preadv(fd, &raw const part, 1, 0) }))
    );
    // SAFETY: no memory is involved.
    say!("fsync: {}", show(sys::status(unsafe { libc::fsync(fd) })));
    say!(
        "ftruncate: {}",
        // SAFETY: no memory is involved.
        show(sys::status(unsafe { libc::ftruncate(fd, 0) }))
    );
    say!("still there: {}", show(link.recv_with(10, 0)));
    exchange(&mut link, &[10], sys::write, sys::read);
}

/// A file that holds the next bytes of a direction.
fn file_of(flow: &Flow, count: usize) -> File {
    let name = CString::new("bytes").unwrap();
    // SAFETY: a valid name.
    let fd = sys::descriptor(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) });
    let mut file = File::options().write(true).read(true).open(format!("/proc/self/fd/{fd}")).unwrap();
    sys::close(fd).unwrap();
    file.write_all(&flow.peek(count)).unwrap();
    file
}

pub(crate) fn sendfile_to_stream(case: &mut Case) {
    let mut link = case.link();
    for size in [1, 100, 4096, 100_000] {
        let file = file_of(&link.stream.out, size);
        let mut offset = 0;
        link.start(&format!("recv {size}"));
        let mut sent = 0;
        while sent < size {
            sent += sys::sendfile(link.fd, file.as_raw_fd(), Some(&mut offset), size - sent).unwrap();
        }
        link.stream.out.advance(sent);
        say!("sendfile {size}: {sent}, offset {offset}, arrived {}", link.finish());
        say!(
            "at the end of the file: {}",
            show(sys::sendfile(link.fd, file.as_raw_fd(), Some(&mut offset), 10))
        );
    }
    let file = file_of(&link.stream.out, 3000);
    // SAFETY: no memory is involved.
    sys::outcome(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) } as isize).unwrap();
    link.start("recv 3000");
    let results: Vec<String> =
        (0..3).map(|_| show(sys::sendfile(link.fd, file.as_raw_fd(), None, 1000))).collect();
    link.stream.out.advance(3000);
    say!("with the file's own position: {results:?}, arrived {}", link.finish());
    let (fd, input) = (link.fd, file.as_raw_fd());
    say!("from the stream into a file: {}", show(sys::sendfile(input, fd, None, 10)));
    say!("with a bad descriptor: {}", show(sys::sendfile(fd, 9999, None, 10)));
    exchange(&mut link, &[100], sys::write, sys::read);
}

pub(crate) fn splice_both_ways(case: &mut Case) {
    let mut link = case.link();
    let (out, inn) = sys::pipe();
    for size in [1, 100, 4096, 60_000] {
        assert_eq!(sys::write(inn, &link.stream.out.peek(size)), Ok(size));
        link.start(&format!("recv {size}"));
        let mut sent = 0;
        while sent < size {
            sent += sys::splice(out, link.fd, size - sent, 0).unwrap();
        }
        link.stream.out.advance(sent);
        say!("splice out {size}: {sent}, arrived {}", link.finish());
        link.ask(&format!("send {size}"));
        link.await_bytes(size);
        let mut received = 0;
        while received < size {
            let count = sys::splice(link.fd, inn, size - received, 0).unwrap();
            let mut buffer = vec![0; count];
            assert_eq!(sys::read(out, &mut buffer), Ok(count));
            link.stream.inn.accept(&buffer);
            received += count;
        }
        say!("splice in {size}: {received}");
    }
    sys::set_nonblocking(link.fd, true);
    say!("nothing there: {}", show(sys::splice(link.fd, inn, 10, 0)));
    sys::set_nonblocking(link.fd, false);
    say!("no pipe: {}", show(sys::splice(link.fd, link.fd, 10, 0)));
    exchange(&mut link, &[100], sys::write, sys::read);
    link.ask("shutdown 1");
    link.await_bytes(1);
    say!("splice at the end: {}", show(sys::splice(link.fd, inn, 10, 0)));
}

/// A program that looks for leaks by counting its descriptors finds its own, whatever Convoy opens and closes meanwhile.
pub(crate) fn own_descriptors(case: &mut Case) {
    let (before, mut link) = ([listed(), scanned()], case.link());
    let mut found = BTreeSet::new();
    for _ in 0..500 {
        link.start("recv 10");
        let _ = link.put(10, sys::write);
        link.finish();
        found.extend([listed() - before[0], scanned() - before[1]]);
    }
    exchange(&mut link, &[10, 5000], sys::write, sys::read);
    say!("more than before: {found:?}");
}

fn listed() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

type Entries = *mut *mut libc::dirent;

unsafe extern "C" {
    fn scandir(path: *const c_char, list: *mut Entries, filter: *const c_void, order: *const c_void)
    -> c_int;
}

fn scanned() -> usize {
    let path = CString::new("/proc/self/fd").unwrap();
    let mut list = ptr::null_mut();
    // SAFETY: scandir allocates the list, and every entry in it.
    let count = unsafe { scandir(path.as_ptr(), &mut list, ptr::null(), ptr::null()) };
    for index in 0..count as usize {
        // SAFETY: as above.
        unsafe { libc::free((*list.add(index)).cast()) };
    }
    // SAFETY: as above.
    unsafe { libc::free(list.cast()) };
    count as usize
}
