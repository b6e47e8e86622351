//! What must not be done is not, and the rails go on.

use convoy_fabric::{Access, LinkId, PostError, RemoteMemory, Write};

use crate::harness::{Pair, write};

/// The caller's mistakes are told at once, and cost nothing.
pub fn beyond_limits(pair: &mut Pair) {
    let link = pair.link();
    let source = pair.a.source(&[1; 4096]);
    let (memory, remote) = pair.b.exported(4096);
    let mut refused = |write: &Write<'_>| {
        let posted = pair.a.fabric.post(link, write);
        assert!(matches!(posted, Err(PostError::Invalid(_))), "{write:?}: {posted:?}");
    };
    refused(&write(source, 4000..4097, remote, 0, None));
    refused(&write(source, usize::MAX - 1..usize::MAX, remote, 0, None));
    refused(&write(source, 0..4096, remote, 1, None));
    refused(&write(source, 0..1, remote, usize::MAX, None));
    let posted = pair.a.fabric.post(LinkId(77), &write(source, 0..1, remote, 0, None));
    assert_eq!(posted, Err(PostError::Down));
    pair.post(link, &write(source, 0..4096, remote, 0, Some(1)));
    pair.until("a good write arrives", |pair| pair.b.arrived(link) == [1]);
    assert_eq!(pair.b.contents(memory, 4096), [1; 4096]);
    assert!(pair.a.fabric.allocate(0, Access::Local).is_err());
    let mut bytes = [0; 2];
    assert!(!pair.b.fabric.read(memory, 4095, &mut bytes));
    assert!(!pair.b.fabric.read(memory, usize::MAX, &mut bytes));
}

/// The link fails, or at least the write does not come to an end while those of other links do.
fn fails(pair: &mut Pair, link: LinkId) {
    if pair.tells_soon() {
        pair.until("the link is down", |pair| pair.a.is_down(link) || pair.b.is_down(link));
        return;
    }
    let other = pair.link();
    let source = pair.a.source(&[1; 256]);
    let (_, remote) = pair.b.exported(4096);
    for round in 0..100 {
        pair.post(other, &write(source, 0..256, remote, 0, Some(round)));
    }
    pair.until("the others are done", |pair| pair.a.written(other) == 100);
    assert_eq!(pair.a.written(link), 0);
}

/// A write with a wrong target does nothing but harm its own link; then a new link works.
fn wrong(pair: &mut Pair, target: impl Fn(RemoteMemory) -> (RemoteMemory, usize)) {
    let link = pair.link();
    let other = pair.link();
    let source = pair.a.source(&[0xff; 256]);
    let (memory, remote) = pair.b.exported(4096);
    let (bad, offset) = target(remote);
    pair.post(link, &write(source, 0..256, bad, offset, Some(66)));
    fails(pair, link);
    assert_eq!(pair.b.contents(memory, 4096), [0; 4096]);
    assert!(!pair.a.is_down(other) && !pair.b.is_down(other));
    pair.post(other, &write(source, 0..256, remote, 0, Some(1)));
    pair.until("the other link works", |pair| pair.b.arrived(other) == [1]);
    assert_eq!(pair.b.arrived(link), []);
    pair.a.fabric.disconnect(link);
    pair.b.fabric.disconnect(link);
    let again = pair.link();
    pair.post(again, &write(source, 0..256, remote, 0, Some(2)));
    pair.until("a new link works", |pair| pair.b.arrived(again) == [2]);
}

/// Past the end of the peer's memory, which the peer had said was longer.
pub fn out_of_bounds(pair: &mut Pair) {
    wrong(pair, |remote| (RemoteMemory { bytes: 1 << 40, ..remote }, (4096 - 128) + 4096 * 64));
    wrong(pair, |remote| (RemoteMemory { bytes: 1 << 40, ..remote }, 4096 - 128));
}

/// With a key that there is not.
pub fn wrong_key(pair: &mut Pair) {
    wrong(pair, |remote| (RemoteMemory { key: remote.key ^ 0x5555, ..remote }, 0));
}

/// Memory that is released while a peer writes into it, and other memory that may take its place.
pub fn released_under_way(pair: &mut Pair) {
    const BYTES: usize = 1 << 20;
    let limits = pair.a.fabric.limits();
    let length = BYTES.min(limits.write);
    let source = pair.a.source(&vec![0xff; length]);
    for round in 0..20 {
        let link = pair.link();
        let (memory, remote) = pair.b.exported(BYTES);
        for _ in 0..8 {
            let posted = pair.a.fabric.post(link, &write(source, 0..length, remote, 0, None));
            assert!(matches!(posted, Ok(()) | Err(PostError::Full)), "{posted:?}");
        }
        for _ in 0..round {
            pair.a.poll();
            pair.b.poll();
        }
        pair.b.fabric.release(memory);
        let (other, _) = pair.b.exported(BYTES);
        for _ in 0..200 {
            pair.a.poll();
            pair.b.poll();
        }
        assert!(pair.b.contents(other, BYTES).iter().all(|byte| *byte == 0));
        pair.a.fabric.disconnect(link);
        pair.b.fabric.disconnect(link);
        pair.b.fabric.release(other);
    }
}

/// Memory that is not for peers has no name for them.
pub fn local_memory(pair: &mut Pair) {
    let memory = pair.b.source(&[7; 4096]);
    assert_eq!(pair.b.fabric.remote(memory), None);
    let (exported, remote) = pair.b.exported(4096);
    assert!(pair.b.fabric.local(exported).is_none());
    // Released memory is not for peers any more either.
    pair.b.fabric.release(exported);
    assert_eq!(pair.b.fabric.remote(exported), None);
    pair.b.fabric.release(exported);
    let link = pair.link();
    let source = pair.a.source(&[0xff; 256]);
    pair.post(link, &write(source, 0..256, remote, 0, Some(66)));
    fails(pair, link);
    assert_eq!(pair.b.contents(memory, 4096), [7; 4096]);
    assert_eq!(pair.b.arrived(link), []);
}
