//! Both ends of a channel in one process, over real memory and real connections: what is sent is what arrives.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::pair::{GEOMETRY, Pair};
use super::queue::Mode;
use super::receive::Received;
use super::send::Sent;
use super::*;
use crate::agent::failover;
use crate::iov::{Cursor, single};
use crate::shm::frames::write_header;
use crate::shm::party::Recovery;
use crate::shm::ring::Producer;
use convoy_aggregator::wire::{BlockRef, Header, Kind};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const WATCHDOG: Duration = Duration::from_secs(60);

/// A stream and the connection under it.
struct Stream {
    stream: pair::Stream,
    _sockets: [TcpStream; 2],
}

impl Stream {
    fn open(pair: &Pair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let stream = pair.open([connected.as_raw_fd(), accepted.as_raw_fd()]).unwrap();
        Self { stream, _sockets: [connected, accepted] }
    }

    /// Sends on one side what there is room for; how many bytes that were.
    fn send(&self, side: usize, bytes: &[u8]) -> usize {
        match self.stream.send(side, bytes).unwrap() {
            Sent::Bytes(sent) => sent,
            Sent::NoRoom => 0,
            other => panic!("a fresh stream goes over the channel: {other:?}"),
        }
    }

    fn receive(&self, side: usize, target: &mut [u8], mode: Mode) -> usize {
        match self.stream.receive(side, target, mode).unwrap() {
            Received::Bytes(bytes) => bytes,
            // Before the first byte the switch may not have been announced.
            Received::Empty | Received::Kernel(_) => 0,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stream.close();
    }
}

/// The byte at a position of a stream: no two streams and no two near positions look alike.
fn byte(stream: usize, position: usize) -> u8 {
    let mixed = (position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ stream as u64);
    (mixed >> 56) as u8
}

fn pattern(stream: usize, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|position| byte(stream, position)).collect()
}

/// Writes of one thread: which stream, how many bytes.
type Writes = Vec<(usize, usize)>;

fn send_all(streams: &[Stream], writes: &Writes, over: Instant) {
    let mut sent = vec![0; streams.len()];
    for &(stream, length) in writes {
        let bytes = pattern(stream, sent[stream], length);
        let mut done = 0;
        while done < length {
            let more = streams[stream].send(0, &bytes[done..]);
            if more == 0 {
                assert!(Instant::now() < over, "stream {stream} stuck at {}", sent[stream] + done);
                std::thread::yield_now();
            }
            done += more;
        }
        sent[stream] += length;
    }
}

/// Reads all streams in turn in pieces of the given sizes, some of them peeked at first.
fn receive_all(streams: &[Stream], totals: &[usize], reads: &[usize], over: Instant) {
    let mut received = vec![0; streams.len()];
    let mut sizes = reads.iter().cycle();
    let mut buffer = vec![0; *reads.iter().max().unwrap()];
    while received != totals {
        for (index, stream) in streams.iter().enumerate() {
            let size = *sizes.next().unwrap();
            let peeked =
                if size.is_multiple_of(3) { stream.receive(1, &mut buffer[..size], Mode::Peek) } else { 0 };
            assert_eq!(buffer[..peeked], pattern(index, received[index], peeked), "peeked, stream {index}");
            let taken = stream.receive(1, &mut buffer[..size], Mode::Take);
            assert!(taken >= peeked);
            assert_eq!(buffer[..taken], pattern(index, received[index], taken), "stream {index}");
            received[index] += taken;
        }
        assert!(Instant::now() < over, "{received:?} of {totals:?}");
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two threads, four streams, one lane that is far too small.
    #[test]
    fn bytes_arrive_as_they_were_sent(
        writes in prop::collection::vec((0..4usize, prop_oneof![1..64usize, 1..3000usize, 4000..60_000usize]), 1..120),
        reads in prop::collection::vec(prop_oneof![1..40usize, 1..5000usize, Just(65_536)], 1..16),
    ) {
        static PAIR: std::sync::OnceLock<Pair> = std::sync::OnceLock::new();
        let pair = PAIR.get_or_init(Pair::new);
        let streams: Vec<Stream> = (0..4).map(|_| Stream::open(pair)).collect();
        let totals: Vec<usize> = (0..4)
            .map(|stream| writes.iter().filter(|write| write.0 == stream).map(|write| write.1).sum())
            .collect();
        let over = Instant::now() + WATCHDOG;
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(&streams, &writes, over));
            receive_all(&streams, &totals, &reads, over);
        });
        for stream in &streams {
            prop_assert_eq!(stream.receive(1, &mut [0; 64], Mode::Take), 0, "nothing is left");
        }
        prop_assert!(pair.ends.iter().all(|end| end.usable()));
        prop_assert_eq!([0, 1].map(|side| pair.queued(side)), [0; 2]);
    }

    /// The queue of a stream against a plain one.
    #[test]
    fn a_queue_gives_what_was_put_in(
        steps in prop::collection::vec((0..5u8, prop_oneof![0..80usize, 0..7000usize]), 1..200),
    ) {
        static PAIR: std::sync::OnceLock<Pair> = std::sync::OnceLock::new();
        let end = PAIR.get_or_init(Pair::new).ends[1];
        let guard = end.lock_receiving().unwrap();
        let mut model = Model::new(end, &guard);
        for (position, (kind, length)) in steps.into_iter().enumerate() {
            match kind {
                0 => model.put(&pattern(position, 0, length)),
                1 => model.put_block(&pattern(position, 0, length.clamp(1, 4096))),
                2 => model.read(length, Mode::Take),
                3 => model.read(length, Mode::Peek),
                _ => model.read(length, Mode::Discard),
            }
            prop_assert_eq!(end.queued_bytes(SLOT), model.oracle.len() as u64);
        }
        model.end();
    }
}

