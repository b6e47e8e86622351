//! The thresholds of batches and the time a batch may be held: they change how many messages travel together, never
//! what arrives, and no message waits for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, Run};

const PROGRAM: &str = convoy_tests::program!("batching");
/// Two processes, so that each has counters and a flusher of its own.
const VARIANTS: &[&str] = &["process-client-warm", "process-server-cold"];

fn held(program: &str, case: &str) -> Check {
    Check::new(program, case).variants(VARIANTS).set("CONVOY_BATCH_DELAY_US", "20000")
}

/// Every case natively, and with messages that are held for 20 ms.
mod held {
    convoy_tests::cases!(
        "batching",
        super::held,
        [
            many_small,
            lone_message,
            ping_pong,
            ping_pong_nonblocking,
            small_then_large,
            many_streams,
            close_behind,
            half_close_behind,
            killed_behind,
            fork_behind,
        ]
    );
}

/// With a hold so long that waiting for it each time would take longer than the run may: a wait publishes.
#[test]
fn a_wait_publishes() {
    for case in ["ping_pong", "ping_pong_nonblocking", "half_close_behind", "killed_behind"] {
        let check = Check::new(PROGRAM, case).variants(&VARIANTS[..1]);
        check.set("CONVOY_BATCH_DELAY_US", "1000000").set("CONVOY_SPIN_US", "0").compare();
    }
}

/// Runs the small messages with some settings, and gives the messages per batch of both directions together.
fn messages_per_batch(settings: &[(&str, &str)]) -> (f64, Run) {
    let mut check = Check::new(PROGRAM, "many_small").variants(&VARIANTS[..1]);
    for (name, value) in settings {
        check = check.set(name, value);
    }
    let run = check.compare().remove(0);
    let count = |name| u32::try_from(run.counters.get(name)).map(f64::from).unwrap();
    (count("frames_received") / count("batches_received"), run)
}

#[test]
fn held_messages_travel_together() {
    let (ratio, run) = messages_per_batch(&[("CONVOY_BATCH_DELAY_US", "20000")]);
    assert!(ratio > 20.0, "{ratio} messages per batch\n{}", run.report());
}

#[test]
fn a_batch_of_one() {
    for delay in ["0", "20000"] {
        let settings = [("CONVOY_BATCH_FRAMES", "1"), ("CONVOY_BATCH_DELAY_US", delay)];
        let (ratio, run) = messages_per_batch(&settings);
        assert!((ratio - 1.0).abs() < f64::EPSILON, "{ratio} messages per batch\n{}", run.report());
    }
}

/// 64 bytes are four of the messages: the thresholds bound a batch from above, held or not.
#[test]
fn bytes_bound_a_batch() {
    for delay in ["0", "20000"] {
        let settings = [("CONVOY_BATCH_BYTES", "64"), ("CONVOY_BATCH_DELAY_US", delay)];
        let (ratio, run) = messages_per_batch(&settings);
        // Warming up uses smaller messages, so a few batches hold more of them.
        assert!((1.0..=4.5).contains(&ratio), "{ratio} messages per batch\n{}", run.report());
    }
}

#[test]
fn any_thresholds() {
    for case in ["ping_pong", "small_then_large", "many_streams"] {
        for (name, value) in
            [("CONVOY_BATCH_FRAMES", "1"), ("CONVOY_BATCH_FRAMES", "3"), ("CONVOY_BATCH_BYTES", "1M")]
        {
            held(PROGRAM, case).variants(&VARIANTS[..1]).set(name, value).compare();
        }
    }
}
