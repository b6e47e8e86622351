//! A token bucket for limits per second. Pure: the time is passed in. Not here: whom it limits.

use std::time::{Duration, Instant};

const NANO: i128 = 1_000_000_000;

/// A limit of so many units per second, of which at most one second's worth may come at once.
///
/// ```
/// # use convoy_control::Rate;
/// # use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let mut offers = Rate::new(10, start);
/// assert!(offers.take(start, 10));
/// assert!(!offers.take(start, 1));
/// assert_eq!(offers.wait(start, 1), Duration::from_millis(100));
/// assert!(offers.take(start + Duration::from_millis(100), 1));
/// ```
#[derive(Debug, Clone)]
pub struct Rate {
    /// 0: unlimited.
    per_second: u64,
    /// Billionths of a unit; below zero after a request larger than the bucket.
    level: i128,
    /// When `level` was right.
    at: Instant,
}

impl Rate {
    /// A full bucket of `per_second` units; 0 is no limit.
    pub fn new(per_second: u64, now: Instant) -> Rate {
        Rate { per_second, level: i128::from(per_second) * NANO, at: now }
    }

    /// Takes `units` if they are there. More than the bucket holds is granted when it is full, and paid for
    /// afterwards, so that the limit holds on average and a large request is not refused forever.
    pub fn take(&mut self, now: Instant, units: u64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        self.refill(now);
        let granted = self.level >= self.needed(units);
        if granted {
            self.level -= i128::from(units) * NANO;
        }
        granted
    }

    /// How long until [`Rate::take`] grants `units`; zero when it would now.
    pub fn wait(&mut self, now: Instant, units: u64) -> Duration {
        if self.per_second == 0 {
            return Duration::ZERO;
        }
        self.refill(now);
        let missing = (self.needed(units) - self.level).max(0);
        let nanos = (missing + i128::from(self.per_second) - 1) / i128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn needed(&self, units: u64) -> i128 {
        i128::from(units.min(self.per_second)) * NANO
    }

    /// A time before the last one adds nothing.
    fn refill(&mut self, now: Instant) {
        let full = i128::from(self.per_second) * NANO;
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        // A nanosecond at one unit per second is a billionth of a unit.
        let nanos = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        self.level = nanos.saturating_mul(i128::from(self.per_second)).saturating_add(self.level).min(full);
    }
}
