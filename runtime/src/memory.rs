//! How much a process may promise to buffer (CONVOY_MEMORY_LIMIT): every window granted to a sender is reserved
//! here first, so that received data always finds room.

use crate::config::settings;
use crate::stats;
use core::sync::atomic::{AtomicU64, Ordering};

/// Smallest window worth opening a stream for.
const SMALLEST_WINDOW: u64 = 4096;
/// A stream starts with this much and doubles as it proves busy.
const FIRST_WINDOW: u64 = 32768;

/// Bytes promised; changed with compare-and-swap by any thread.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// A window for a new stream in bytes; 0 when memory is short.
pub fn reserve_window() -> u64 {
    let left = settings().memory_limit.saturating_sub(RESERVED.load(Ordering::Relaxed));
    let wanted = FIRST_WINDOW.min(u64::from(settings().window_bytes)).min(left / 16);
    if wanted >= SMALLEST_WINDOW && grow(wanted) { wanted } else { 0 }
}

/// Reserves `bytes` more; false when that would pass the limit.
pub fn grow(bytes: u64) -> bool {
    let limit = settings().memory_limit;
    let fits = RESERVED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used + bytes <= limit).then_some(used + bytes)
        })
        .is_ok();
    if fits {
        stats::process().memory_bytes.add(bytes);
    }
    fits
}

/// Gives a window back.
pub fn release(bytes: u64) {
    let _ =
        RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    stats::process().memory_bytes.subtract(bytes);
}
