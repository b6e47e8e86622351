//! How much a process may promise to buffer: every window granted to a sender is reserved here first, so that received data always
//! finds room. What may be promised is the least of CONVOY_MEMORY_LIMIT, the user's share (CONVOY_USER_MEMORY_LIMIT) and what the
//! machine and the process's control groups have left (`memory::headroom`); it is looked at again up to ten times a second.
//!
//! Nothing here is called for a message: windows are reserved when streams begin and changed when credit is granted.

mod headroom;
#[cfg(test)]
mod tests;

use crate::config::settings;
use crate::confine::confined;
use crate::registry::Others;
use crate::{position, session, stats, sys};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The least window, guaranteed to each stream that leaves the kernel.
pub const FLOOR: u32 = 4096;
/// Window of a stream that begins while memory is plentiful, and what a slow reader keeps then.
pub const FIRST_WINDOW: u32 = 32768;
/// What a process may promise whatever others of its user have taken.
const LEAST_SHARE: u64 = 1 << 20;
/// The part of the address space (RLIMIT_AS) that queues may have, and that windows may have of a queue.
const SPACE_SHARE: u64 = 16;
/// Between two looks at what the user and the machine have left, in ticks: some 100 ms; and where little is promised, a second.
const LOOK_TICKS: u64 = 250_000_000;
const RARE_LOOK_TICKS: u64 = 10 * LOOK_TICKS;

/// How long nothing new leaves the kernel after an allocation has failed, in ticks: about a second.
const RECOVERY_TICKS: u64 = 2_500_000_000;

/// Bytes promised; changed with compare-and-swap by any thread.
static RESERVED: AtomicU64 = AtomicU64::new(0);
/// Streams with a window.
static STREAMS: AtomicU32 = AtomicU32::new(0);
/// Bytes that may be promised, as of the last look; 0 before the first. Relaxed: a hint, as is the time of the look.
static BUDGET: AtomicU64 = AtomicU64::new(0);
static LOOKED: AtomicU64 = AtomicU64::new(0);

/// When the program's allocator last failed, in ticks; 0 = never. Relaxed: a hint.
static EXHAUSTED: AtomicU64 = AtomicU64::new(0);

/// In what time a reader has to take half of its window while memory is plentiful, in microseconds; and who takes so many times longer
/// is slow.
const PATIENCE_US: u64 = 10_000;
const SLOW: u64 = 8;

/// How much of the budget is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Less than half.
    Plenty,
    Tight,
    /// More than seven eighths: nobody gets more than a fair share.
    Short,
}

/// How fast a reader takes what a stream brings it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// In how many microseconds it has taken half of its window.
    pub half_window_us: u64,
    /// How long news of credit are on their way to the sender, and its bytes on their way back, in microseconds.
    pub round_trip_us: u64,
}

/// The program's allocator has failed.
#[cold]
pub fn note_exhausted() {
    EXHAUSTED.store(position::ticks().max(1), Ordering::Relaxed);
}

fn is_exhausted() -> bool {
    let last = EXHAUSTED.load(Ordering::Relaxed);
    last != 0 && position::ticks().wrapping_sub(last) < RECOVERY_TICKS
}

/// A window for a new stream in bytes; 0 when memory is short.
pub fn reserve_window() -> u32 {
    if is_exhausted() {
        return 0;
    }
    let budget = budget();
    let first = match level(budget) {
        Level::Plenty => FIRST_WINDOW.min(settings().window_bytes),
        Level::Tight | Level::Short => FLOOR,
    };
    // Beside the last stream there is no other to be fair to: one is always possible within the limit.
    for wanted in [first, FLOOR] {
        if take(u64::from(wanted), budget) {
            STREAMS.fetch_add(1, Ordering::Relaxed);
            return wanted;
        }
    }
    0
}

/// Reserves `bytes` more for a window that grows; false when that would leave too little for the floors of others.
pub fn grow(bytes: u32) -> bool {
    if is_exhausted() {
        return false;
    }
    let budget = budget();
    take(u64::from(bytes), budget - budget / 8)
}

fn take(bytes: u64, most: u64) -> bool {
    let more = |used: u64| (used + bytes <= most).then_some(used + bytes);
    let fits = RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
    if fits {
        stats::process().memory_bytes.add(bytes);
        tell_user();
    }
    fits
}

/// Gives a part of a window back.
pub fn release(bytes: u32) {
    let bytes = u64::from(bytes);
    let less = |used: u64| Some(used.saturating_sub(bytes));
    let _ = RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    stats::process().memory_bytes.subtract(bytes);
    tell_user();
}

