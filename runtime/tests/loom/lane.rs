//! The cursors of a lane (`shm/ring.rs`): what is published is seen whole (SYNC POINT A), and is not written over
//! before it is given back (SYNC POINT B). loom reports a cell that is read and written without an order.

use crate::explore;
use crate::ring::{Consumer, ConsumerLine, Producer, ProducerLine};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// A frame's first word: its length in words in the upper half, what it says in the lower.
const PAD: u64 = 0xffff;

/// A ring of `N` words.
pub struct Lane<const N: usize> {
    pub producer: ProducerLine,
    pub consumer: ConsumerLine,
    words: [UnsafeCell<u64>; N],
}

// SAFETY: loom checks every access to the cells.
unsafe impl<const N: usize> Sync for Lane<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Send for Lane<N> {}

impl<const N: usize> Lane<N> {
    const CAPACITY: u64 = N as u64 * 8;

    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            producer: ProducerLine::default(),
            consumer: ConsumerLine::default(),
            words: std::array::from_fn(|_| UnsafeCell::new(0)),
        })
    }

    fn write(&self, offset: usize, value: u64) {
        // SAFETY: loom checks that nobody else uses the cell.
        self.words[offset / 8].with_mut(|word| unsafe { *word = value });
    }

    fn read(&self, offset: usize) -> u64 {
        // SAFETY: loom checks that nobody writes the cell.
        self.words[offset / 8].with(|word| unsafe { *word })
    }

    /// Writes a frame of `length` words that all say `value`; false without room. As `reserve` in `channel/send.rs`.
    pub fn put(&self, own: &mut Producer, length: u64, value: u64) -> bool {
        let span = length * 8;
        let to_end = Self::CAPACITY - own.offset(Self::CAPACITY) as u64;
        let needed = if to_end < span { to_end + span } else { span };
        if !own.room(&self.consumer, Self::CAPACITY, needed).unwrap() {
            return false;
        }
        if to_end < span {
            self.write(own.offset(Self::CAPACITY), (to_end / 8) << 32 | PAD);
            own.advance(to_end);
        }
        let offset = own.offset(Self::CAPACITY);
        (0..length as usize).for_each(|word| self.write(offset + word * 8, length << 32 | value));
        own.advance(span);
        true
    }

    /// Takes the frames that are published. As `drain` in `channel/receive.rs`.
    pub fn take(&self, own: &mut Consumer, mut frame: impl FnMut(u64)) {
        if !own.refresh(&self.producer, Self::CAPACITY).unwrap() {
            return;
        }
        loop {
            let (offset, available) = own.next(Self::CAPACITY);
            if available == 0 {
                break;
            }
            let word = self.read(offset);
            let (length, value) = (word >> 32, word & 0xffff);
            assert!(length > 0 && length * 8 <= available, "a frame lies within what is published");
            if value != PAD {
                (1..length as usize).for_each(|step| assert_eq!(self.read(offset + step * 8), word));
                frame(value);
            }
            own.advance(length * 8);
        }
        own.release(&self.consumer);
    }
}

fn transfers<const N: usize>(preemptions: usize, batches: &'static [&'static [u64]]) {
    explore(preemptions, move || {
        let lane = Lane::<N>::new();
        let sender = lane.clone();
        let sending = thread::spawn(move || {
            let mut own = Producer::default();
            let mut value = 0;
            for batch in batches {
                for &length in *batch {
                    value += 1;
                    while !sender.put(&mut own, length, value) {
                        own.publish(&sender.producer);
                        thread::yield_now();
                    }
                }
                own.publish(&sender.producer);
            }
        });
        let total: usize = batches.iter().map(|batch| batch.len()).sum();
        let mut own = Consumer::default();
        let mut seen = 0;
        while seen < total as u64 {
            let before = seen;
            lane.take(&mut own, |value| {
                seen += 1;
                assert_eq!(value, seen, "frames come in order, each once");
            });
            if seen == before {
                thread::yield_now();
            }
        }
        assert!(!Consumer::published_beyond(&lane.producer, own.head()));
        sending.join().unwrap();
    });
}

#[test]
fn frames_one_by_one_through_a_ring_of_two() {
    transfers::<2>(2, &[&[1], &[1], &[1], &[1]]);
}

#[test]
fn a_frame_that_fills_the_ring() {
    transfers::<2>(2, &[&[2], &[2], &[2]]);
}

#[test]
fn batches_and_pads() {
    transfers::<4>(2, &[&[1, 2], &[2, 1], &[3]]);
}

/// Whoever sees more than what was taken without the lock finds it with the lock.
#[test]
fn a_look_without_the_lock_promises_frames() {
    explore(3, || {
        let lane = Lane::<2>::new();
        let sender = lane.clone();
        let sending = thread::spawn(move || {
            let mut own = Producer::default();
            assert!(sender.put(&mut own, 1, 7));
            own.publish(&sender.producer);
        });
        if Consumer::published_beyond(&lane.producer, 0) {
            let mut value = 0;
            lane.take(&mut Consumer::default(), |frame| value = frame);
            assert_eq!(value, 7);
        }
        sending.join().unwrap();
    });
}

/// A producer that holds its frames and dies: they are found whole, and nothing seems to be left afterwards.
#[test]
fn what_a_dead_producer_held_is_revealed() {
    explore(3, || {
        let lane = Lane::<4>::new();
        let sender = lane.clone();
        let sending = thread::spawn(move || {
            let mut own = Producer::default();
            assert!(sender.put(&mut own, 1, 1));
            own.publish(&sender.producer);
            assert!(sender.put(&mut own, 2, 2));
            own.note(&sender.producer);
        });
        let mut own = Consumer::default();
        let mut seen = 0;
        lane.take(&mut own, |value| seen = value);
        let revealed = own.reveal(&lane.producer, Lane::<4>::CAPACITY).unwrap();
        lane.take(&mut own, |value| seen = value);
        if revealed {
            assert_eq!(seen, 2);
            assert!(!Consumer::published_beyond(&lane.producer, own.head()));
        }
        sending.join().unwrap();
    });
}
