//! Offers, channels and bells in a registry of this test's own.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// Nobody has this process id.
const DEAD: Identity = Identity(0x7fff_fff0 << 32 | 1);

fn registry() -> (&'static Registry, Identity) {
    let own = process::remember();
    let fd = sys::memfd_create(c"registry", libc::MFD_CLOEXEC).unwrap();
    let registry = Registry::open(fd).unwrap();
    sys::close(fd).unwrap();
    (registry, own)
}

fn key(connection: u64, end: u32) -> Key {
    Key { words: [1, 2, 3, 4, 5, connection], end }
}

/// Connections whose offers all begin their search at the same place.
fn crowd() -> impl Iterator<Item = u64> {
    let place = |connection: &u64| hash(&key(*connection, 0).words) as usize % OFFERS == 7;
    (0..).filter(place)
}

fn answer(peer: Identity, slot: u32) -> Answer {
    Answer { peer, channel: 77, slot, generation: 9 }
}

/// The slot of an answered offer.
fn slot(progress: Progress) -> Option<u32> {
    match progress {
        Progress::Matched(answer) => {
            assert_eq!((answer.channel, answer.generation), (77, 9));
            Some(answer.slot)
        }
        _ => None,
    }
}

#[test]
fn two_ends_meet() {
    let (registry, own) = registry();
    let locked = registry.lock().unwrap();
    assert!(locked.counterpart(&key(1, 0)).is_none());
    let offer = locked.enter(&key(1, 0), own).unwrap();
    assert!(locked.counterpart(&key(1, 0)).is_none(), "an end does not meet itself");
    assert!(locked.counterpart(&key(2, 1)).is_none());
    assert!(matches!(registry.progress(offer), Progress::Waiting));
    let (found, owner) = locked.counterpart(&key(1, 1)).unwrap();
    assert_eq!(owner, own);
    locked.answer(found, answer(DEAD, 3));
    assert_eq!(slot(registry.progress(offer)), Some(3));
    assert!(locked.counterpart(&key(1, 1)).is_none(), "answered once");
    drop(locked);
    registry.withdraw(offer);
    assert!(matches!(registry.progress(offer), Progress::Gone));
}

#[test]
fn an_offer_of_the_same_end_replaces_the_older_one() {
    let (registry, own) = registry();
    let locked = registry.lock().unwrap();
    let older = locked.enter(&key(1, 0), own).unwrap();
    let newer = locked.enter(&key(1, 0), own).unwrap();
    drop(locked);
    assert!(matches!(registry.progress(older), Progress::Gone));
    registry.withdraw(older);
    assert!(matches!(registry.progress(newer), Progress::Waiting), "a stale reference withdraws nothing");
}

#[test]
fn a_full_neighbourhood_takes_offers_of_dead_owners_places_only() {
    let (registry, own) = registry();
    let locked = registry.lock().unwrap();
    let crowd: Vec<u64> = crowd().take(PROBES + 1).collect();
    let offers: Vec<OfferRef> =
        crowd[..PROBES].iter().map(|&connection| locked.enter(&key(connection, 0), own).unwrap()).collect();
    assert!(locked.enter(&key(crowd[PROBES], 0), own).is_none());
    locked.discard(offers[5]);
    locked.enter(&key(crowd[5], 0), DEAD).unwrap();
    let (dead, owner) = locked.counterpart(&key(crowd[5], 1)).unwrap();
    assert!(!owner.alive());
    locked.enter(&key(crowd[PROBES], 0), own).unwrap();
    assert!(matches!(registry.progress(dead), Progress::Gone));
    assert!(locked.counterpart(&key(crowd[PROBES], 1)).is_some());
}

