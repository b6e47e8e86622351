//! One direction against an oracle with two byte queues: every byte arrives once and in order, whatever
//! the two ends see late, and nothing stalls.

use std::collections::VecDeque;

use convoy_aggregator::credit::CreditError;
use convoy_aggregator::path::{Path, PathError};
use convoy_aggregator::stream::{Announcement, ReceiveHalf, SendHalf, StreamError};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Switch(Path),
    /// The sender sees a later count of switches passed, this many publications on.
    SeePassed(usize),
    /// The sender sees a later limit.
    SeeLimit(usize),
    /// Bytes of the channel reach the receiver.
    Arrive(usize),
    /// The receiver learns how many bytes the kernel holds.
    Measure,
    /// The receiver sees a later announcement.
    Look(usize),
    Read(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..60).prop_map(Step::Send),
        3 => prop_oneof![Just(Path::Kernel), Just(Path::Channel)].prop_map(Step::Switch),
        2 => (0usize..4).prop_map(Step::SeePassed),
        2 => (0usize..4).prop_map(Step::SeeLimit),
        2 => (0usize..80).prop_map(Step::Arrive),
        3 => Just(Step::Measure),
        3 => (0usize..4).prop_map(Step::Look),
        5 => (0u64..60).prop_map(Step::Read),
    ];
    vec(step, 0..300)
}

/// A word in shared memory: its writer publishes, its reader sees some value not older than the last seen.
struct Published<T> {
    values: Vec<T>,
    seen: usize,
}

impl<T: Copy> Published<T> {
    fn new(value: T) -> Self {
        Self { values: vec![value], seen: 0 }
    }

    fn publish(&mut self, value: T) {
        self.values.push(value);
    }

    fn newest(&self) -> usize {
        self.values.len() - 1
    }

    fn see(&mut self, steps: usize) {
        self.seen = self.newest().min(self.seen.saturating_add(steps));
    }

    fn value(&self) -> T {
        self.values[self.seen]
    }
}

fn byte(position: u64) -> u8 {
    (position % 251) as u8
}

struct Model {
    sender: SendHalf,
    receiver: ReceiveHalf,
    kernel: VecDeque<u8>,
    ring: VecDeque<u8>,
    arrived: VecDeque<u8>,
    announcement: Published<Announcement>,
    /// The announcement published last before the newest byte in the kernel.
    before_kernel_byte: usize,
    passed: Published<u32>,
    limit: Published<u64>,
    /// Bytes that the kernel held when the receiver last asked.
    measured: u64,
    /// Whether the receiver has looked at the announcement since.
    looked: bool,
    sent: u64,
    read: u64,
}

