//! A link against a model: batches never overlap in the ring, each is taken once and in order whatever the order and
//! number of arrivals, room and deliveries come back exactly, and lies are refused.

#![allow(clippy::unwrap_used)]

use convoy_aggregator::link::{LinkError, ReceiveLink, SendLink, UNIT};
use proptest::prelude::*;
use std::collections::BTreeMap;

const RING: u32 = 64 * UNIT;

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    /// One of the batches on their way arrives, perhaps again later.
    Arrive(usize, bool),
    /// One that has arrived is told once more, however late.
    Repeat(usize),
    /// The receiver takes what it can, holding parts of some.
    Take(u32),
    HandOver(usize),
    /// The receiver's cursors reach the sender.
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..30 * UNIT as usize).prop_map(Step::Send),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(index, again)| Step::Arrive(index, again)),
        1 => any::<usize>().prop_map(Step::Repeat),
        2 => (0..3u32).prop_map(Step::Take),
        1 => any::<usize>().prop_map(Step::HandOver),
        2 => Just(Step::Answer),
    ]
}

#[derive(Default)]
struct Model {
    /// What the receiver is going to be told.
    on_the_way: Vec<u32>,
    /// What it was told, and may be told again at any time.
    told: Vec<u32>,
    /// Units in use by sequence number: start and count.
    in_ring: BTreeMap<u32, (u32, u32)>,
    taken: u32,
    held: Vec<(u32, u32)>,
    delivered: Vec<u32>,
}

proptest! {
    #[test]
    fn sender_and_receiver_agree(steps in prop::collection::vec(step(), 0..300)) {
        let (mut send, mut receive) = (SendLink::new(RING), ReceiveLink::default());
        let mut model = Model::default();
        for step in steps {
            run(step, &mut send, &mut receive, &mut model)?;
        }
        // Everything arrives, is handed over and told: the ring is empty again.
        let rest: Vec<_> = model.on_the_way.drain(..).collect();
        for immediate in rest {
            receive.arrived(immediate);
        }
        run(Step::Take(0), &mut send, &mut receive, &mut model)?;
        while !model.held.is_empty() {
            run(Step::HandOver(0), &mut send, &mut receive, &mut model)?;
        }
        run(Step::Answer, &mut send, &mut receive, &mut model)?;
        prop_assert_eq!(send.in_flight(), 0);
        let mut all = model.delivered.clone();
        all.sort_unstable();
        prop_assert_eq!(all, (0..send.next_sequence()).collect::<Vec<_>>(), "each batch is delivered once");
    }
}

fn run(
    step: Step,
    send: &mut SendLink,
    receive: &mut ReceiveLink,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    match step {
        Step::Send(bytes) => {
            let had_room = send.has_room(bytes);
            let place = send.place(bytes);
            prop_assert_eq!(place.is_some(), had_room);
            let Some(place) = place else { return Ok(()) };
            let units = bytes.div_ceil(UNIT as usize) as u32;
            let start = (place.offset / u64::from(UNIT)) as u32;
            prop_assert_eq!(place.offset, u64::from(start * UNIT));
            prop_assert!(start + units <= RING / UNIT, "a batch is in one piece");
            for (other, count) in model.in_ring.values() {
                prop_assert!(start + units <= *other || other + count <= start, "batches overlap");
            }
            model.in_ring.insert(place.sequence, (start, units));
            model.on_the_way.push(place.immediate);
        }
        Step::Arrive(index, again) if !model.on_the_way.is_empty() => {
            let index = index % model.on_the_way.len();
            let immediate = model.on_the_way[index];
            receive.arrived(immediate);
            prop_assert!(!receive.arrived(immediate), "a second arrival counts for nothing");
            if !again {
                model.on_the_way.remove(index);
                model.told.push(immediate);
            }
        }
        Step::Repeat(index) if !model.told.is_empty() => {
            let immediate = model.told[index % model.told.len()];
            prop_assert!(!receive.arrived(immediate), "nor does one after the place was used again");
        }
        Step::Take(parts) => {
            while let Some((sequence, place)) = receive.next_batch() {
                prop_assert_eq!(sequence, model.taken);
                prop_assert_eq!(model.in_ring[&sequence].0, place);
                model.taken += 1;
                receive.hold(sequence, parts);
                receive.delivered(sequence);
                model.held.extend((0..parts).map(|_| (sequence, parts)));
            }
        }
        Step::HandOver(index) if !model.held.is_empty() => {
            let (sequence, _) = model.held.remove(index % model.held.len());
            receive.hand_over(sequence);
            receive.delivered(sequence);
        }
        Step::Answer => {
            let early: Vec<u32> = core::iter::from_fn(|| receive.next_early()).collect();
            for sequence in early {
                if send.on_early(sequence) == Ok(true) {
                    model.delivered.push(sequence);
                }
            }
            let (consumed, delivered) = receive.tell();
            prop_assert_eq!(consumed, model.taken);
            prop_assert!(send.on_consumed(consumed).is_ok());
            model.in_ring.retain(|sequence, _| *sequence >= consumed);
            let mut done = Vec::new();
            prop_assert!(send.on_delivered(delivered, |sequence| done.push(sequence)).is_ok());
            for sequence in &done {
                prop_assert!(model.held.iter().all(|(held, _)| held != sequence), "told too early");
            }
            model.delivered.extend(done);
        }
        Step::Arrive(..) | Step::HandOver(_) | Step::Repeat(_) => {}
    }
    Ok(())
}

#[test]
fn lies_are_refused() {
    let mut send = SendLink::new(RING);
    let _ = send.place(100);
    assert_eq!(send.on_consumed(2), Err(LinkError::Consumed));
    assert_eq!(send.on_delivered(2, |_| ()), Err(LinkError::Delivered));
    assert_eq!(send.on_early(1), Err(LinkError::Delivered));
    assert_eq!(send.on_consumed(1), Ok(()));
    assert_eq!(send.on_consumed(0), Ok(()), "old news");
    let mut receive = ReceiveLink::default();
    assert!(!receive.arrived(10_000 << 16), "farther ahead than any can be");
    assert!(!receive.arrived(u32::MAX));
}

#[test]
fn what_is_kept_of_batches_behind_one_that_is_not_delivered_is_bounded() {
    let (mut send, mut receive) = (SendLink::new(RING), ReceiveLink::default());
    // The numbers wrap twice as far as their low half goes.
    for round in 0..200_000 {
        let place = send.place(100).unwrap();
        assert!(receive.arrived(place.immediate));
        let (sequence, _) = receive.next_batch().unwrap();
        assert_eq!(sequence, round);
        receive.hold(sequence, u32::from(round == 5));
        receive.delivered(sequence);
        while let Some(early) = receive.next_early() {
            assert_eq!(send.on_early(early), Ok(true));
        }
        let (consumed, delivered) = receive.tell();
        send.on_consumed(consumed).unwrap();
        send.on_delivered(delivered, |_| ()).unwrap();
        assert_eq!(send.undelivered(), usize::from(round >= 5), "after batch {round}");
        assert_eq!(receive.held(), usize::from(round >= 5));
    }
    receive.hand_over(5);
    let mut done = Vec::new();
    send.on_delivered(receive.tell().1, |sequence| done.push(sequence)).unwrap();
    assert_eq!(done, [5]);
    assert_eq!(send.undelivered(), 0);
}

#[test]
fn a_batch_larger_than_the_ring_never_fits() {
    let mut send = SendLink::new(RING);
    assert!(!send.has_room(RING as usize + 1));
    assert!(send.place(RING as usize).is_some());
    assert!(!send.has_room(1));
}