/// Gives all of a stream's window back.
pub fn release_stream(window: u32) {
    if window > 0 {
        release(window);
        let less = |streams: u32| Some(streams.saturating_sub(1));
        let _ = STREAMS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Whether [`next_window`] would leave a window as it is, for the usual one: as large as any, while memory is plentiful, of a reader
/// who is not slow.
#[inline]
pub fn stays_largest(window: u32, half_window_us: u64) -> bool {
    window >= settings().window_bytes
        && half_window_us <= SLOW * PATIENCE_US
        && RESERVED.load(Ordering::Relaxed) < BUDGET.load(Ordering::Relaxed) / 2
}

/// The window of a stream from its next grant on: twice what it was for a reader that keeps up, half for one that does not, and what
/// it was otherwise. What a reader must take in how short a time depends on the round trip and on how much memory is left.
pub fn next_window(window: u32, pace: Pace) -> u32 {
    let budget = budget();
    next_at(level(budget), budget / u64::from(STREAMS.load(Ordering::Relaxed).max(1)), window, pace)
}

fn next_at(level: Level, fair: u64, window: u32, pace: Pace) -> u32 {
    let most = settings().window_bytes;
    let (patience, floor) = match level {
        Level::Plenty => (PATIENCE_US, FIRST_WINDOW.min(most)),
        Level::Tight => (2_500, FLOOR),
        Level::Short => (1_000, FLOOR),
    };
    let patience = patience + 4 * pace.round_trip_us;
    let above_share = level == Level::Short && u64::from(window) > fair.max(u64::from(FLOOR));
    if above_share || pace.half_window_us > SLOW * patience {
        return (window / 2).max(floor.min(window));
    }
    let grown = window.saturating_mul(2).min(most);
    let beyond_share = level == Level::Short && u64::from(grown) > fair;
    if pace.half_window_us > patience / 2 || beyond_share { window } else { grown.max(window) }
}

fn level(budget: u64) -> Level {
    let used = RESERVED.load(Ordering::Relaxed);
    if used < budget / 2 {
        Level::Plenty
    } else if used < budget - budget / 8 {
        Level::Tight
    } else {
        Level::Short
    }
}

/// What may be promised now, in bytes.
fn budget() -> u64 {
    let now = position::ticks();
    let known = BUDGET.load(Ordering::Relaxed);
    let little = RESERVED.load(Ordering::Relaxed) < known / 4;
    let apart = if little { RARE_LOOK_TICKS } else { LOOK_TICKS };
    if known != 0 && now.wrapping_sub(LOOKED.load(Ordering::Relaxed)) < apart {
        return known;
    }
    if confined() {
        // To open a file may end a program that has confined itself.
        return known.max(u64::from(FLOOR));
    }
    LOOKED.store(now, Ordering::Relaxed);
    let budget = look();
    BUDGET.store(budget, Ordering::Relaxed);
    stats::process().memory_budget.set(budget);
    budget
}

fn look() -> u64 {
    let own = settings().memory_limit.min(queue_bytes() as u64 / 2);
    let limit = settings().user_memory_limit;
    let others = session::current()
        .map_or(Others::default(), |session| session.registry.memory_of_others(session.identity, limit / 2));
    let processes = others.processes + 1;
    // A process that has taken all does not keep later ones out: it learns of them and gives way.
    let user = limit.saturating_sub(others.bytes).max(limit / (2 * processes)).max(LEAST_SHARE);
    let machine = headroom::free_bytes().map_or(u64::MAX, |free| free / 2 / processes);
    own.min(user).min(machine).max(u64::from(FLOOR))
}

/// In the child after fork, whose counters start at zero: what it has inherited it holds as well.
pub fn after_fork_in_child() {
    stats::process().memory_bytes.add(RESERVED.load(Ordering::Relaxed));
}

/// Tells the other processes of the user what this one has promised.
fn tell_user() {
    if let Some(session) = session::current() {
        session.registry.note_memory(session.identity, RESERVED.load(Ordering::Relaxed));
    }
}

/// Bytes of address space for what is queued on one channel: all that can be promised, with the room that is lost at the ends of
/// chunks. Where the address space is limited, a part of it: the rest is the program's.
pub fn queue_bytes() -> usize {
    let wanted = settings().memory_limit.saturating_mul(2).saturating_add(64 << 20);
    let space = sys::address_space_limit() / SPACE_SHARE;
    wanted.min(space).try_into().unwrap_or(usize::MAX)
}
