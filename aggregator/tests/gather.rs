//! Gathering against an oracle that keeps every message.

use convoy_aggregator::gather::{Flush, Gather, Thresholds};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// A message of that many bytes, so long after the step before.
    Push(u64, u32),
    InFlight(bool),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..40, 0u32..100).prop_map(|(later, bytes)| Step::Push(later, bytes)),
        2 => any::<bool>().prop_map(Step::InFlight),
        1 => Just(Step::Flush),
    ];
    vec(step, 0..100)
}

prop_compose! {
    fn thresholds()(
        bytes in 0u32..400,
        frames in 0u32..10,
        delay_us in prop_oneof![Just(0u32), 1u32..100],
    ) -> Thresholds {
        Thresholds { bytes, frames, delay_us }
    }
}

/// Every message of the open batch: when it came, and its length.
struct Oracle {
    thresholds: Thresholds,
    messages: Vec<(u64, u32)>,
    in_flight: bool,
}

impl Oracle {
    fn bytes(&self) -> u32 {
        self.messages.iter().map(|(_, bytes)| bytes).sum()
    }

    fn full(&self) -> bool {
        self.bytes() >= self.thresholds.bytes || self.messages.len() >= self.thresholds.frames as usize
    }

    fn expected(&self, now_us: u64) -> Flush {
        let delay = u64::from(self.thresholds.delay_us);
        let until_us = self.messages.first().map_or(now_us, |(came, _)| came + delay);
        if self.full() {
            Flush::Now
        } else if delay > 0 && now_us < until_us {
            Flush::Hold { until_us }
        } else if delay == 0 && self.in_flight {
            Flush::HoldWhileInFlight
        } else {
            Flush::Now
        }
    }
}

proptest! {
    #[test]
    fn batches_leave_when_the_rules_say(thresholds in thresholds(), steps in steps()) {
        let mut gather = Gather::new(thresholds);
        let mut oracle = Oracle { thresholds, messages: Vec::new(), in_flight: false };
        let mut now_us = 1_000;
        for step in steps {
            match step {
                Step::Push(later, bytes) => {
                    now_us += later;
                    oracle.messages.push((now_us, bytes));
                    prop_assert_eq!(gather.push(now_us, bytes), oracle.expected(now_us));
                }
                Step::InFlight(in_flight) => {
                    oracle.in_flight = in_flight;
                    let idle_leaves = thresholds.delay_us == 0 && !in_flight;
                    let leaves = !oracle.messages.is_empty() && (oracle.full() || idle_leaves);
                    prop_assert_eq!(gather.in_flight(in_flight), leaves);
                }
                Step::Flush => {
                    oracle.messages.clear();
                    gather.on_flush();
                }
            }
            prop_assert_eq!(gather.pending_frames() as usize, oracle.messages.len());
            prop_assert_eq!(gather.pending_bytes(), oracle.bytes());
            let due = gather.poll_timeout();
            if oracle.messages.is_empty() {
                prop_assert_eq!(due, None);
            } else {
                match oracle.expected(now_us) {
                    Flush::Now => prop_assert!(due.is_some_and(|at| at <= now_us)),
                    Flush::Hold { until_us } => prop_assert_eq!(due, Some(until_us)),
                    Flush::HoldWhileInFlight => prop_assert_eq!(due, None),
                }
            }
        }
    }

    #[test]
    fn no_times_or_lengths_make_it_panic(
        thresholds in (any::<u32>(), any::<u32>(), any::<u32>()),
        pushes in vec((any::<u64>(), any::<u32>(), any::<bool>()), 0..50),
    ) {
        let (bytes, frames, delay_us) = thresholds;
        let mut gather = Gather::new(Thresholds { bytes, frames, delay_us });
        for (now_us, bytes, in_flight) in pushes {
            let _ = gather.in_flight(in_flight);
            let _ = gather.push(now_us, bytes);
        }
    }
}

#[test]
fn an_idle_link_never_waits_and_a_busy_one_gathers() {
    let mut gather = Gather::default();
    assert_eq!(gather.push(5, 64), Flush::Now);
    gather.on_flush();
    assert!(!gather.in_flight(true));
    assert_eq!(gather.push(6, 64), Flush::HoldWhileInFlight);
    assert_eq!(gather.push(7, 64), Flush::HoldWhileInFlight);
    assert_eq!(gather.poll_timeout(), None);
    assert!(gather.in_flight(false));
    assert_eq!((gather.pending_frames(), gather.pending_bytes()), (2, 128));
}

#[test]
fn a_full_batch_leaves_even_when_the_clock_steps_back() {
    let mut gather = Gather::new(Thresholds { bytes: 100, frames: 9, delay_us: 50 });
    assert_eq!(gather.push(1_000, 60), Flush::Hold { until_us: 1_050 });
    assert_eq!(gather.push(900, 60), Flush::Now);
}
