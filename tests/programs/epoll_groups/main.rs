//! epoll with other descriptors, several epolls, nested ones, and several threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod loops;
mod others;

use std::sync::atomic::{AtomicI32, Ordering};

use convoy_tests::kit::epoll::ET;
use convoy_tests::kit::{Link, main as run};

fn main() {
    run(&[
        ("mixed_kinds", others::mixed_kinds),
        ("sleep_beside_unread_bytes", others::sleep_beside_unread_bytes),
        ("older_kernel", others::older_kernel),
        ("sandbox", others::sandbox),
        ("several_epolls", others::several_epolls),
        ("nested", others::nested),
        ("nested_edge", others::nested_edge),
        ("nested_under_a_sleeper", others::nested_under_a_sleeper),
        ("epoll_in_poll", others::epoll_in_poll),
        ("epoll_in_select", others::epoll_in_select),
        ("threads_in_one_epoll", loops::threads_in_one_epoll),
        ("threads_oneshot", loops::threads_oneshot),
        ("control_while_waiting", loops::control_while_waiting),
        ("closed_while_waiting", loops::closed_while_waiting),
        ("signal_while_waiting", loops::signal_while_waiting),
        ("masks_while_waiting", loops::masks_while_waiting),
        ("wake_by_event_counter", others::wake_by_event_counter),
        ("listener_and_streams", others::listener_and_streams),
        ("busy_streams_and_listener", others::busy_streams_and_listener),
        ("many_level", |case| loops::many(case, 0)),
        ("many_edge", |case| loops::many(case, ET)),
        ("echo_loop", loops::echo_loop),
        ("copies_of_the_epoll", others::copies_of_the_epoll),
        ("fork_with_an_epoll", others::fork_with_an_epoll),
    ]);
}

pub(crate) fn arrive(link: &mut Link, count: usize) {
    link.ask(&format!("send {count}"));
    link.await_bytes(count);
}

pub(crate) static SIGNALS: AtomicI32 = AtomicI32::new(0);

pub(crate) extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}
