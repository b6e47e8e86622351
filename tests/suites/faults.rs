//! Peers that die at any moment, and numbers of connections that only servers see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, PROCESS_VARIANTS, WARMTHS};

/// The peer is a process that can be killed.
fn with_peer_process(program: &str, case: &str) -> Check {
    // The library may say what it has seen.
    let check = Check::new(program, case).variants(PROCESS_VARIANTS).noisy();
    // On connections as short as these, the processes that could tell may have moved nothing.
    if case == "killed_at_any_moment" { check.plain() } else { check }
}

/// Server and clients are arranged by the program itself.
fn alone(program: &str, case: &str) -> Check {
    Check::new(program, case).variants(&WARMTHS[..1]).noisy()
}

mod faults {
    convoy_tests::cases!(
        "faults",
        super::with_peer_process,
        [
            killed_while_sending,
            killed_while_receiving,
            killed_while_idle,
            killed_both_ways,
            killed_after_last_byte,
            killed_with_unread,
            killed_seen_by_poll,
            killed_seen_by_epoll,
            killed_under_pressure,
            killed_at_any_moment,
            killed_among_others,
            killed_child_with_a_copy,
            killed_holder_of_the_only_copy,
            survivor_goes_on,
            stopped_and_continued,
            terminated,
            we_are_killed,
            registry_taken_away,
        ]
    );
}

mod many {
    convoy_tests::cases!("many", super::alone, [ten_thousand, waves,]);
}
