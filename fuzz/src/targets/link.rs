//! The ring of batches between two hosts, with a peer that says anything about it.

use crate::input::Input;
use convoy_aggregator::link::{ReceiveLink, SendLink, UNIT};
use std::collections::{BTreeMap, BTreeSet};

const UNITS: u32 = 64;
/// As many batches as may wait for one in front of them.
const MOST_WAITING: usize = 4096;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut sender = Sender::default();
    let mut receiver = Receiver::default();
    while !input.is_empty() {
        match input.byte() % 10 {
            0 | 1 => sender.place(usize::from(input.short()) % (UNITS as usize * 80)),
            2 => sender.consumed(&mut input),
            3 => sender.delivered(&mut input),
            4 => sender.early(&mut input),
            5 | 6 => receiver.arrived(&mut input),
            7 => receiver.take(input.byte()),
            8 => receiver.hand_over(input.byte()),
            _ => receiver.tell(),
        }
    }
}

struct Sender {
    link: SendLink,
    /// First unit and how many, by number, of what is not consumed.
    used: BTreeMap<u32, (u32, u32)>,
    done: BTreeSet<u32>,
}

impl Default for Sender {
    fn default() -> Self {
        Self { link: SendLink::new(UNITS * UNIT), used: BTreeMap::new(), done: BTreeSet::new() }
    }
}

impl Sender {
    fn place(&mut self, bytes: usize) {
        let had_room = self.link.has_room(bytes);
        let place = self.link.place(bytes);
        assert_eq!(place.is_some(), had_room);
        let Some(place) = place else { return };
        let units = (bytes.div_ceil(UNIT as usize) as u32).max(1);
        let start = (place.offset / u64::from(UNIT)) as u32;
        assert_eq!(place.immediate, start | place.sequence << 16);
        assert!(start + units <= UNITS, "a batch is in one piece");
        for (other, count) in self.used.values() {
            assert!(start + units <= *other || other + count <= start, "over one that is not consumed");
        }
        self.used.insert(place.sequence, (start, units));
        assert_eq!(self.link.in_flight(), self.used.len());
    }

    fn consumed(&mut self, input: &mut Input<'_>) {
        let before = self.link.clone();
        let number = input.near(u64::from(self.link.next_sequence())) as u32;
        match self.link.on_consumed(number) {
            Ok(()) => {
                // Old news change nothing.
                if number <= self.link.next_sequence() {
                    self.used.retain(|sequence, _| *sequence >= number);
                }
                assert_eq!(self.link.in_flight(), self.used.len());
            }
            Err(_) => assert_eq!(self.link, before, "a lie has changed something"),
        }
    }

    fn delivered(&mut self, input: &mut Input<'_>) {
        let before = self.link.clone();
        let number = input.near(u64::from(self.link.next_sequence())) as u32;
        let next = self.link.next_sequence();
        let mut told = Vec::new();
        match self.link.on_delivered(number, |sequence| told.push(sequence)) {
            Ok(()) => self.note(&told, next),
            Err(_) => assert!(told.is_empty() && self.link == before, "a lie has changed something"),
        }
    }

    fn early(&mut self, input: &mut Input<'_>) {
        let before = self.link.clone();
        let number = input.near(u64::from(self.link.next_sequence())) as u32;
        let next = self.link.next_sequence();
        match self.link.on_early(number) {
            Ok(true) => self.note(&[number], next),
            Ok(false) => {}
            Err(_) => assert_eq!(self.link, before, "a lie has changed something"),
        }
    }

    fn note(&mut self, told: &[u32], next: u32) {
        for sequence in told {
            assert!(*sequence < next, "delivered and never sent");
            assert!(self.done.insert(*sequence), "delivered twice");
        }
        assert_eq!(self.link.undelivered(), next as usize - self.done.len(), "kept for nothing");
    }
}

#[derive(Default)]
struct Receiver {
    link: ReceiveLink,
    known: BTreeMap<u32, u32>,
    taken: u32,
    held: Vec<u32>,
}

impl Receiver {
    fn arrived(&mut self, input: &mut Input<'_>) {
        let number = input.near(u64::from(self.taken)) as u32;
        let place = input.word() & 0xffff;
        // Only the low half of a number is told.
        let ahead = number.wrapping_sub(self.taken) & 0xffff;
        let meant = self.taken.wrapping_add(ahead);
        let new = self.link.arrived(place | number << 16);
        if (ahead as usize) < MOST_WAITING {
            // What has come again is taken from the place that was named last.
            assert_eq!(self.known.insert(meant, place).is_none(), new, "it was there before, or not");
        } else {
            assert!(!new, "farther ahead than any can be");
        }
        assert!(self.known.len() <= MOST_WAITING, "no bound on what waits");
    }

    fn take(&mut self, parts: u8) {
        while let Some((sequence, place)) = self.link.next_batch() {
            assert_eq!(sequence, self.taken, "out of order");
            assert_eq!(self.known.remove(&sequence), Some(place), "never arrived");
            self.taken = self.taken.wrapping_add(1);
            let parts = u32::from(parts % 4);
            self.link.hold(sequence, parts);
            self.held.extend((0..parts).map(|_| sequence));
            self.link.delivered(sequence);
        }
    }

    fn hand_over(&mut self, which: u8) {
        if !self.held.is_empty() {
            let sequence = self.held.remove(usize::from(which) % self.held.len());
            self.link.hand_over(sequence);
            if !self.held.contains(&sequence) {
                self.link.delivered(sequence);
            }
        }
    }

    fn tell(&mut self) {
        let (consumed, delivered) = self.link.tell();
        assert_eq!(consumed, self.taken);
        let oldest = self.held.iter().min().copied().unwrap_or(self.taken);
        assert_eq!(delivered, oldest, "told of what is still held, or not of what is not");
        while let Some(sequence) = self.link.next_early() {
            assert!(!self.held.contains(&sequence) && sequence < self.taken);
        }
        assert_eq!(self.link.untold(), 0);
        let held: BTreeSet<u32> = self.held.iter().copied().collect();
        assert_eq!(self.link.held(), held.len(), "more is kept than what is held");
    }
}
