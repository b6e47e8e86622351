//! Links come and go.

use convoy_fabric::{LinkId, PostError, memory};

use crate::harness::{Pair, write};

/// One write with an immediate from `a` arrives at `b`.
fn one_write(pair: &mut Pair, from: LinkId, to: LinkId, immediate: u32) {
    let (memory, remote) = pair.b.exported(4096);
    let contents = vec![immediate as u8; 100];
    let source = pair.a.source(&contents);
    let (written, arrived) = (pair.a.written(from), pair.b.arrived(to).len());
    pair.post(from, &write(source, 0..100, remote, 7, Some(immediate)));
    pair.until("a write is done and has arrived", |pair| {
        pair.a.written(from) == written + 1 && pair.b.arrived(to).len() == arrived + 1
    });
    assert_eq!(pair.b.arrived(to).last(), Some(&immediate));
    assert_eq!(pair.b.contents(memory, 110)[7..107], contents);
    pair.a.fabric.release(source);
    pair.b.fabric.release(memory);
}

/// Links made from either side carry writes both ways, whatever their numbers.
pub fn both_ways_round(pair: &mut Pair) {
    pair.begin(LinkId(1), LinkId(70_001));
    pair.swapped();
    pair.begin(LinkId(2), LinkId(u32::MAX));
    pair.swapped();
    pair.until("both links are connected", |pair| pair.a.connected.len() == 2 && pair.b.connected.len() == 2);
    one_write(pair, LinkId(1), LinkId(70_001), 11);
    one_write(pair, LinkId(u32::MAX), LinkId(2), 12);
    pair.swapped();
    one_write(pair, LinkId(70_001), LinkId(1), 13);
    one_write(pair, LinkId(2), LinkId(u32::MAX), 14);
    assert!(pair.a.down.is_empty() && pair.b.down.is_empty());
    assert_eq!((pair.a.connected.len(), pair.b.connected.len()), (2, 2));
}

/// A connection with a token that nobody waits for fails, and others do not.
pub fn token_refused(pair: &mut Pair) {
    let (here, there) = (pair.a.fabric.address().to_vec(), pair.b.fabric.address().to_vec());
    pair.b.fabric.accept(LinkId(5), &here, 0xaaaa).unwrap();
    pair.a.fabric.connect(LinkId(6), &there, 0xbbbb).unwrap();
    pair.until("the link is refused", |pair| pair.a.is_down(LinkId(6)));
    assert!(pair.a.connected.is_empty() && pair.b.connected.is_empty() && pair.b.down.is_empty());
    pair.a.fabric.connect(LinkId(6), &there, 0xaaaa).unwrap();
    pair.until("the other link is connected", |pair| {
        pair.a.connected == [LinkId(6)] && pair.b.connected == [LinkId(5)]
    });
    one_write(pair, LinkId(6), LinkId(5), 1);
    assert!(pair.a.fabric.connect(LinkId(6), &there, 1).is_err(), "the number is in use");
    assert!(pair.a.fabric.connect(LinkId(7), b"nonsense", 1).is_err());
    assert!(pair.a.fabric.accept(LinkId(7), b"", 1).is_err());
    assert!(pair.a.fabric.connect(LinkId(7), &there[..there.len() - 1], 1).is_err());
}

/// A rail that is gone is noticed.
pub fn nobody_there(pair: &mut Pair) {
    let there = pair.b.fabric.address().to_vec();
    pair.b.fabric = Box::new(memory::pair(memory::LIMITS, [memory::Faults::default(); 2]).unwrap().0);
    if pair.a.fabric.connect(LinkId(1), &there, 1).is_ok() {
        pair.until("the link is down", |pair| pair.a.is_down(LinkId(1)));
    }
    assert!(pair.a.connected.is_empty());
}

/// Ending a link on one side ends it on the other, at the latest when that writes; its number can be used again.
pub fn disconnect_and_again(pair: &mut Pair) {
    for round in 0..5 {
        let link = pair.link();
        one_write(pair, link, link, round);
        if round % 2 == 1 {
            pair.swapped();
        }
        pair.b.fabric.disconnect(link);
        let (_, remote) = pair.b.exported(4096);
        let source = pair.a.source(&[1; 64]);
        pair.until("the other side has noticed", |pair| {
            if pair.a.is_down(link) {
                return true;
            }
            match pair.a.fabric.post(link, &write(source, 0..64, remote, 0, Some(1))) {
                Ok(()) | Err(PostError::Full | PostError::Down) => false,
                Err(error) => panic!("{error:?}"),
            }
        });
        assert_eq!(pair.a.down[&link].len(), 1);
        assert!(!pair.b.is_down(link), "disconnecting is not reported");
        let posted = pair.a.fabric.post(link, &write(source, 0..64, remote, 0, None));
        assert_eq!(posted, Err(PostError::Down));
        // Once more under the same numbers, the other way round.
        (pair.a.connected, pair.b.connected) = Default::default();
        pair.swapped();
        pair.begin(link, link);
        pair.until("the link is connected again", |pair| {
            pair.a.connected == [link] && pair.b.connected == [link]
        });
        one_write(pair, link, link, 100 + round);
        pair.a.fabric.disconnect(link);
        pair.b.fabric.disconnect(link);
        (pair.a.connected, pair.b.connected) = Default::default();
        (pair.a.down, pair.b.down) = Default::default();
    }
    // A link that waits can be ended as well.
    let here = pair.a.fabric.address().to_vec();
    pair.b.fabric.accept(LinkId(99), &here, 99).unwrap();
    pair.b.fabric.disconnect(LinkId(99));
    pair.b.fabric.disconnect(LinkId(99));
}

/// Writes over many links of one rail arrive as of their links.
pub fn many_links(pair: &mut Pair) {
    links(pair, 8);
}

pub fn links(pair: &mut Pair, count: usize) {
    let links: Vec<_> = (0..count).map(|_| pair.link()).collect();
    let (_, remote) = pair.b.exported(4096);
    let source = pair.a.source(&[3; 64]);
    for round in 0..50 {
        for link in &links {
            pair.post(*link, &write(source, 0..64, remote, 0, Some(link.0 * 1000 + round)));
        }
    }
    pair.until("all have arrived", |pair| links.iter().all(|link| pair.b.arrived(*link).len() == 50));
    for link in &links {
        let mut immediates = pair.b.arrived(*link).to_vec();
        immediates.sort_unstable();
        assert_eq!(immediates, (0..50).map(|round| link.0 * 1000 + round).collect::<Vec<_>>());
    }
    pair.a.fabric.disconnect(links[3]);
    pair.a.fabric.disconnect(links[0]);
    for link in [links[1], links[7]] {
        one_write(pair, link, link, 7);
    }
}
