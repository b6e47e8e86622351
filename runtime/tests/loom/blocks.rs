//! Blocks lent to the receiver and given back (SYNC POINT C): a block is written again only after its reader has
//! finished. The words are used as by `lend_block` (`channel/send.rs`) and `return_block` (`channel/queue.rs`);
//! the frames that name blocks travel over a real lane.

use crate::explore;
use crate::lane::Lane;
use crate::ring::{Consumer, Producer};
use crate::sync::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

const BLOCKS: usize = 2;

struct Area {
    lane: Arc<Lane<2>>,
    returned: AtomicU64,
    blocks: [UnsafeCell<u64>; BLOCKS],
}

// SAFETY: loom checks every access to the cells.
unsafe impl Sync for Area {}
// SAFETY: as above.
unsafe impl Send for Area {}

impl Area {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lane: Lane::new(),
            returned: AtomicU64::new(0),
            blocks: std::array::from_fn(|_| UnsafeCell::new(0)),
        })
    }

    fn give_back(&self, block: u64) {
        self.returned.fetch_or(1 << block, Ordering::Release);
    }

    fn fill(&self, block: u64, value: u64) {
        // SAFETY: loom checks that nobody else uses the cell.
        self.blocks[block as usize].with_mut(|content| unsafe { *content = value });
    }

    fn check(&self, block: u64, value: u64) {
        // SAFETY: loom checks that nobody writes the cell.
        self.blocks[block as usize].with(|content| assert_eq!(unsafe { *content }, value));
    }
}

/// The sender's own words, as in `LaneSending`.
struct Lender {
    free: u64,
    lent: u64,
}

impl Lender {
    fn lend(&mut self, area: &Area) -> Option<u64> {
        if self.free == 0 {
            let back = area.returned.swap(0, Ordering::Acquire) & self.lent;
            self.lent &= !back;
            self.free |= back;
        }
        let block = (self.free != 0).then(|| u64::from(self.free.trailing_zeros()))?;
        self.free &= !(1 << block);
        self.lent |= 1 << block;
        Some(block)
    }
}

/// Sends the one block `count` times; a frame names the block in its lowest bit and what it holds above.
fn send(area: &Area, count: u64) {
    let mut lender = Lender { free: 1, lent: 0 };
    let mut own = Producer::default();
    for value in 1..=count {
        let block = loop {
            match lender.lend(area) {
                Some(block) => break block,
                None => thread::yield_now(),
            }
        };
        area.fill(block, value);
        while !area.lane.put(&mut own, 1, value << 1 | block) {
            thread::yield_now();
        }
        own.publish(&area.lane.producer);
    }
}

#[test]
fn a_block_is_written_again_after_its_return_only() {
    explore(3, || {
        let area = Area::new();
        let sender = area.clone();
        let sending = thread::spawn(move || send(&sender, 3));
        let mut own = Consumer::default();
        let mut seen = 0;
        while seen < 3 {
            area.lane.take(&mut own, |frame| {
                seen += 1;
                assert_eq!(frame >> 1, seen);
                area.check(frame & 1, seen);
                area.give_back(frame & 1);
            });
            thread::yield_now();
        }
        sending.join().unwrap();
    });
}

/// Two threads of the receiver give blocks back in the same word, each when it has read its own.
#[test]
fn two_readers_return_into_one_word() {
    explore(3, || {
        let area = Area::new();
        let readers: Vec<_> = (0..BLOCKS as u64)
            .map(|block| {
                let area = area.clone();
                thread::spawn(move || {
                    area.check(block, 0);
                    area.give_back(block);
                })
            })
            .collect();
        let mut lender = Lender { free: 0, lent: (1 << BLOCKS) - 1 };
        let mut lent = Vec::new();
        while lent.len() < BLOCKS {
            match lender.lend(&area) {
                Some(block) => {
                    area.fill(block, 1);
                    lent.push(block);
                }
                None => thread::yield_now(),
            }
        }
        assert_ne!(lent[0], lent[1]);
        readers.into_iter().for_each(|reading| reading.join().unwrap());
    });
}
