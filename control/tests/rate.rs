//! The token bucket: never more than its limit, and no less either.

use convoy_control::Rate;
use proptest::prelude::*;
use std::time::{Duration, Instant};

proptest! {
    #[test]
    fn no_more_than_the_limit_is_granted(
        per_second in 1u64..10_000,
        steps in prop::collection::vec((0u64..500, 0u64..3_000), 1..200),
    ) {
        let start = Instant::now();
        let mut rate = Rate::new(per_second, start);
        let mut now = start;
        let mut granted = 0;
        let mut largest = 0;
        for (millis, units) in steps {
            now += Duration::from_millis(millis);
            if rate.take(now, units) {
                granted += units;
                largest = largest.max(units);
            }
            let earned = per_second as f64 * (now - start).as_secs_f64();
            let most = per_second as f64 + earned + largest as f64;
            prop_assert!(granted as f64 <= most + 1e-6, "{granted} of {most}");
        }
    }

    #[test]
    fn what_was_waited_for_is_granted_and_not_before(per_second in 1u64..1_000_000, units in 1u64..2_000_000) {
        let start = Instant::now();
        let mut rate = Rate::new(per_second, start);
        prop_assert!(rate.take(start, per_second));
        let wait = rate.wait(start, units);
        prop_assert!(wait > Duration::ZERO);
        prop_assert!(!rate.clone().take(start + wait - Duration::from_nanos(1), units));
        prop_assert!(rate.take(start + wait, units));
    }
}

#[test]
fn none_is_unlimited() {
    let now = Instant::now();
    let mut rate = Rate::new(0, now);
    assert!(rate.take(now, u64::MAX) && rate.take(now, u64::MAX));
    assert_eq!(rate.wait(now, u64::MAX), Duration::ZERO);
}

#[test]
fn extremes_do_not_overflow_and_time_does_not_run_back() {
    let now = Instant::now();
    let mut rate = Rate::new(u64::MAX, now);
    assert!(rate.take(now, u64::MAX));
    assert!(rate.take(now + Duration::from_secs(1 << 40), u64::MAX));
    let mut rate = Rate::new(10, now + Duration::from_secs(1));
    assert!(rate.take(now + Duration::from_secs(1), 10));
    assert!(!rate.take(now, 1));
    assert!(!rate.take(now + Duration::from_secs(1), 1));
}

#[test]
fn a_request_larger_than_the_bucket_is_paid_for_afterwards() {
    let now = Instant::now();
    let mut rate = Rate::new(10, now);
    assert!(rate.take(now, 30));
    assert_eq!(rate.wait(now, 1), Duration::from_millis(2100));
}