#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Waiting,
    Matched(u32),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Offers of few connections, all in one neighbourhood, against a map.
    #[test]
    fn offers_do_as_a_map_does(steps in prop::collection::vec((0..4u8, 0..6usize, 0..2u32), 1..120)) {
        let (registry, own) = registry();
        let crowd: Vec<u64> = crowd().take(6).collect();
        let mut oracle: HashMap<(usize, u32), (OfferRef, Expected)> = HashMap::new();
        let mut stale = Vec::new();
        for (step, (kind, connection, end)) in steps.into_iter().enumerate() {
            let place = (connection, end);
            let key = key(crowd[connection], end);
            match kind {
                0 => {
                    let offer = registry.lock().unwrap().enter(&key, own).unwrap();
                    stale.extend(oracle.insert(place, (offer, Expected::Waiting)).map(|(offer, _)| offer));
                }
                1 => {
                    let locked = registry.lock().unwrap();
                    let other = oracle.get_mut(&(connection, end ^ 1));
                    let other = other.filter(|(_, expected)| *expected == Expected::Waiting);
                    let found = locked.counterpart(&key);
                    prop_assert_eq!(found.is_some(), other.is_some());
                    if let (Some((offer, _)), Some((_, expected))) = (found, other) {
                        locked.answer(offer, answer(own, step as u32));
                        *expected = Expected::Matched(step as u32);
                    }
                }
                2 => {
                    if let Some((offer, _)) = oracle.remove(&place) {
                        registry.withdraw(offer);
                        stale.push(offer);
                    }
                }
                _ => stale.iter().for_each(|&offer| registry.withdraw(offer)),
            }
            for (offer, expected) in oracle.values() {
                match expected {
                    Expected::Waiting => prop_assert!(matches!(registry.progress(*offer), Progress::Waiting)),
                    Expected::Matched(at) => prop_assert_eq!(slot(registry.progress(*offer)), Some(*at)),
                }
            }
            prop_assert!(stale.iter().all(|&offer| matches!(registry.progress(offer), Progress::Gone)));
        }
        // SAFETY: nothing refers to this registry any more.
        unsafe { sys::unmap_guarded(std::ptr::from_ref(registry).cast_mut().cast(), size_of::<Registry>()) };
    }
}

#[test]
fn a_channel_is_found_from_both_sides_and_makes_room_when_a_side_is_dead() {
    let (registry, own) = registry();
    let locked = registry.lock().unwrap();
    let sides = [own, DEAD];
    assert!(locked.channel_between(own, DEAD).is_none());
    for serial in 1..=PROBES as u64 + 1 {
        assert!(locked.enter_channel(Found { serial, sides, descriptor: 9 }), "the other side is dead");
    }
    let found = locked.channel_between(DEAD, own).unwrap();
    assert_eq!((found.sides, found.descriptor), (sides, 9));
    let sides = [own, own];
    for serial in 1..=PROBES as u64 {
        assert!(locked.enter_channel(Found { serial, sides, descriptor: 9 }));
    }
    assert!(!locked.enter_channel(Found { serial: 999, sides, descriptor: 9 }), "all are alive");
    assert!(locked.next_serial() < locked.next_serial());
}

#[test]
fn bells_have_one_owner_each_and_those_of_the_dead_are_used_again() {
    let (registry, own) = registry();
    let first = registry.claim_bell(own).unwrap();
    let second = registry.claim_bell(own).unwrap();
    assert!(first != second && first != 0 && second != 0);
    registry.bells.iter().for_each(|bell| bell.owner.store(own.0, Ordering::Relaxed));
    assert_eq!(registry.claim_bell(own), None);
    let dead = registry.bell(77);
    dead.owner.store(DEAD.0, Ordering::Relaxed);
    dead.sleepers.store(1, Ordering::Relaxed);
    dead.rung.store(1, Ordering::Relaxed);
    assert_eq!(registry.claim_bell(own), Some(77));
    assert_eq!((dead.sleepers.load(Ordering::Relaxed), dead.rung.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn the_lock_excludes_and_outlives_its_holder() {
    let (registry, _) = registry();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let Some(_locked) = registry.lock() else { continue };
                    let inside = registry.serial.load(Ordering::Relaxed);
                    std::thread::yield_now();
                    assert_eq!(registry.serial.swap(inside + 1, Ordering::Relaxed), inside);
                }
            });
        }
    });
    registry.lock.store(DEAD.0, Ordering::Relaxed);
    assert!(registry.lock().is_some());
}

#[test]
fn what_others_of_the_user_have_is_summed_up_and_the_dead_are_forgotten() {
    let (registry, own) = registry();
    registry.note_memory(own, 700);
    assert_eq!(registry.memory_of_others(own, 0).bytes, 0, "not this one's own");
    registry.note_memory(DEAD, 500);
    assert_eq!(registry.memory_of_others(own, 500).bytes, 500, "nobody looks while there is plenty");
    assert_eq!(registry.memory_of_others(own, 499).bytes, 0);
    registry.note_memory(own, 0);
    assert_eq!(registry.memory_of_others(DEAD, 0).bytes, 0);
}