/// A few bytes, so that the stream is on the channel.
fn begin(stream: &Stream) {
    assert_eq!(stream.send(0, b"one"), 3);
    assert_eq!(stream.receive(1, &mut [0; 8], Mode::Take), 3);
}

#[test]
fn a_recall_that_does_not_end_ends_the_channel() {
    let pair = Pair::new();
    let stream = Stream::open(&pair);
    begin(&stream);
    stream.stream.line(1).set_state(stream.stream.generation, SlotState::WantsKernel);
    assert_eq!(stream.stream.obey_recall(0, 20_000_000), Err(Trouble::Broken));
    assert!(!pair.ends[0].usable() && pair.ends[1].usable());
    end_all(pair, stream);
}

#[test]
fn a_receiver_that_has_passed_impossible_switches_ends_the_channel() {
    let pair = Pair::new();
    let stream = Stream::open(&pair);
    begin(&stream);
    stream.stream.line(1).passed.store(77, Ordering::Release);
    stream.stream.spill(0);
    assert!(!pair.ends[0].usable(), "the sender waits for room for ever");
    end_all(pair, stream);
}

/// Whatever slot the registry names: a stream has the ends of one connection.
#[test]
fn an_end_joins_the_stream_of_its_own_connection_only() {
    let pair = Pair::new();
    let [opens, joins] = pair.ends;
    let streams = [7, 8].map(|mark| (mark, opens.open_slot(mark).unwrap()));
    let [(own, (slot, generation)), (other, (other_slot, _))] = streams;
    assert!(!joins.open_end(slot, generation, Some(other)), "another connection's");
    assert!(!joins.open_end(other_slot, generation, Some(own)), "another slot");
    assert!(!joins.open_end(slot, generation + 1, Some(own)), "a later stream's");
    assert!(!joins.open_end(other_slot + 1, 0, Some(0)), "one that nobody has opened");
    assert!(joins.open_end(slot, generation, Some(own)));
    opens.close_end(other_slot, 1);
    assert!(!joins.open_end(other_slot, 1, Some(other)), "one that was closed");
    joins.close_end(slot, generation);
    opens.close_end(slot, generation);
    // SAFETY: no stream is open, and the ends are this function's.
    unsafe { pair.end() };
}

/// An agent resets the lines of a slot whose stream has ended, for the next one.
#[test]
fn late_calls_on_a_slot_that_was_reset_end_nothing() {
    let pair = Pair::new();
    let ended = core::mem::ManuallyDrop::new(Stream::open(&pair));
    begin(&ended);
    ended.stream.close();
    (0..2).for_each(|side| ended.stream.line(side).reset());
    late_calls(&pair, ended.stream.slot, ended.stream.generation);
}

