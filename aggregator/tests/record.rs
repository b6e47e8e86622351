//! Records survive their bytes, and bytes come in the order of the switches.

#![allow(clippy::unwrap_used)]

use convoy_aggregator::record::{Place, RECORD_BYTES, Record, in_order};

#[test]
fn records_survive_their_bytes() {
    let record = Record { announced: 3, positions: [1 << 40, 7], sent: 99, received: u64::MAX };
    assert_eq!(Record::decode(&record.encode()), Some(record));
    assert_eq!(Record::decode(&record.encode()[1..]), None);
    assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
}

#[test]
fn bytes_come_in_the_order_of_the_switches() {
    let at = |passed, consumed, kernel_read| Place { passed, consumed, kernel_read };
    let order = |theirs: &Record, at, channel: &str, kernel: &str| {
        let (bytes, whole) = in_order(theirs, at, channel.as_bytes(), kernel.as_bytes());
        (String::from_utf8(bytes).unwrap(), whole)
    };
    let all = |text: &str| (text.to_owned(), true);
    let some = |text: &str| (text.to_owned(), false);
    // Kernel up to 10, channel up to 4, kernel again.
    let theirs = Record { announced: 2, positions: [4, 10], sent: 4, received: 0 };
    assert_eq!(order(&theirs, at(0, 0, 7), "CCCC", "kkkKK"), all("kkkCCCCKK"));
    // The first switch passed, two channel bytes read.
    assert_eq!(order(&theirs, at(1, 2, 10), "CC", "KKK"), all("CCKKK"));
    // Both passed: nothing may be left on the channel.
    assert_eq!(order(&theirs, at(2, 4, 12), "", "K"), all("K"));
    assert_eq!(order(&theirs, at(2, 4, 12), "C", "K"), some("K"));
    // What is in order before the first gap can be read.
    assert_eq!(order(&theirs, at(0, 0, 7), "CC", "kkk"), some("kkkCC"));
    assert_eq!(order(&theirs, at(0, 0, 7), "CCCC", "kk"), some("kk"));
    // On the channel now.
    let theirs = Record { announced: 1, positions: [0, 5], sent: 3, received: 0 };
    assert_eq!(order(&theirs, at(0, 0, 5), "CCC", ""), all("CCC"));
    assert_eq!(order(&theirs, at(0, 0, 3), "C", "kk"), all("kkC"));
    assert_eq!(order(&theirs, at(0, 0, 3), "C", "k"), some("k"), "kernel bytes are missing");
    assert_eq!(order(&theirs, at(0, 0, 5), "C", "k"), some("C"), "kernel bytes too many");
    // Impossible counts of switches.
    assert_eq!(order(&theirs, at(5, 0, 0), "", ""), some(""));
}
