//! The stages that a call's instructions are grouped in, by the source files they come from.

use crate::frames::Frame;
use crate::rows::is_copy;

/// Beginning of a file's path, function (or any), stage: the first that fits decides. What is not here (access to memory
/// layouts and settings) belongs to the stage of its caller.
const STAGES: &[(&str, &str, &str)] = &[
    ("preload/", "", "hook"),
    ("runtime/api", "", "hook"),
    ("runtime/table.rs", "", "table"),
    ("runtime/socket.rs", "", "table"),
    ("runtime/channel/list.rs", "", "table"),
    ("runtime/stream", "", "call"),
    ("runtime/inside.rs", "", "locks"),
    ("runtime/lock.rs", "", "locks"),
    ("runtime/shm/lock.rs", "", "locks"),
    ("runtime/process.rs", "", "locks"),
    ("runtime/channel/send.rs", "lock_sending", "locks"),
    ("runtime/channel/receive.rs", "lock_receiving", "locks"),
    ("runtime/promote", "", "path and credit"),
    ("runtime/channel/switch.rs", "", "path and credit"),
    ("runtime/channel/recall.rs", "", "path and credit"),
    ("runtime/channel/far", "", "path and credit"),
    ("runtime/channel/hold.rs", "", "path and credit"),
    ("runtime/channel/send.rs", "credit", "path and credit"),
    ("runtime/channel/reading.rs", "", "path and credit"),
    ("aggregator/path.rs", "", "path and credit"),
    ("aggregator/credit.rs", "", "path and credit"),
    ("runtime/channel/send.rs", "", "frame"),
    ("aggregator/wire.rs", "", "frame"),
    ("runtime/shm/frames.rs", "", "frame"),
    ("runtime/shm/blocks.rs", "", "frame"),
    ("runtime/shm/ring.rs", "", "publish"),
    ("runtime/channel/receive.rs", "give_room", "publish"),
    ("runtime/channel/receive.rs", "count_in_batch", "publish"),
    ("runtime/channel/sort.rs", "tell", "notice"),
    ("runtime/channel/rest.rs", "", "notice"),
    ("runtime/bell.rs", "", "notice"),
    ("runtime/shm/waiters.rs", "", "notice"),
    ("runtime/shm/bell", "", "notice"),
    ("runtime/channel/", "", "sort"),
    ("runtime/iov.rs", "", "copy"),
    ("runtime/epoll", "", "epoll"),
    ("runtime/wait", "", "wait"),
    ("runtime/stats", "", "counters"),
    ("runtime/sys", "", "kernel"),
];

/// The stage of an instruction in the library with these frames, innermost first.
pub(crate) fn of_frames(frames: &[Frame]) -> &'static str {
    frames.iter().find_map(stage).unwrap_or("other")
}

fn stage(frame: &Frame) -> Option<&'static str> {
    let fits = |(file, function, _): &&(&str, &str, _)| {
        frame.file.starts_with(file) && (function.is_empty() || frame.function == *function)
    };
    STAGES.iter().find(fits).map(|(_, _, stage)| *stage)
}

/// The stage of an instruction elsewhere.
pub(crate) fn of_symbol(symbol: &str) -> &'static str {
    if is_copy(symbol) { "copy" } else { "C library" }
}