#[test]
fn late_calls_leave_the_next_stream_of_a_slot_alone() {
    let pair = Pair::new();
    let ended = Stream::open(&pair);
    begin(&ended);
    let (slot, generation) = (ended.stream.slot, ended.stream.generation);
    drop(ended);
    let next = Stream::open(&pair);
    assert_eq!(next.stream.slot, slot);
    begin(&next);
    late_calls(&pair, slot, generation);
    let state = next.stream.line(0).is_open(next.stream.generation);
    assert!(state && next.send(0, b"two") == 3, "it is on the channel");
    end_all(pair, next);
}

/// What threads do that have found a stream which others have closed since.
fn late_calls(pair: &Pair, slot: u32, generation: u8) {
    for end in pair.ends {
        // Without the lock it may be the next one's path, which is not followed.
        let _ = end.receive_path(slot, generation, -1);
        assert_eq!(end.begin_kernel_send(slot, generation, -1), Err(Trouble::Closed));
        assert_eq!(end.readable(slot, generation, -1), 0);
        assert!(!end.send_through_kernel(slot, generation));
        end.spill(slot, generation);
        end.settle_before_shutdown(slot, generation);
        assert!(!end.end_return(slot, generation, Recovery::Done));
        assert!(end.usable());
    }
}

/// The other end goes by what it was told when the stream began to return, and an agent that is late would tell it of more.
#[test]
fn a_stream_that_returns_announces_no_switch() {
    let pair = Pair::with(|end| end.way = Some(Way::new(-1)));
    let stream = Stream::open(&pair);
    begin(&stream);
    let (end, slot, generation) = (pair.ends[0], stream.stream.slot, stream.stream.generation);
    assert!(end.party.stream(slot).begin_recovery(Recovery::None));
    let (record, _) = end.stop_sending(slot, generation, 0).unwrap();
    assert_eq!(record.announced, 1, "it is on the channel");
    stream.stream.spill(0);
    assert!(!end.send_through_kernel(slot, generation));
    assert_eq!(end.own_line(slot).announced.load(Ordering::Relaxed), 1);
    assert_eq!(stream.stream.send(0, b"more"), Ok(Sent::Busy));
    end_all(pair, stream);
}

/// What is unread then stands before the end, as in the kernel.
#[test]
fn the_end_of_a_stream_that_has_returned_is_told_beside_unread_bytes() {
    let pair = Pair::with(|end| end.way = Some(Way::new(-1)));
    let stream = Stream::open(&pair);
    begin(&stream);
    assert_eq!(stream.stream.send(0, b"bytes"), Ok(Sent::Bytes(5)));
    let (end, slot, generation) = (pair.ends[1], stream.stream.slot, stream.stream.generation);
    end.sort().unwrap();
    assert!(end.has_bytes(slot) && !end.may_tell_end(slot, generation), "the agent has not told of an end");
    assert!(end.party.stream(slot).begin_recovery(Recovery::None));
    assert!(!end.may_tell_end(slot, generation), "more may come");
    for outcome in [Recovery::Done, Recovery::Failed, Recovery::Quiet] {
        end.party.stream(slot).end_recovery(outcome);
        assert!(end.may_tell_end(slot, generation) && !end.may_end(slot, generation), "{outcome:?}");
    }
    end_all(pair, stream);
}

/// Whoever joins it looks for a loss afterwards, and must be able to begin its return.
#[test]
fn a_loss_leaves_a_stream_alone_that_is_only_being_joined() {
    let pair = Pair::with(|end| end.way = Some(Way::new(-1)));
    let stream = Stream::open(&pair);
    failover::note(pair.ends[0], stream.stream.slot);
    assert_eq!(pair.ends[0].recovery(stream.stream.slot), Recovery::None);
    end_all(pair, stream);
}

/// A read that would find nothing is told so without the lock, which must not hide a lie.
#[test]
fn a_cursor_that_goes_back_ends_the_channel() {
    let pair = Pair::new();
    let stream = Stream::open(&pair);
    begin(&stream);
    assert_eq!(stream.stream.receive(1, &mut [0; 8], Mode::Take), Ok(Received::Empty));
    Producer::default().publish(&pair.ends[0].outgoing().producer);
    assert_eq!(stream.stream.receive(1, &mut [0; 8], Mode::Take), Err(Trouble::Broken));
    end_all(pair, stream);
}

