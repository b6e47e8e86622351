//! Counters: a page of them per process, in a shared file, so that anybody of the same user can read them from
//! outside while the process runs, at no cost to it.
//!
//! Lives here: counting ([`process`], [`lane`]) and what happens to the page as the process goes on. Not here: which
//! counters there are (`stats::layout`), where the page is (`stats::place`), the JSON at exit (`stats::dump`) and reading
//! another process's page (`stats::outside`).

mod dump;
mod layout;
mod outside;
mod place;

#[cfg(test)]
mod tests;

use crate::sys;
use std::ffi::CStr;

pub use dump::dump;
pub use layout::{Control, Counter, Header, LANES, LaneCounter, LaneCounters, Page, Process};
pub use outside::{Snapshot, pid_namespace, read, start_time};
pub use place::withdraw;

/// The counters of this process as a whole.
#[inline]
pub fn process() -> &'static Process {
    &place::page().process
}

/// The counters of a lane; only the holder of that lane's lock may change them. Lanes share a set of counters where
/// there are more than [`LANES`].
#[inline]
pub fn lane(index: usize) -> &'static LaneCounters {
    &place::page().lanes[index & (LANES - 1)]
}

/// What a tracer wants of this process.
pub(crate) fn control() -> &'static Control {
    &place::page().control
}

/// The switches of all lanes.
pub(crate) fn traced() -> impl Iterator<Item = &'static LaneCounters> {
    place::page().lanes.iter()
}

/// Puts the page into the file `path` (replacing what is there), with what was counted so far. Until then counters
/// live in memory of this process. A second call changes nothing.
///
/// # Errors
/// The errno of creating or mapping the file; counting then goes on as before.
pub fn publish(path: &CStr) -> sys::Answer<()> {
    place::publish(path, Header::of_this_process())
}

/// In the child after fork: its counters start at zero, in its own memory, until it publishes them itself.
pub fn after_fork_in_child() {
    place::start_again();
}
