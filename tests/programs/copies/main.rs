//! Copies of descriptors: dup in all its forms, and descriptors that travel in messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dups;
mod passing;

use convoy_tests::kit::{Link, main as run, sys};
use convoy_tests::say;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "worker") {
        return passing::worker(&words[2..]);
    }
    run(&[
        ("dup", |case| dups::copied(case, |fd| sys::dup(fd).unwrap())),
        ("dup2", |case| dups::copied(case, |fd| sys::dup2(fd, 300).unwrap())),
        ("dup3", |case| dups::copied(case, dups::dup3)),
        ("fcntl_dup", |case| dups::copied(case, |fd| sys::fcntl(fd, libc::F_DUPFD, 200).unwrap())),
        ("fcntl_dup_cloexec", |case| {
            dups::copied(case, |fd| sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, 250).unwrap())
        }),
        ("dup_errors", dups::dup_errors),
        ("dup_onto_itself", dups::dup_onto_itself),
        ("dup_onto_a_stream", dups::dup_onto_a_stream),
        ("dup_swap", dups::dup_swap),
        ("dup_high", dups::dup_high),
        ("dup_over_a_range", dups::dup_over_a_range),
        ("dup_as_standard_output", dups::dup_as_standard_output),
        ("copies_share_state", dups::copies_share_state),
        ("pass_before_traffic", |case| passing::pass(case, false)),
        ("pass_after_traffic", |case| passing::pass(case, true)),
        ("pass_and_keep", passing::pass_and_keep),
        ("pass_to_itself", passing::pass_to_itself),
        ("pass_there_and_back", passing::pass_there_and_back),
        ("pass_with_unread_bytes", passing::pass_with_unread_bytes),
        ("pass_to_a_worker", |case| passing::pass_to_a_worker(case, true)),
        ("pass_to_a_plain_worker", |case| passing::pass_to_a_worker(case, false)),
        ("pass_in_flight", passing::pass_in_flight),
    ]);
}

pub(crate) fn number(value: usize) -> i32 {
    i32::try_from(value).unwrap()
}

pub(crate) fn check(link: &mut Link, what: &str) {
    link.start("pong 5 100");
    link.ping(5, 100);
    say!("{what}: {}", link.finish());
}
