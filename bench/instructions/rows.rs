//! Which numbers are watched, and how each is taken from the counted calls.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::frames::{Frame, Frames};
use crate::profile::{Call, Cost, Place};

/// What of a call counts.
enum Part {
    /// All but [`LOOKS`].
    Usual,
    /// The same without copying, which would hide the rest.
    WithoutCopy,
    Copy,
    /// What Convoy adds to the same call without it.
    Added,
}

/// One number.
pub(crate) struct Row {
    /// In the file of numbers.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Name of the counted function, after its prefix.
    path: &'static str,
    part: Part,
    /// Streams that one call is about.
    streams: u64,
}

const fn row(name: &'static str, about: &'static str) -> Row {
    Row { name, about, path: name, part: Part::Usual, streams: 1 }
}

/// Questions to the kernel that are due when some time has gone by, in functions of their own: for its own descriptors in an
/// epoll instance, and for the connection under a stream when that is waited for, or sent on or read. Counting makes
/// that time a matter of chance, so they are left out.
const LOOKS: &[&str] = &["ask_kernel", "kernel_part", "look"];

/// All numbers.
pub(crate) const ALL: &[Row] = &[
    row("send", "send, 64 B"),
    row("recv", "recv, 64 B that have just come"),
    row("recv_sorted", "recv, 64 B that epoll_wait has sorted"),
    row("recv_nothing", "recv, EAGAIN"),
    row("epoll_wait_1", "epoll_wait, 1 of 64 streams ready"),
    Row { streams: 64, ..row("epoll_wait_64", "epoll_wait, 64 ready, per stream") },
    row("poll", "poll, 1 stream, ready"),
    Row { part: Part::WithoutCopy, ..row("send_64k", "send, 64 KiB, without the copy") },
    Row { path: "send_64k", part: Part::Copy, ..row("send_64k_copy", "send, 64 KiB, the copy") },
    Row { part: Part::WithoutCopy, ..row("recv_64k", "recv, 64 KiB, without the copy") },
    Row { path: "recv_64k", part: Part::Copy, ..row("recv_64k_copy", "recv, 64 KiB, the copy") },
    Row { part: Part::Added, ..row("write_foreign", "write to a pipe, added by Convoy") },
    Row { part: Part::Added, ..row("read_foreign", "read from a pipe, added by Convoy") },
];

/// Everything that was counted.
pub(crate) struct Counted {
    pub(crate) with: Vec<Call>,
    pub(crate) without: Vec<Call>,
    pub(crate) frames: Frames,
}

impl Counted {
    /// All numbers by name, in instructions.
    pub(crate) fn numbers(&self) -> Result<BTreeMap<String, u64>> {
        ALL.iter().map(|row| Ok((row.name.to_owned(), self.number(row)?))).collect()
    }

    fn number(&self, row: &Row) -> Result<u64> {
        let least = least(&self.with, row.path, |call| self.part(&row.part, call));
        let count = least.with_context(|| format!("no call of {}", row.path))?;
        if let Part::Added = row.part {
            let native =
                least_call(&self.without, row.path).with_context(|| format!("no native {}", row.path))?;
            return Ok(count.saturating_sub(native.total()));
        }
        Ok((count + row.streams / 2) / row.streams)
    }

    fn part(&self, part: &Part, call: &Call) -> u64 {
        match part {
            Part::Usual => call.total() - self.within(call, LOOKS),
            Part::WithoutCopy => call.total() - self.within(call, LOOKS) - copied(call),
            Part::Copy => copied(call),
            Part::Added => call.total(),
        }
    }

    /// Instructions of functions of Convoy's and of what they call.
    fn within(&self, call: &Call, functions: &[&str]) -> u64 {
        let among = |frame: &Frame| functions.contains(&frame.function.as_str());
        let inside = |cost: &&Cost| self.frames.at(&cost.place).iter().any(among);
        call.costs.iter().filter(inside).map(|cost| cost.instructions).sum()
    }
}

/// The call of a path that took least.
pub(crate) fn least_call<'a>(calls: &'a [Call], path: &str) -> Option<&'a Call> {
    calls.iter().filter(|call| call.path == path).min_by_key(|call| call.total())
}

/// The least of a path's counts: what depends on the time, or comes only now and then, adds to it.
fn least(calls: &[Call], path: &str, count: impl Fn(&Call) -> u64) -> Option<u64> {
    calls.iter().filter(|call| call.path == path).map(count).filter(|count| *count > 0).min()
}

fn copied(call: &Call) -> u64 {
    let copies =
        |cost: &&Cost| !cost.called && matches!(&cost.place, Place::Elsewhere(symbol) if is_copy(symbol));
    call.costs.iter().filter(copies).map(|cost| cost.instructions).sum()
}

/// Whether a function of the C library copies memory.
pub(crate) fn is_copy(symbol: &str) -> bool {
    ["memcpy", "memmove"].iter().any(|name| symbol.contains(name))
}
