//! Only one end has the library, in both roles: everything must be as if nobody had it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, Mode};

/// The program under test with a plain peer, and a plain program with a peer under Convoy; as client and as server.
fn one_sided(program: &str, case: &str) -> Check {
    Check::new(program, case)
        .variants(&["process-client-warm", "process-server-cold"])
        .modes(&[Mode::SubjectOnly, Mode::PeerOnly])
}

mod calls {
    convoy_tests::cases!(
        "calls",
        super::one_sided,
        [
            read_write,
            recv_send,
            readv_writev,
            sendto_recvfrom,
            sendmsg_recvmsg,
            sendmmsg_recvmmsg,
            pwritev2_preadv2,
            positioned,
            sendfile_to_stream,
            splice_both_ways,
            calls_mixed,
            short_reads,
            gathered_reads,
            zero_lengths,
            bad_memory,
            bad_descriptors,
            wrong_kinds,
            own_descriptors,
            raw_syscalls
        ]
    );
}

mod flags {
    convoy_tests::cases!(
        "flags",
        super::one_sided,
        [
            peek,
            peek_then_mixed,
            waitall,
            waitall_cut_short,
            dontwait,
            truncate,
            more,
            out_of_band,
            broken_pipe,
            broken_pipe_signal,
            nonblock_toggled,
            nonblock_by_ioctl,
            receive_time_limit,
            receive_time_limits_of_threads,
            send_time_limit,
            readable_count,
            unsent_count,
            low_water_mark,
            interrupted,
            restarted,
            handler_sends,
            errno_untouched
        ]
    );
}

mod closing {
    convoy_tests::cases!(
        "closing",
        super::one_sided,
        [
            shut_writing,
            shut_writing_with_data,
            shut_by_peer,
            shut_reading,
            shut_both,
            shut_wakes_reader,
            shut_twice,
            close_plain,
            close_with_data,
            close_with_unread,
            closed_by_peer_with_unread,
            write_after_peer_closed,
            reset_by_peer,
            reset_by_us,
            socket_error_option,
            end_is_repeated,
            number_reused,
            closed_in_other_ways,
            ranges_closed,
            stdio_on_a_stream,
            many_short_lives,
            end_without_close
        ]
    );
}

mod connecting {
    convoy_tests::cases!(
        "connecting",
        super::one_sided,
        [
            addresses_v4,
            addresses_v6,
            addresses_mapped,
            bytes_left,
            traffic_v6,
            traffic_mapped,
            mapped_to_plain,
            address_cut_short,
            accept_forms,
            nonblocking_connect,
            refused,
            refused_nonblocking,
            connect_twice,
            connect_to_itself,
            bound_before_connect,
            other_loopback_address,
            nonblocking_accept,
            listener_shut,
            data_before_accept,
            closed_before_accept,
            both_ends_one_thread,
            options,
            options_at_work,
            datagrams
        ]
    );
}

mod pressure {
    convoy_tests::cases!(
        "pressure",
        super::one_sided,
        [
            filled_and_drained,
            filled_by_peer,
            writable_again,
            partial_writes,
            huge_calls,
            slow_reader,
            tiny_reads,
            tiny_writes,
            both_ways,
            both_ways_threads,
            blocked_writer_and_end,
            blocked_writer_and_reset,
            little_room,
            one_slow_among_many,
            sizes_at_borders
        ]
    );
}

mod epoll {
    convoy_tests::cases!(
        "epoll",
        super::one_sided,
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
            fair_with_little_room
        ]
    );
}

mod copies {
    convoy_tests::cases!(
        "copies",
        super::one_sided,
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
            pass_in_flight
        ]
    );
}
