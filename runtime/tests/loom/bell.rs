//! Sleep and wake (`bell`, `shm/bell_word.rs`, `shm/waiters.rs`): no order of events leaves a sleeper asleep with
//! work to do. loom reports a lost wake-up as a deadlock: the FIFO here blocks as the kernel's poll does.

use crate::bell_word::{self, BellWord};
use crate::explore;
use crate::ring::{Consumer, Producer, ProducerLine};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::waiters::Waiters;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A bell with its FIFO.
struct Bell {
    sleepers: AtomicU32,
    rung: AtomicU32,
    bytes: Mutex<u32>,
    filled: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self {
            sleepers: AtomicU32::new(0),
            rung: AtomicU32::new(0),
            bytes: Mutex::new(0),
            filled: Condvar::new(),
        }
    }

    fn word(&self) -> BellWord<'_> {
        BellWord { sleepers: &self.sleepers, rung: &self.rung }
    }

    fn write(&self) {
        *self.bytes.lock().unwrap() += 1;
        self.filled.notify_all();
    }

    fn empty(&self) {
        *self.bytes.lock().unwrap() = 0;
    }

    /// poll(2) on the FIFO: returns once it is readable.
    fn sleep(&self) {
        let mut bytes = self.bytes.lock().unwrap();
        while *bytes == 0 {
            bytes = self.filled.wait(bytes).unwrap();
        }
    }
}

/// What sleepers and wakers share: a lane per waker, one stream's waiters, a bell per sleeper (numbers from 1).
struct World {
    lanes: [ProducerLine; 2],
    /// Bytes sorted for the stream by another thread.
    queued: AtomicU64,
    waiters: Waiters,
    bells: [Bell; 2],
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lanes: [ProducerLine::default(), ProducerLine::default()],
            queued: AtomicU64::new(0),
            waiters: Waiters::default(),
            bells: [Bell::new(), Bell::new()],
        })
    }

    /// `Channel::send`: publish, fence, look at the waiters.
    fn send(&self, lane: usize, own: &mut Producer) {
        own.advance(8);
        own.publish(&self.lanes[lane]);
        fence(Ordering::SeqCst);
        self.ring_all(lane as u32 + 1);
    }

    /// `bell::ring_all` in process `own`.
    fn ring_all(&self, own: u32) {
        for number in self.waiters.snapshot() {
            let bell = &self.bells[usize::from(number) - 1];
            if bell.word().must_ring(own) {
                bell.write();
            }
        }
    }

    /// `wait::for_bytes` until `done`; `done` is the look for work.
    fn wait(&self, number: u16, done: impl Fn() -> bool) {
        let bell = &self.bells[usize::from(number) - 1];
        while !done() {
            assert!(self.waiters.add(number));
            bell.word().doze();
            let found = done();
            if !found {
                bell.sleep();
            }
            bell_word::wake(core::iter::once(bell.word()), !found, || bell.empty());
            self.waiters.remove(number);
        }
    }

    fn has_frames(&self, lane: usize, taken: u64) -> bool {
        Consumer::published_beyond(&self.lanes[lane], taken)
    }

    /// Waits for `count` frames of `lane`, whether they come in one look or in several.
    fn wait_for_frames(&self, number: u16, lane: usize, count: u64) {
        let mut own = Consumer::default();
        while own.head() < count * 8 {
            self.wait(number, || self.has_frames(lane, own.head()));
            assert_eq!(own.refresh(&self.lanes[lane], 1 << 12), Ok(true));
            let (_, available) = own.next(1 << 12);
            own.advance(available);
        }
    }
}

#[test]
fn one_sleeper_one_waker() {
    explore(5, || {
        let world = World::new();
        let waker = world.clone();
        let waking = thread::spawn(move || waker.send(0, &mut Producer::default()));
        world.wait_for_frames(1, 0, 1);
        waking.join().unwrap();
    });
}

