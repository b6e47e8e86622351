//! Many writes: each is told once, in order where that is promised, and back-pressure works.

use convoy_fabric::{LinkId, MemoryId, PostError, RemoteMemory};

use crate::harness::{Numbers, Pair, Side, write};

/// Whether these are the numbers from 0 on; in this order, if that is promised.
fn check(arrived: &[u32], ordered: bool) {
    let mut arrived = arrived.to_vec();
    if !ordered {
        arrived.sort_unstable();
    }
    assert!(arrived.iter().copied().eq(0..arrived.len() as u32), "not in order, or not once");
}

/// Immediates of writes large and small come once, in order, and their bytes are there.
pub fn immediates_once_and_in_order(pair: &mut Pair) {
    const WRITES: usize = 500;
    let link = pair.link();
    let limits = pair.a.fabric.limits();
    let mut numbers = Numbers(5);
    let contents = numbers.bytes(WRITES * 64);
    let source = pair.a.source(&contents);
    let large = pair.a.source(&numbers.bytes(64 << 10));
    let (memory, remote) = pair.b.exported(contents.len());
    let (_, elsewhere) = pair.b.exported(64 << 10);
    let mut seen = 0;
    for index in 0..WRITES {
        if index % 7 == 0 {
            let size = 1 + numbers.below(64 << 10);
            pair.post(link, &write(large, 0..size, elsewhere, 0, None));
        }
        let at = index * 64;
        pair.post(link, &write(source, at..at + 64, remote, at, Some(index as u32)));
        while let Some(index) = pair.b.arrived(link).get(seen) {
            let at = *index as usize * 64;
            let mut bytes = [0; 64];
            assert!(pair.b.fabric.read(memory, at, &mut bytes));
            assert_eq!(bytes, contents[at..at + 64], "told before it was there");
            seen += 1;
        }
    }
    pair.until("all have arrived", |pair| pair.b.arrived(link).len() >= WRITES);
    let writes = WRITES + WRITES.div_ceil(7);
    pair.until("all are done", |pair| pair.a.written(link) == writes);
    assert_eq!(pair.b.arrived(link).len(), WRITES);
    check(pair.b.arrived(link), limits.ordered);
    assert!(pair.b.contents(memory, contents.len()) == contents);
}

/// Posts until there is no room; how many there are now.
fn post_all(
    side: &mut Side,
    link: LinkId,
    source: MemoryId,
    target: RemoteMemory,
    mut next: usize,
    end: usize,
) -> usize {
    while next < end {
        let from = next % 64;
        let write = write(source, from..from + 32, target, next % 1000 * 32, Some(next as u32));
        match side.fabric.post(link, &write) {
            Ok(()) => next += 1,
            Err(PostError::Full) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    next
}

/// Ten thousand writes each way at the same time, posted as fast as they go.
pub fn many_writes_both_ways(pair: &mut Pair) {
    const WRITES: usize = 10_000;
    let link = pair.link();
    let ordered = pair.a.fabric.limits().ordered;
    let (from_a, from_b) = (pair.a.source(&[1; 4096]), pair.b.source(&[2; 4096]));
    let (_, in_a) = pair.a.exported(32_000);
    let (_, in_b) = pair.b.exported(32_000);
    let (mut by_a, mut by_b) = (0, 0);
    pair.until("all writes are done and have arrived", |pair| {
        by_a = post_all(&mut pair.a, link, from_a, in_b, by_a, WRITES);
        by_b = post_all(&mut pair.b, link, from_b, in_a, by_b, WRITES);
        let sides = [&pair.a, &pair.b];
        sides.iter().all(|side| side.written(link) == WRITES && side.arrived(link).len() >= WRITES)
    });
    for side in [&pair.a, &pair.b] {
        assert_eq!(side.arrived(link).len(), WRITES);
        check(side.arrived(link), ordered);
    }
}
