//! Waiting: poll, select and epoll in all their modes. Every case runs in all variants, natively and preloaded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod readiness {
    convoy_tests::cases!(
        "readiness",
        convoy_tests::Check::new,
        [
            poll_states,
            poll_time_limits,
            poll_wakes,
            poll_mixed,
            poll_same_twice,
            poll_negative_and_closed,
            poll_many,
            poll_listener,
            ppoll_signals,
            poll_threads,
            select_states,
            select_time_limits,
            select_mixed,
            select_large_numbers,
            pselect_signals,
            poll_loop_traffic,
            select_loop_traffic,
        ]
    );
}

mod epoll {
    convoy_tests::cases!(
        "epoll",
        convoy_tests::Check::new,
        [
            level,
            level_states,
            edge,
            edge_partial_reads,
            edge_writable,
            edge_states,
            oneshot,
            oneshot_edge,
            exclusive,
            modify,
            modify_rearms_edge,
            delete,
            control_errors,
            data_kept,
            added_late,
            added_before_connect,
            close_without_delete,
            close_one_copy,
            number_reused,
            time_limits,
            little_room,
            fair_with_little_room,
        ]
    );
}

mod epoll_groups {
    convoy_tests::cases!(
        "epoll_groups",
        convoy_tests::Check::new,
        [
            mixed_kinds,
            sleep_beside_unread_bytes,
            several_epolls,
            nested,
            nested_edge,
            epoll_in_poll,
            epoll_in_select,
            threads_in_one_epoll,
            threads_oneshot,
            control_while_waiting,
            closed_while_waiting,
            signal_while_waiting,
            wake_by_event_counter,
            listener_and_streams,
            busy_streams_and_listener,
            many_level,
            many_edge,
            echo_loop,
            copies_of_the_epoll,
            fork_with_an_epoll,
        ]
    );
}