impl Model {
    fn new(window: u64) -> Self {
        let mut receiver = ReceiveHalf::new(window);
        let mut limit = Published::new(0);
        limit.publish(receiver.grant_now());
        Self {
            sender: SendHalf::default(),
            receiver,
            kernel: VecDeque::new(),
            ring: VecDeque::new(),
            arrived: VecDeque::new(),
            announcement: Published::new(Announcement::default()),
            before_kernel_byte: 0,
            passed: Published::new(0),
            limit,
            measured: 0,
            looked: false,
            sent: 0,
            read: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Send(n) => self.send(n)?,
            Step::Switch(to) => self.switch(to)?,
            Step::SeePassed(steps) => self.passed.see(steps),
            Step::SeeLimit(steps) => {
                self.limit.see(steps);
                self.sender.grant(self.limit.value())?;
            }
            Step::Arrive(n) => {
                let n = n.min(self.ring.len());
                self.arrived.extend(self.ring.drain(..n));
                self.receiver.on_arrived(n as u64)?;
            }
            Step::Measure => self.measure(),
            Step::Look(steps) => {
                self.announcement.see(steps);
                self.looked = true;
            }
            Step::Read(n) => {
                self.read(n)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, n: u64) -> Result<(), TestCaseError> {
        let n = n.min(self.sender.allowance());
        let bytes = (self.sent..self.sent + n).map(byte);
        match self.sender.path() {
            Path::Kernel => {
                self.kernel.extend(bytes);
                self.before_kernel_byte = self.announcement.newest();
            }
            Path::Channel => self.ring.extend(bytes),
        }
        self.sender.on_sent(n)?;
        self.sent += n;
        Ok(())
    }

    fn switch(&mut self, to: Path) -> Result<(), TestCaseError> {
        match self.sender.switch(to, self.passed.value()) {
            Ok(announcement) => self.announcement.publish(announcement),
            Err(StreamError::Path(PathError::Already)) => prop_assert_eq!(self.sender.path(), to),
            Err(error) => {
                prop_assert_eq!(error, StreamError::Path(PathError::TooEarly));
                prop_assert_eq!(to, Path::Channel, "the way back to the kernel is always open");
            }
        }
        Ok(())
    }

    /// Whoever has seen bytes sees the announcements that were published before them.
    fn measure(&mut self) {
        self.measured = self.kernel.len() as u64;
        self.announcement.seen = self.announcement.seen.max(self.before_kernel_byte);
        self.looked = false;
    }

    fn read(&mut self, n: u64) -> Result<u64, TestCaseError> {
        if !self.looked {
            return Ok(0);
        }
        let announcement = self.announcement.value();
        let source = self.receiver.source(&announcement)?;
        self.passed.publish(self.receiver.passed());
        let arrived = self.arrived.len() as u64;
        let (queue, there) = match source.path {
            Path::Kernel => (&mut self.kernel, self.measured),
            Path::Channel => (&mut self.arrived, arrived),
        };
        let n = n.min(source.limit).min(there);
        for got in queue.drain(..n as usize) {
            prop_assert_eq!(got, byte(self.read));
            self.read += 1;
        }
        if source.path == Path::Kernel {
            self.measured -= n;
        }
        if let Some(limit) = self.receiver.on_read(n, &announcement)? {
            self.limit.publish(limit);
        }
        Ok(n)
    }

    /// Both ends see everything and the receiver reads as long as anything comes.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let all = usize::MAX;
        loop {
            self.step(&Step::Arrive(all))?;
            self.step(&Step::Measure)?;
            self.step(&Step::Look(all))?;
            let before = self.receiver.passed();
            let got = self.read(u64::MAX)?;
            if got == 0 && self.receiver.passed() == before {
                break;
            }
        }
        self.step(&Step::SeePassed(all))?;
        self.step(&Step::SeeLimit(all))?;
        prop_assert_eq!(self.read, self.sent);
        prop_assert_eq!(self.sender.counts(), self.receiver.counts());
        prop_assert_eq!(self.receiver.passed(), self.sender.announcement().announced);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_byte_arrives_once_in_order_and_nothing_stalls(window in 1u64..200, steps in steps()) {
        let mut model = Model::new(window);
        for step in &steps {
            model.step(step)?;
        }
        model.settle()?;
        for to in [Path::Channel, Path::Kernel, Path::Channel] {
            let sent = model.sent;
            model.switch(to)?;
            prop_assert_eq!(model.sender.path(), to);
            model.send(10)?;
            prop_assert!(model.sent > sent, "a settled stream can send on either path");
            model.settle()?;
        }
    }

    #[test]
    fn no_lies_make_a_receiver_panic(
        window: u64,
        lies in vec((0u32..8, any::<[u16; 2]>(), any::<u32>(), 0u64..70_000), 0..60),
    ) {
        let mut receiver = ReceiveHalf::new(window);
        for (announced, positions, wild, n) in lies {
            let announced = if n % 7 == 0 { wild } else { announced };
            let lie = Announcement { positions: positions.map(u64::from), announced };
            receiver.grant_now();
            let _ = receiver.on_arrived(n);
            let limit = receiver.source(&lie).map(|source| source.limit);
            let before = receiver;
            match receiver.on_read(n, &lie) {
                Ok(_) => prop_assert!(limit.is_ok_and(|limit| n <= limit)),
                Err(_) => prop_assert_eq!(receiver, before),
            }
        }
    }

    #[test]
    fn no_lies_make_a_sender_panic(
        lies in vec((any::<bool>(), 0u32..8, any::<u32>(), any::<u64>()), 0..60),
    ) {
        let mut sender = SendHalf::default();
        for (up, passed, wild, n) in lies {
            let _ = sender.grant(if n % 3 == 0 { n } else { n % 100_000 });
            let _ = sender.on_sent(n % 1_000);
            let before = sender;
            let to = if up { Path::Channel } else { Path::Kernel };
            let passed = if n % 7 == 0 { wild } else { passed };
            if sender.switch(to, passed).is_err() {
                prop_assert_eq!(sender, before);
            }
        }
    }
}

#[test]
fn a_read_past_a_switch_that_was_not_looked_at_is_caught() -> Result<(), StreamError> {
    let mut sender = SendHalf::default();
    let mut receiver = ReceiveHalf::new(100);
    let early = sender.announcement();
    sender.on_sent(10)?;
    sender.switch(Path::Channel, 0)?;
    sender.switch(Path::Kernel, 0)?;
    sender.on_sent(5)?;
    receiver.on_read(15, &early)?;
    let lie = StreamError::Path(PathError::Lie);
    assert_eq!(receiver.source(&sender.announcement()), Err(lie));
    Ok(())
}

#[test]
fn reading_or_sending_beyond_what_is_there_is_refused() -> Result<(), StreamError> {
    let mut sender = SendHalf::default();
    let mut receiver = ReceiveHalf::new(8);
    let limit = receiver.grant_now();
    sender.on_sent(3)?;
    let up = sender.switch(Path::Channel, 0)?;
    assert_eq!(receiver.on_read(4, &up), Err(StreamError::Beyond));
    receiver.on_read(3, &up)?;
    assert_eq!(receiver.source(&up)?.path, Path::Channel);
    assert_eq!(receiver.on_read(1, &up), Err(StreamError::Beyond));
    sender.grant(limit)?;
    sender.on_sent(8)?;
    assert_eq!(sender.on_sent(1), Err(CreditError::Overdrawn.into()));
    receiver.on_arrived(8)?;
    assert_eq!(receiver.on_arrived(1), Err(CreditError::Exceeded.into()));
    assert_eq!(receiver.on_read(8, &up), Ok(Some(16)));
    Ok(())
}
