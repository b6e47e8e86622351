//! The data calls: what each returns, what arrives, how streams begin and end, and what happens under pressure.
//! Every case runs in all variants, natively and preloaded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls {
    convoy_tests::cases!(
        "calls",
        convoy_tests::Check::new,
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
            raw_syscalls,
        ]
    );
}

mod flags {
    convoy_tests::cases!(
        "flags",
        convoy_tests::Check::new,
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
            errno_untouched,
        ]
    );
}

mod closing {
    convoy_tests::cases!(
        "closing",
        convoy_tests::Check::new,
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
            end_without_close,
        ]
    );
}

mod connecting {
    /// Cases about connections that carry nothing, that have nobody to talk to, or that need the kernel.
    const NOTHING_TO_ACCELERATE: &[&str] =
        &["refused", "refused_nonblocking", "listener_shut", "closed_before_accept", "connect_to_itself"];

    fn check(program: &str, case: &str) -> convoy_tests::Check {
        let check = convoy_tests::Check::new(program, case);
        if NOTHING_TO_ACCELERATE.contains(&case) { check.plain() } else { check }
    }

    convoy_tests::cases!(
        "connecting",
        check,
        [
            addresses_v4,
            addresses_v6,
            addresses_mapped,
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
            bytes_left,
            datagrams,
        ]
    );
}

mod options {
    /// Cases whose connections have an option that leaves them to the kernel from the start.
    const KERNEL_ONLY: &[&str] = &["inherited", "set_before_connect", "signal_driven_early"];

    fn check(program: &str, case: &str) -> convoy_tests::Check {
        let check = convoy_tests::Check::new(program, case);
        match case {
            // The very first call leads to the channel.
            "corked_before_the_channel" => check.set("CONVOY_PROMOTE_AFTER", "0"),
            _ if KERNEL_ONLY.contains(&case) => check.plain(),
            _ => check,
        }
    }

    convoy_tests::cases!(
        "options",
        check,
        [
            kept_by_the_kernel,
            owners_and_queues,
            flags_without_meaning,
            peek_and_truncate,
            linger,
            little_send_room,
            pacing,
            corked_before_the_channel,
            corked_by_whom,
            time_stamps,
            in_queue,
            peek_offset,
            zero_copy_receive,
            zero_copy_send,
            inherited,
            set_before_connect,
            fast_open,
            deferred_accept,
            signed,
            signal_driven,
            signal_driven_by_ioctl,
            signal_driven_early,
            urgent_mark,
            urgent_inline,
        ]
    );
}

mod pressure {
    convoy_tests::cases!(
        "pressure",
        convoy_tests::Check::new,
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
            sizes_at_borders,
        ]
    );
}
