//! Options and ioctls: set while a stream is on its way, and before there is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control;
mod early;
mod kept;
mod signals;

use std::time::{Duration, Instant};

use convoy_tests::kit::{main as run, sys};

fn main() {
    run(&[
        ("kept_by_the_kernel", kept::kept_by_the_kernel),
        ("owners_and_queues", kept::owners_and_queues),
        ("flags_without_meaning", kept::flags_without_meaning),
        ("peek_and_truncate", kept::peek_and_truncate),
        ("linger", kept::linger),
        ("little_send_room", kept::little_send_room),
        ("pacing", kept::pacing),
        ("corked_before_the_channel", kept::corked_before_the_channel),
        ("corked_by_whom", kept::corked_by_whom),
        ("time_stamps", control::time_stamps),
        ("in_queue", control::in_queue),
        ("peek_offset", control::peek_offset),
        ("zero_copy_receive", control::zero_copy_receive),
        ("zero_copy_send", control::zero_copy_send),
        ("inherited", early::inherited),
        ("set_before_connect", early::set_before_connect),
        ("fast_open", early::fast_open),
        ("deferred_accept", early::deferred_accept),
        ("signed", early::signed),
        ("signal_driven", signals::signal_driven),
        ("signal_driven_by_ioctl", signals::signal_driven_by_ioctl),
        ("signal_driven_early", signals::signal_driven_early),
        ("urgent_mark", signals::urgent_mark),
        ("urgent_inline", signals::urgent_inline),
    ]);
}

/// Waits until something is so; false when it is not after a long time.
fn until(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Waits for so many bytes to read, without a peek.
fn await_count(fd: i32, count: usize) {
    assert!(until(|| sys::ioctl_int(fd, libc::FIONREAD).unwrap() >= count), "{count} bytes do not come");
}
