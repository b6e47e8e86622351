//! Flags of the data calls, blocking modes and time limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod flagged;
mod modes;
mod signals;

use convoy_tests::kit::main as run;

fn main() {
    run(&[
        ("peek", flagged::peek),
        ("peek_then_mixed", flagged::peek_then_mixed),
        ("waitall", flagged::waitall),
        ("waitall_cut_short", flagged::waitall_cut_short),
        ("dontwait", flagged::dontwait),
        ("truncate", flagged::truncate),
        ("more", flagged::more),
        ("out_of_band", flagged::out_of_band),
        ("broken_pipe", signals::broken_pipe),
        ("broken_pipe_signal", signals::broken_pipe_signal),
        ("nonblock_toggled", modes::nonblock_toggled),
        ("nonblock_by_ioctl", modes::nonblock_by_ioctl),
        ("receive_time_limit", modes::receive_time_limit),
        ("receive_time_limits_of_threads", modes::receive_time_limits_of_threads),
        ("send_time_limit", modes::send_time_limit),
        ("readable_count", modes::readable_count),
        ("unsent_count", modes::unsent_count),
        ("low_water_mark", modes::low_water_mark),
        ("interrupted", signals::interrupted),
        ("restarted", signals::restarted),
        ("handler_sends", signals::handler_sends),
        ("errno_untouched", modes::errno_untouched),
    ]);
}
