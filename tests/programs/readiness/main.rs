//! poll, ppoll, select and pselect on streams, alone and beside descriptors of other kinds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod polls;
mod selects;

use std::sync::atomic::{AtomicI32, Ordering};

use convoy_tests::kit::{Case, main as run, sys};
use convoy_tests::say;

fn main() {
    run(&[
        ("poll_states", polls::poll_states),
        ("poll_time_limits", polls::poll_time_limits),
        ("poll_wakes", polls::poll_wakes),
        ("poll_mixed", polls::poll_mixed),
        ("poll_same_twice", polls::poll_same_twice),
        ("poll_negative_and_closed", polls::poll_negative_and_closed),
        ("poll_many", polls::poll_many),
        ("poll_listener", polls::poll_listener),
        ("ppoll_signals", polls::ppoll_signals),
        ("poll_threads", polls::poll_threads),
        ("select_states", selects::select_states),
        ("select_time_limits", selects::select_time_limits),
        ("select_mixed", selects::select_mixed),
        ("select_large_numbers", selects::select_large_numbers),
        ("pselect_signals", selects::pselect_signals),
        ("poll_loop_traffic", polls::poll_loop_traffic),
        ("select_loop_traffic", selects::select_loop_traffic),
    ]);
}

pub(crate) static SIGNALS: AtomicI32 = AtomicI32::new(0);

pub(crate) extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Eight streams, each of which the puppet answers in turn, served by one loop.
pub(crate) fn serve(case: &mut Case, mut wait: impl FnMut(&[i32]) -> Vec<i32>) {
    let mut links = case.links(8);
    let fds: Vec<i32> = links.iter().map(|link| link.fd).collect();
    fds.iter().for_each(|&fd| sys::set_nonblocking(fd, true));
    let puppet = case.puppet();
    for round in 0..100_usize {
        for number in 0..8 {
            puppet.start(&format!("{number} send {} {}", 50 + round, 17));
        }
        let mut missing = [50 + round; 8];
        while missing.iter().any(|&count| count > 0) {
            for fd in wait(&fds) {
                let at = fds.iter().position(|&known| known == fd).unwrap();
                let count = links[at].recv_with(missing[at].max(1), 0).unwrap();
                missing[at] -= count;
            }
        }
        (0..8).for_each(|_| assert_eq!(puppet.finish(), (50 + round).to_string()));
    }
    say!("served");
}