/// A frame of no bytes costs its sender no credit, and each one that names a block would take a chunk of the queue.
#[test]
fn a_block_is_in_one_queue_at_a_time() {
    let pair = Pair::new();
    let stream = Stream::open(&pair);
    begin(&stream);
    let (end, slot) = (pair.ends[0], stream.stream.slot);
    let guard = end.lock_sending().unwrap();
    for _ in 0..8 {
        let ring = &mut guard.lane().ring;
        let target = end.segment.reserve(end.side, ring, 8).unwrap().unwrap();
        let header = Header { kind: Kind::Block, generation: stream.stream.generation, slot, length: 8 };
        // SAFETY: room in the ring for a header and a word.
        unsafe {
            write_header(target, header);
            target.add(8).cast::<u64>().write(BlockRef { block: 1, length: 0 }.to_word());
        }
        ring.advance(16);
    }
    guard.lane().ring.publish(&end.outgoing().producer);
    drop(guard);
    assert!(pair.ends[1].sort().is_ok());
    assert!(!pair.ends[1].usable(), "eight chunks for nothing");
    end_all(pair, stream);
}

fn end_all(pair: Pair, stream: Stream) {
    drop(stream);
    // SAFETY: the only stream is closed, and nobody else knows the pair.
    unsafe { pair.end() };
}

const SLOT: u32 = 0;

/// A queue, and what should be in it.
struct Model<'a> {
    end: &'static Channel,
    guard: &'a receive::Guard<'static>,
    oracle: VecDeque<u8>,
    /// Blocks of the peer that the queue refers to.
    lent: u64,
}

impl<'a> Model<'a> {
    fn new(end: &'static Channel, guard: &'a receive::Guard<'static>) -> Self {
        let stream = guard.stream(SLOT);
        (stream.first, stream.last, stream.window) = (NONE, NONE, 0);
        end.party.stream(SLOT).queued.store(0, Ordering::Relaxed);
        end.incoming().returned[0].store(0, Ordering::Relaxed);
        Self { end, guard, oracle: VecDeque::new(), lent: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let (lane, stream) = (self.guard.lane(), self.guard.stream(SLOT));
        // SAFETY: the bytes are readable, the lock is held.
        assert!(unsafe { self.end.enqueue_bytes(SLOT, lane, stream, bytes.as_ptr(), bytes.len()) });
        self.oracle.extend(bytes);
    }

    fn put_block(&mut self, bytes: &[u8]) {
        self.lent &= !self.end.incoming().returned[0].swap(0, Ordering::Acquire);
        let block = (!self.lent).trailing_zeros();
        if block >= GEOMETRY.blocks {
            return;
        }
        self.lent |= 1 << block;
        // SAFETY: the block is free and as large as the longest piece.
        unsafe {
            let target = self.end.segment.block(self.end.side ^ 1, block);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        let (lane, stream) = (self.guard.lane(), self.guard.stream(SLOT));
        let from = bytes.len() / 3;
        assert!(self.end.enqueue_block(SLOT, lane, stream, block, from as u32..bytes.len() as u32));
        self.oracle.extend(&bytes[from..]);
    }

    fn read(&mut self, length: usize, mode: Mode) {
        let mut target = vec![0; length.max(1)];
        let part = single(target.as_mut_ptr(), length);
        // SAFETY: the part lives as long as the cursor.
        let mut cursor = unsafe { Cursor::new(&part, 1, true) }.unwrap();
        let (lane, stream) = (self.guard.lane(), self.guard.stream(SLOT));
        let limit = if length.is_multiple_of(2) { u64::MAX } else { length as u64 / 2 };
        let expected = self.oracle.len().min(length).min(limit.min(usize::MAX as u64) as usize);
        assert_eq!(self.end.dequeue(SLOT, lane, stream, &mut cursor, limit, mode), expected);
        if mode != Mode::Discard {
            assert!(self.oracle.iter().take(expected).eq(&target[..expected]));
        }
        if mode != Mode::Peek {
            self.oracle.drain(..expected);
        }
    }

    fn end(mut self) {
        self.read(1 << 20, Mode::Take);
        assert!(self.oracle.is_empty());
        self.lent &= !self.end.incoming().returned[0].swap(0, Ordering::Acquire);
        assert_eq!(self.lent, 0, "every block went back");
    }
}
