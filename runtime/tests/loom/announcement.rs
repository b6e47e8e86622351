//! Path switches: the sender stores the position, announces it, and sends on the new path; the receiver reads every
//! byte once and in order. The words of a stream's two lines are used as in `switch_to_channel`,
//! `switch_to_kernel` (`channel/send.rs`) and `path_limit` (`channel/receive.rs`).

use crate::explore;
use crate::sync::{AtomicU32, Ordering};
use convoy_aggregator::path::{Path, ReceivePath, SendPath};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::collections::VecDeque;

/// Both ends' words and the two paths. The queues are loom's mutexes: the kernel's socket buffer orders what goes
/// through it, and of the channel the lane's own model is in `lane`.
struct Stream {
    announced: AtomicU32,
    passed: AtomicU32,
    /// Plain here, so that loom reports a place that is written while it may be read.
    position: [UnsafeCell<u64>; 2],
    kernel: Mutex<VecDeque<u32>>,
    channel: Mutex<VecDeque<u32>>,
}

// SAFETY: loom checks every access to the cells.
unsafe impl Sync for Stream {}
// SAFETY: as above.
unsafe impl Send for Stream {}

impl Stream {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            announced: AtomicU32::new(0),
            passed: AtomicU32::new(0),
            position: [UnsafeCell::new(0), UnsafeCell::new(0)],
            kernel: Mutex::new(VecDeque::new()),
            channel: Mutex::new(VecDeque::new()),
        })
    }

    fn queue(&self, path: Path) -> &Mutex<VecDeque<u32>> {
        match path {
            Path::Kernel => &self.kernel,
            Path::Channel => &self.channel,
        }
    }
}

#[derive(Default)]
struct Sender {
    path: SendPath,
    /// Bytes sent so far on the kernel and on the channel.
    sent: [u64; 2],
    next: u32,
}

impl Sender {
    fn send(&mut self, stream: &Stream) {
        self.next += 1;
        self.sent[self.path.path() as usize] += 1;
        stream.queue(self.path.path()).lock().unwrap().push_back(self.next);
    }

    fn switch(&mut self, stream: &Stream) {
        let old = self.path.path();
        let number = loop {
            let passed = stream.passed.load(Ordering::Acquire);
            let switched = match old {
                Path::Kernel => self.path.to_channel(passed),
                Path::Channel => self.path.to_kernel(passed),
            };
            match switched {
                Ok(number) => break number,
                Err(_) => thread::yield_now(),
            }
        };
        let sent = self.sent[old as usize];
        // SAFETY: loom checks that nobody else uses the cell.
        stream.position[number as usize & 1].with_mut(|position| unsafe { *position = sent });
        stream.announced.store(number, Ordering::Release);
    }
}

#[derive(Default)]
struct Receiver {
    path: ReceivePath,
    consumed: [u64; 2],
    seen: u32,
}

impl Receiver {
    /// One read: how much the kernel has, then the path, then at most so much.
    fn read(&mut self, stream: &Stream) {
        let queued = stream.kernel.lock().unwrap().len() as u64;
        let (path, limit) = self.path_limit(stream);
        let most = if path == Path::Kernel { limit.min(queued) } else { limit };
        for _ in 0..most.min(8) {
            let Some(byte) = stream.queue(path).lock().unwrap().pop_front() else { break };
            self.seen += 1;
            self.consumed[path as usize] += 1;
            assert_eq!(byte, self.seen, "bytes come in order, each once");
        }
    }

    fn path_limit(&mut self, stream: &Stream) -> (Path, u64) {
        loop {
            let announced = stream.announced.load(Ordering::Acquire);
            let path = self.path.path();
            let Some(number) = self.path.pending(announced).unwrap() else {
                return (path, u64::MAX);
            };
            // SAFETY: loom checks that nobody writes the cell.
            let position = stream.position[number as usize & 1].with(|position| unsafe { *position });
            let consumed = self.consumed[path as usize];
            assert!(position >= consumed, "no byte was read beyond the switch");
            if position > consumed {
                return (path, position - consumed);
            }
            self.path.pass(announced).unwrap();
            stream.passed.store(self.path.passed(), Ordering::Release);
        }
    }
}

fn switches(steps: &'static str) {
    explore(4, move || {
        let stream = Stream::new();
        let sender = stream.clone();
        let sending = thread::spawn(move || {
            let mut own = Sender::default();
            for step in steps.chars() {
                match step {
                    'b' => own.send(&sender),
                    _ => own.switch(&sender),
                }
            }
        });
        let total = steps.matches('b').count() as u32;
        let mut own = Receiver::default();
        while own.seen < total {
            let before = own.seen;
            own.read(&stream);
            if own.seen == before {
                thread::yield_now();
            }
        }
        while own.path.passed() < steps.matches('/').count() as u32 {
            own.path_limit(&stream);
            thread::yield_now();
        }
        sending.join().unwrap();
    });
}

#[test]
fn promotion() {
    switches("b/b");
}

#[test]
fn promotion_and_back() {
    switches("b/b/b");
}

/// The third switch writes the first one's place again: only once the first was passed.
#[test]
fn back_and_forth() {
    switches("/b/b/b");
}