/// A ring that comes late, or twice, does not cost the next one.
#[test]
fn one_sleeper_three_rounds() {
    explore(3, || {
        let world = World::new();
        let waker = world.clone();
        let waking = thread::spawn(move || {
            let mut own = Producer::default();
            (0..3).for_each(|_| waker.send(0, &mut own));
        });
        world.wait_for_frames(1, 0, 3);
        waking.join().unwrap();
    });
}

/// A thread takes the rings of a bell by which another sleeps (epoll): what it does not see rings again.
#[test]
fn rings_taken_for_another_sleeper() {
    explore(4, || {
        let world = World::new();
        assert!(world.waiters.add(1));
        let bell = &world.bells[0];
        bell.word().doze();
        let waker = world.clone();
        let waking = thread::spawn(move || {
            let mut own = Producer::default();
            (0..3).for_each(|_| waker.send(0, &mut own));
        });
        bell.sleep();
        bell_word::take_rings(core::iter::once(bell.word()), true, || bell.empty());
        let mut own = Consumer::default();
        own.refresh(&world.lanes[0], 1 << 12).unwrap();
        let seen_all = own.next(1 << 12).1 == 24;
        waking.join().unwrap();
        assert!(seen_all || *bell.bytes.lock().unwrap() > 0, "the other sleeps on with work to do");
    });
}

/// A process is stopped between deciding to ring and writing; the ring of another comes through.
#[test]
fn a_waker_that_stops_midway() {
    explore(4, || {
        let world = World::new();
        let (stopping, waker) = (world.clone(), world.clone());
        let stopped = thread::spawn(move || {
            for number in stopping.waiters.snapshot() {
                let _ = stopping.bells[usize::from(number) - 1].word().must_ring(2);
            }
        });
        let waking = thread::spawn(move || waker.send(0, &mut Producer::default()));
        world.wait_for_frames(1, 0, 1);
        stopped.join().unwrap();
        waking.join().unwrap();
    });
}

/// The sleeper ends each sleep for its first waker's sake and then needs the second's.
#[test]
fn one_sleeper_two_wakers() {
    explore(3, || {
        let world = World::new();
        let wakers: Vec<_> = (0..2)
            .map(|lane| {
                let waker = world.clone();
                thread::spawn(move || waker.send(lane, &mut Producer::default()))
            })
            .collect();
        world.wait_for_frames(1, 0, 1);
        world.wait_for_frames(1, 1, 1);
        wakers.into_iter().for_each(|waking| waking.join().unwrap());
    });
}

#[test]
fn two_sleepers_one_waker() {
    explore(3, || {
        let world = World::new();
        let (waker, sleeper) = (world.clone(), world.clone());
        let waking = thread::spawn(move || waker.send(0, &mut Producer::default()));
        let sleeping = thread::spawn(move || sleeper.wait_for_frames(2, 0, 1));
        world.wait_for_frames(1, 0, 1);
        waking.join().unwrap();
        sleeping.join().unwrap();
    });
}

/// A thread that sorts a lane for all queues another thread's bytes and wakes it: fence, then the waiters.
#[test]
fn sorting_for_a_sleeper() {
    explore(5, || {
        let world = World::new();
        let sorter = world.clone();
        let sorting = thread::spawn(move || {
            sorter.queued.fetch_add(8, Ordering::Release);
            fence(Ordering::SeqCst);
            sorter.ring_all(1);
        });
        world.wait(1, || world.queued.load(Ordering::Acquire) > 0);
        sorting.join().unwrap();
    });
}

/// Two threads enter and leave one word of waiters; neither takes the other's place away.
#[test]
fn waiters_come_and_go() {
    explore(5, || {
        let world = World::new();
        let other = world.clone();
        let coming = thread::spawn(move || {
            assert!(other.waiters.add(2));
            other.waiters.remove(2);
            assert!(other.waiters.add(2));
        });
        assert!(world.waiters.add(1));
        assert!(world.waiters.snapshot().any(|bell| bell == 1));
        world.waiters.remove(1);
        coming.join().unwrap();
        assert_eq!(world.waiters.snapshot().collect::<Vec<_>>(), [2]);
    });
}
