//! Bytes end up where they belong, and nowhere else.

use std::sync::Arc;

use convoy_fabric::{Foreign, LinkId, PostError, Source, Write};

use crate::harness::{Numbers, Pair, write};

/// Size of the memories, in bytes.
const BYTES: usize = 1 << 20;

/// Waits until the link's writes so far are done and as many have arrived.
fn settle(pair: &mut Pair, link: LinkId, written: usize, arrived: usize) {
    pair.until("all writes are done and have arrived", |pair| {
        pair.a.written(link) == written && pair.b.arrived(link).len() == arrived
    });
}

/// Writes of all sizes, at all alignments.
pub fn exactly(pair: &mut Pair) {
    let link = pair.link();
    let limits = pair.a.fabric.limits();
    let mut numbers = Numbers(42);
    let contents = numbers.bytes(BYTES);
    let source = pair.a.source(&contents);
    let (memory, remote) = pair.b.exported(BYTES);
    assert!(limits.write >= 64 << 10);
    let mut sizes = vec![1, 2, 7, 8, 63, 64, 65, 4095, 4096, 4097, 64 << 10];
    sizes.extend((0..100).map(|_| 1 + numbers.below(64 << 10)));
    sizes.push(BYTES.min(limits.write));
    let mut expected = vec![0; BYTES];
    for (round, size) in sizes.iter().copied().enumerate() {
        let (from, to) = (numbers.below(BYTES - size + 1), numbers.below(BYTES - size + 1));
        pair.post(link, &write(source, from..from + size, remote, to, Some(round as u32)));
        expected[to..to + size].copy_from_slice(&contents[from..from + size]);
        // Where order is not promised, writes that overlap must not be outstanding together.
        if !limits.ordered || round % 16 == 0 {
            settle(pair, link, round + 1, round + 1);
            assert!(pair.b.contents(memory, BYTES) == expected, "after {round} writes");
        }
    }
    settle(pair, link, sizes.len(), sizes.len());
    assert!(pair.b.contents(memory, BYTES) == expected);
}

/// Bytes that are not registered are the caller's again at once.
pub fn from_unregistered_bytes(pair: &mut Pair) {
    let link = pair.link();
    let inject = pair.a.fabric.limits().inject;
    let (memory, remote) = pair.b.exported(BYTES);
    let mut numbers = Numbers(7);
    let mut expected = vec![0; BYTES];
    let mut buffer = vec![0; inject];
    for round in 0..200 {
        let part = BYTES / 200;
        let size = match round {
            0 => 1,
            1 => inject.min(part),
            _ => 1 + numbers.below(inject.min(part)),
        };
        let at = round * part;
        buffer[..size].copy_from_slice(&numbers.bytes(size));
        expected[at..at + size].copy_from_slice(&buffer[..size]);
        let bytes = Source::Bytes(&buffer[..size]);
        let immediate = Some(round as u32);
        pair.post(
            link,
            &Write { source: bytes, target: remote, offset: at as u64, immediate, context: 0, more: false },
        );
        buffer.fill(0xee);
    }
    settle(pair, link, 0, 200);
    assert!(pair.b.contents(memory, BYTES) == expected);
    let bytes = vec![0; inject + 1];
    let source = Source::Bytes(&bytes);
    let write = Write { source, target: remote, offset: 0, immediate: None, context: 0, more: false };
    assert!(matches!(pair.a.fabric.post(link, &write), Err(PostError::Invalid(_))));
}

struct Kept(Vec<u8>);

// SAFETY: the vector is neither changed nor moved, and lives as long as the value.
unsafe impl Foreign for Kept {
    fn range(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }
}

/// Memory of somebody else can be written from, once registered, but not handed out.
pub fn from_foreign_memory(pair: &mut Pair) {
    let link = pair.link();
    let contents = Numbers(9).bytes(10_000);
    let source = pair.a.fabric.register(Arc::new(Kept(contents.clone()))).unwrap();
    assert!(pair.a.fabric.local(source).is_none());
    assert_eq!(pair.a.fabric.remote(source), None);
    let (memory, remote) = pair.b.exported(BYTES);
    pair.post(link, &write(source, 100..9000, remote, 50, Some(1)));
    settle(pair, link, 1, 1);
    assert_eq!(pair.b.contents(memory, BYTES)[50..8950], contents[100..9000]);
    pair.a.fabric.release(source);
    assert!(matches!(
        pair.a.fabric.post(link, &write(source, 0..1, remote, 0, None)),
        Err(PostError::Invalid(_))
    ));
}

/// As many writes as the limits say can be outstanding, and no more. Only the last tells that it has arrived, and
/// some say that more follow.
pub fn full_depth(pair: &mut Pair) {
    let link = pair.link();
    let limits = pair.a.fabric.limits();
    let contents = Numbers(11).bytes(limits.depth * 100);
    let source = pair.a.source(&contents);
    let (memory, remote) = pair.b.exported(contents.len());
    for round in 1..=3 {
        for index in 0..limits.depth {
            let last = index + 1 == limits.depth;
            let part = index * 100..(index + 1) * 100;
            let immediate = (last || !limits.ordered).then_some(index as u32);
            let mut write = write(source, part.clone(), remote, part.start, immediate);
            write.more = !last && index % 4 != 3;
            assert_eq!(pair.a.fabric.post(link, &write), Ok(()), "write {index} of {}", limits.depth);
        }
        let one_more = write(source, 0..1, remote, 0, None);
        assert_eq!(pair.a.fabric.post(link, &one_more), Err(PostError::Full));
        let arrivals = if limits.ordered { 1 } else { limits.depth };
        settle(pair, link, round * limits.depth, round * arrivals);
    }
    assert!(pair.b.contents(memory, contents.len()) == contents);
    let mut contexts = pair.a.written[&link].clone();
    contexts.sort_unstable();
    contexts.dedup();
    assert_eq!(contexts.len(), limits.depth);
}
