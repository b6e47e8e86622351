//! Path switching by itself: every combination of counts, and counts that wrap.

use convoy_aggregator::path::{Path, PathError, ReceivePath, SendPath};
use proptest::prelude::*;

/// Counts near 0, near the wrap and anywhere.
fn counts() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, u32::MAX - 3..=u32::MAX, any::<u32>()]
}

proptest! {
    #[test]
    fn a_sender_switches_exactly_when_the_rules_allow(announced in counts(), behind in 0u32..3) {
        let passed = announced.wrapping_sub(behind);
        let mut up = SendPath::at(announced);
        let mut down = up;
        let next = announced.wrapping_add(1);
        let (to_channel, to_kernel) = match (up.path(), behind) {
            (Path::Kernel, 0) => (Ok(next), Err(PathError::Already)),
            (Path::Kernel, _) => (Err(PathError::TooEarly), Err(PathError::Already)),
            (Path::Channel, 0 | 1) => (Err(PathError::Already), Ok(next)),
            (Path::Channel, _) => (Err(PathError::Already), Err(PathError::TooEarly)),
        };
        prop_assert_eq!(up.to_channel(passed), to_channel);
        prop_assert_eq!(down.to_kernel(passed), to_kernel);
        prop_assert_eq!(up.announced(), to_channel.unwrap_or(announced));
        prop_assert_eq!(down.announced(), to_kernel.unwrap_or(announced));
    }

    #[test]
    fn a_receiver_that_lies_stops_every_switch(announced in counts(), passed: u32) {
        prop_assume!(announced.wrapping_sub(passed) > 2);
        let mut path = SendPath::at(announced);
        prop_assert_eq!(path.to_channel(passed), Err(PathError::Lie));
        prop_assert_eq!(path.to_kernel(passed), Err(PathError::Lie));
        prop_assert_eq!(path, SendPath::at(announced));
    }

    #[test]
    fn a_receiver_passes_exactly_what_is_announced(passed in counts(), ahead in 0u32..3) {
        let announced = passed.wrapping_add(ahead);
        let mut path = ReceivePath::at(passed);
        for n in 0..ahead {
            let next = passed.wrapping_add(n + 1);
            prop_assert_eq!(path.pending(announced), Ok(Some(next)));
            prop_assert_eq!(path.pass(announced), Ok(next));
            prop_assert_eq!(path.path(), Path::after(next));
        }
        prop_assert_eq!(path.pending(announced), Ok(None));
        prop_assert_eq!(path.pass(announced), Err(PathError::TooEarly));
        prop_assert_eq!(path.passed(), announced);
    }

    #[test]
    fn a_sender_that_lies_moves_no_receiver(passed in counts(), announced: u32) {
        prop_assume!(announced.wrapping_sub(passed) > 2);
        let mut path = ReceivePath::at(passed);
        prop_assert_eq!(path.pending(announced), Err(PathError::Lie));
        prop_assert_eq!(path.pass(announced), Err(PathError::Lie));
        prop_assert_eq!(path, ReceivePath::at(passed));
    }

    #[test]
    fn what_remains_is_exact_or_a_lie(position: u64, consumed: u64) {
        let remaining = ReceivePath::default().remaining(position, consumed);
        prop_assert_eq!(remaining.ok(), position.checked_sub(consumed));
    }
}

#[test]
fn a_direction_begins_on_the_kernel() {
    assert_eq!(SendPath::default().path(), Path::Kernel);
    assert_eq!(ReceivePath::default().path(), Path::Kernel);
    assert_eq!(SendPath::default().to_channel(0), Ok(1));
}
