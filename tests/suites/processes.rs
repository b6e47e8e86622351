//! Threads, fork, exec, copies of descriptors: everything with which streams change hands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, PROCESS_VARIANTS, WARMTHS};

/// The peer is always another process: forks of this one have nothing to do with it.
fn with_peer_process(program: &str, case: &str) -> Check {
    let check = Check::new(program, case).variants(PROCESS_VARIANTS);
    // Its counters cannot be written where their path leads nowhere.
    if case == "new_root" { check.variants(&WARMTHS[..1]).noisy() } else { check }
}

/// Passing before there is anything to pass leaves the stream where it is.
fn with_copies(program: &str, case: &str) -> Check {
    let check = with_peer_process(program, case);
    if case == "pass_before_traffic" { check.plain() } else { check }
}

/// Most of these cases have both ends inside the program.
fn with_threads(program: &str, case: &str) -> Check {
    let check = Check::new(program, case).variants(&WARMTHS[..1]);
    // Where bytes go one way only, a sender that is faster than the receiver may well stay on the kernel.
    if ["several_receivers", "several_senders"].contains(&case) { check.plain() } else { check }
}

mod threads {
    convoy_tests::cases!(
        "threads",
        super::with_threads,
        [
            echo_pairs,
            echo_pairs_poll,
            thread_for_each_connection,
            full_duplex,
            several_senders,
            several_pollers,
            several_receivers,
            handed_from_thread_to_thread,
            short_threads,
            accept_in_threads,
            connect_in_threads,
            open_and_close_everywhere,
            close_beside_traffic,
            threads_against_puppet,
        ]
    );
}

mod processes {
    convoy_tests::cases!(
        "processes",
        super::with_peer_process,
        [
            child_serves,
            children_serve_in_turn,
            prefork,
            fork_before_connect,
            alternate,
            child_writes_parent_reads,
            child_outlives_parent,
            child_only_exits,
            child_is_killed,
            child_closes_its_copy,
            parent_closes_its_copy,
            child_shuts,
            fork_with_unread_bytes,
            fork_under_pressure,
            fork_among_threads,
            many_children_serve,
            many_forks,
            grandchildren,
            daemon,
            other_user,
            other_mounts,
            other_descriptors_and_files,
            other_network,
            other_process_numbers,
            everything_closed,
            confined_by_prctl,
            confined_by_seccomp,
            confined_from_the_start,
            confined_child_closes,
            new_root,
            no_room_for_files,
            connected_by_a_parent,
            short_lived_peers,
            exec_itself,
            exec_itself_plain,
            exec_without_fork,
            exec_failed,
            exec_cat,
            exec_cat_plain,
            spawned_cat,
            system_and_popen,
            close_on_exec,
        ]
    );
}

/// A child does not count again what its parent has seen, also when the parent never joined in.
#[test]
fn children_count_from_zero() {
    let task = convoy_tests::Task::new(convoy_tests::program!("processes"));
    let task = task.arg("connected_by_a_parent").arg("process-server-warm");
    let run = task.mode(convoy_tests::Mode::Preloaded).run();
    assert_eq!(run.counters.get("connections_seen"), 2, "{}", run.report());
}

mod copies {
    convoy_tests::cases!(
        "copies",
        super::with_copies,
        [
            dup,
            dup2,
            dup3,
            fcntl_dup,
            fcntl_dup_cloexec,
            dup_errors,
            dup_onto_itself,
            dup_onto_a_stream,
            dup_swap,
            dup_high,
            dup_over_a_range,
            dup_as_standard_output,
            copies_share_state,
            pass_before_traffic,
            pass_after_traffic,
            pass_and_keep,
            pass_to_itself,
            pass_there_and_back,
            pass_with_unread_bytes,
            pass_to_a_worker,
            pass_to_a_plain_worker,
            pass_in_flight,
        ]
    );
}
