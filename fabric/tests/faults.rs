//! The faults that rails in memory have on demand: what they do, and that the same seed does the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroU32;

use convoy_fabric::memory::{Faults, LIMITS, Rail, pair};
use convoy_fabric::{
    Access, Event, Fabric, Limits, LinkId, MemoryId, PostError, RemoteMemory, Source, Write,
};

const LINK: LinkId = LinkId(1);

/// A connected pair with memory on either side.
struct Setup {
    a: Rail,
    b: Rail,
    source: MemoryId,
    target: MemoryId,
    remote: RemoteMemory,
}

/// What has happened after some writes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    written: Vec<u64>,
    arrived: Vec<u32>,
    down: (bool, bool),
    contents: Vec<u8>,
}

fn setup(limits: Limits, faults: Faults) -> Setup {
    let (mut a, mut b) = pair(limits, [faults, Faults::default()]).unwrap();
    let (to_a, to_b) = (a.address().to_vec(), b.address().to_vec());
    b.accept(LINK, &to_a, 7).unwrap();
    a.connect(LINK, &to_b, 7).unwrap();
    let source = a.allocate(4096, Access::Local).unwrap();
    a.local(source).unwrap().fill(0xff);
    let target = b.allocate(4096, Access::Remote).unwrap();
    let remote = b.remote(target).unwrap();
    Setup { a, b, source, target, remote }
}

/// Up to `count` writes of eight bytes, each polled for; then polls until nothing more happens.
fn run(limits: Limits, faults: Faults, count: u32, polls: u32) -> Outcome {
    let mut setup = setup(limits, faults);
    let mut outcome = Outcome::default();
    let mut next = 0;
    let mut idle = 0;
    while idle < 100 {
        for _ in 0..4.min(count - next) {
            let at = next as usize * 8;
            let source = Source::Memory { memory: setup.source, offset: at, length: 8 };
            let write = Write {
                source,
                target: setup.remote,
                offset: at as u64,
                immediate: Some(next),
                context: next.into(),
                more: false,
            };
            match setup.a.post(LINK, &write) {
                Ok(()) => next += 1,
                Err(PostError::Full | PostError::Down) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        for _ in 0..polls {
            let mut events = Vec::new();
            setup.a.poll(&mut events);
            setup.b.poll(&mut events);
            idle = if events.is_empty() { idle + 1 } else { 0 };
            for event in events {
                match event {
                    Event::Written { context, .. } => outcome.written.push(context),
                    Event::Arrived { immediate, .. } => outcome.arrived.push(immediate),
                    Event::Down { .. } if outcome.down.0 => outcome.down.1 = true,
                    Event::Down { .. } => outcome.down.0 = true,
                    Event::Connected(_) => {}
                }
            }
        }
    }
    outcome.contents = vec![0; 4096];
    assert!(setup.b.read(setup.target, 0, &mut outcome.contents));
    outcome
}

fn placed(outcome: &Outcome) -> usize {
    outcome.contents.iter().filter(|byte| **byte == 0xff).count()
}

#[test]
fn none() {
    let outcome = run(LIMITS, Faults::default(), 200, 1);
    assert!(outcome.arrived.iter().copied().eq(0..200));
    assert!(outcome.written.iter().copied().eq(0..200));
    assert_eq!(outcome.down, (false, false));
    assert_eq!(placed(&outcome), 1600);
}

#[test]
fn the_same_with_the_same_seed() {
    let faults = |seed| Faults {
        seed,
        drop: NonZeroU32::new(150),
        duplicate: NonZeroU32::new(5),
        delay: 4,
        reorder: true,
        ..Faults::default()
    };
    let limits = Limits { ordered: false, ..LIMITS };
    let first = run(limits, faults(1), 200, 1);
    assert_eq!(first, run(limits, faults(1), 200, 1));
    assert_ne!(first, run(limits, faults(2), 200, 1));
}

#[test]
fn drop_takes_the_link_down() {
    for seed in 0..50 {
        let faults = Faults { seed, drop: NonZeroU32::new(20), ..Faults::default() };
        let outcome = run(LIMITS, faults, 500, 1);
        assert_eq!(outcome.down, (true, true), "seed {seed}");
        assert_eq!(placed(&outcome), outcome.arrived.len() * 8);
        assert!(outcome.arrived.iter().copied().eq(0..outcome.arrived.len() as u32));
        assert_eq!(outcome.written.len(), outcome.arrived.len());
    }
}

#[test]
fn short_places_a_part() {
    let mut parts = 0;
    for seed in 0..50 {
        let faults = Faults { seed, short: NonZeroU32::new(20), ..Faults::default() };
        let outcome = run(LIMITS, faults, 500, 1);
        assert_eq!(outcome.down, (true, true), "seed {seed}");
        let more = placed(&outcome) - outcome.arrived.len() * 8;
        assert!(more < 8);
        parts += usize::from(more > 0);
    }
    assert!(parts > 20);
}

#[test]
fn duplicates_come_twice() {
    let faults = Faults { seed: 3, duplicate: NonZeroU32::new(10), ..Faults::default() };
    let mut outcome = run(LIMITS, faults, 500, 1);
    assert!(outcome.arrived.len() > 520);
    assert!(outcome.arrived.is_sorted());
    outcome.arrived.dedup();
    assert!(outcome.arrived.iter().copied().eq(0..500));
    assert_eq!(outcome.written.len(), 500);
}

#[test]
fn delayed_but_in_order() {
    let faults = Faults { seed: 4, delay: 20, ..Faults::default() };
    let outcome = run(LIMITS, faults, 500, 1);
    assert!(outcome.arrived.iter().copied().eq(0..500));
    assert!(outcome.written.iter().copied().eq(0..500));
}

#[test]
fn reordered_where_order_is_not_promised() {
    let faults = Faults { seed: 5, reorder: true, delay: 3, ..Faults::default() };
    let mut outcome = run(Limits { ordered: false, ..LIMITS }, faults, 500, 1);
    assert!(!outcome.arrived.is_sorted());
    outcome.arrived.sort_unstable();
    assert!(outcome.arrived.iter().copied().eq(0..500));
    let ordered = run(LIMITS, faults, 500, 1);
    assert!(ordered.arrived.is_sorted());
}
