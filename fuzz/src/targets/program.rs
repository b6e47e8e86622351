//! What a program and its host's agent tell each other, and the record by which a stream returns to the kernel.

use crate::input::Input;
use convoy_runtime::agent::protocol::{BYTES, Message};
use convoy_runtime::fuzz::{Place, RECORD_BYTES, Record, in_order};

pub(super) fn run(bytes: &[u8]) {
    let cut = &bytes[..bytes.len().min(BYTES)];
    match Message::decode(cut) {
        // Bytes that mean nothing need not come back.
        Some(message) => assert_eq!(Message::decode(&message.encode()), Some(message)),
        None => {
            assert!(cut.len() < BYTES || cut[0] == 0 || cut[0] > 10 || cut[1..4] != [0; 3] || cut[0] == 5)
        }
    }
    assert!(bytes.len() <= BYTES || Message::decode(&bytes[..BYTES + 1]).is_none());
    let cut = &bytes[..bytes.len().min(RECORD_BYTES)];
    if let Some(record) = Record::decode(cut) {
        assert_eq!(Record::decode(&record.encode()), Some(record));
    }
    returned(bytes);
}

/// The bytes of a stream that has returned, with a record that may say anything.
fn returned(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let at = Place { passed: input.near(0) as u32, consumed: input.near(0), kernel_read: input.near(0) };
    let theirs = Record {
        announced: input.near(u64::from(at.passed)) as u32,
        positions: [input.near(at.consumed), input.near(at.kernel_read)],
        sent: input.near(at.consumed),
        received: 0,
    };
    let count = usize::from(input.byte());
    let channel = input.bytes(count);
    let kernel = input.rest();
    let (order, whole) = in_order(&theirs, at, channel, kernel);
    assert!(order.len() <= channel.len() + kernel.len(), "more bytes than came");
    assert!(!whole || order.len() == channel.len() + kernel.len(), "whole, and something is missing");
    // Only whole pieces of the two, each in its own order.
    let (mut from_channel, mut from_kernel) = (0, 0);
    for byte in &order {
        if channel.get(from_channel) == Some(byte) {
            from_channel += 1;
        } else if kernel.get(from_kernel) == Some(byte) {
            from_kernel += 1;
        } else if channel != kernel {
            // The greedy walk may lead astray where both have the same bytes.
            return;
        }
    }
}
