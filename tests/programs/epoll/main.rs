//! epoll: what it reports for streams, in all its modes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod entries;
mod modes;

use convoy_tests::kit::{Link, main as run};

fn main() {
    run(&[
        ("level", modes::level),
        ("level_states", modes::level_states),
        ("edge", modes::edge),
        ("edge_partial_reads", modes::edge_partial_reads),
        ("edge_writable", modes::edge_writable),
        ("edge_states", modes::edge_states),
        ("oneshot", modes::oneshot),
        ("oneshot_edge", modes::oneshot_edge),
        ("exclusive", modes::exclusive),
        ("modify", entries::modify),
        ("modify_rearms_edge", entries::modify_rearms_edge),
        ("delete", entries::delete),
        ("control_errors", entries::control_errors),
        ("data_kept", entries::data_kept),
        ("added_late", entries::added_late),
        ("added_before_connect", entries::added_before_connect),
        ("close_without_delete", entries::close_without_delete),
        ("close_one_copy", entries::close_one_copy),
        ("number_reused", entries::number_reused),
        ("time_limits", entries::time_limits),
        ("little_room", entries::little_room),
        ("fair_with_little_room", entries::fair_with_little_room),
    ]);
}

/// Bytes have come, and a look would find them.
pub(crate) fn arrive(link: &mut Link, count: usize) {
    link.ask(&format!("send {count}"));
    link.await_bytes(count);
}
