//! Both ends of a channel between two processes, with streams at work, while somebody writes anything into their memory.
//!
//! Until the first such word every byte that comes out is the one that was put in; afterwards only what each end keeps
//! for itself must hold: nobody receives more than he has granted, and the queues have an end.

use crate::input::Input;
use crate::memory::Memory;
use convoy_runtime::fuzz::{GEOMETRY, Mode, Pair, Received, Sent, Stream, Trouble};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

const STREAMS: usize = 3;
/// More than all windows together.
const MOST_UNREAD: u64 = STREAMS as u64 * (256 << 10);

pub(super) fn run(bytes: &[u8]) {
    let pair = Pair::new();
    let liar = Memory::map(pair.file);
    let streams: Vec<Flow> =
        connections().iter().map(|fds| Flow::new(pair.open(*fds).expect("a slot"))).collect();
    let mut world = World { pair, liar, streams, scribbled: false };
    let mut input = Input::new(bytes);
    while !input.is_empty() && world.step(&mut input).is_ok() {}
    let World { pair, liar, streams, scribbled } = world;
    assert!(scribbled || pair.ends.iter().all(|end| end.usable()), "ended, and nobody lied");
    streams.iter().for_each(|flow| flow.stream.close());
    drop(liar);
    // SAFETY: the streams are closed, and the ends are this function's.
    unsafe { pair.end() };
}

/// Connections that carry nothing, under the streams of every run.
fn connections() -> &'static [[i32; 2]] {
    static CONNECTIONS: OnceLock<Vec<[TcpStream; 2]>> = OnceLock::new();
    static NUMBERS: OnceLock<Vec<[i32; 2]>> = OnceLock::new();
    let connected = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let connected =
            TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        [connected, listener.accept().expect("its other end").0]
    };
    let kept = CONNECTIONS.get_or_init(|| (0..STREAMS).map(|_| connected()).collect());
    NUMBERS.get_or_init(|| kept.iter().map(|both| [0, 1].map(|end| both[end].as_raw_fd())).collect())
}

struct World {
    pair: Pair,
    liar: Memory,
    streams: Vec<Flow>,
    scribbled: bool,
}

/// One stream, with both directions' counts.
struct Flow {
    stream: Stream,
    sent: [u64; 2],
    received: [u64; 2],
}

impl Flow {
    fn new(stream: Stream) -> Self {
        Self { stream, sent: [0; 2], received: [0; 2] }
    }
}

/// The byte at a position of one direction of a stream.
fn byte(stream: usize, side: usize, position: u64) -> u8 {
    ((position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (stream * 2 + side) as u64) >> 56) as u8
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Trouble> {
        let kind = input.byte();
        let (stream, side) = (usize::from(kind >> 4) % STREAMS, usize::from(kind >> 3 & 1));
        let result = match kind & 7 {
            0 | 1 => self.send(stream, side, usize::from(input.short()) % 9000),
            2 => self.receive(stream, side, 1 + usize::from(input.short()) % 9000, Mode::Take),
            3 => self.receive(stream, side, 1 + usize::from(input.byte()), Mode::Peek),
            4 => {
                self.streams[stream].stream.spill(side);
                Ok(())
            }
            5 => self.reopen(stream),
            _ => {
                self.scribble(input);
                Ok(())
            }
        };
        assert!(self.scribbled || result.is_ok(), "{result:?}, and nobody lied");
        assert!([0, 1].iter().all(|side| self.pair.queued(*side) <= MOST_UNREAD), "a queue without an end");
        result
    }

    fn send(&mut self, number: usize, side: usize, length: usize) -> Result<(), Trouble> {
        let flow = &mut self.streams[number];
        let from = flow.sent[side];
        let bytes: Vec<u8> = (from..from + length as u64).map(|at| byte(number, side, at)).collect();
        match flow.stream.send(side, &bytes)? {
            Sent::Bytes(sent) | Sent::Recalled(sent) => {
                assert!(sent <= length);
                flow.sent[side] += sent as u64;
            }
            Sent::Kernel(_) | Sent::NoRoom | Sent::Busy => {}
        }
        Ok(())
    }

    fn receive(&mut self, number: usize, side: usize, room: usize, mode: Mode) -> Result<(), Trouble> {
        let flow = &mut self.streams[number];
        let mut bytes = vec![0; room];
        let Received::Bytes(count) = flow.stream.receive(side, &mut bytes, mode)? else { return Ok(()) };
        assert!(count <= room);
        let from = flow.received[side];
        if !self.scribbled {
            let is_right = |(at, found): (u64, &u8)| *found == byte(number, side ^ 1, at);
            assert!((from..).zip(&bytes[..count]).all(is_right), "wrong bytes, and nobody lied");
            assert!(from + count as u64 <= flow.sent[side ^ 1], "more bytes than were sent");
        }
        if mode == Mode::Take {
            flow.received[side] += count as u64;
        }
        Ok(())
    }

    fn reopen(&mut self, number: usize) -> Result<(), Trouble> {
        self.streams[number].stream.close();
        match self.pair.open(connections()[number]) {
            Some(stream) => self.streams[number] = Flow::new(stream),
            None => {
                assert!(self.scribbled, "no slot, and nobody lied");
                // Closed once more at the end, which must do no harm either.
                return Err(Trouble::Closed);
            }
        }
        Ok(())
    }

    fn scribble(&mut self, input: &mut Input<'_>) {
        self.scribbled = true;
        let lines = u64::from(GEOMETRY.slots) * 128;
        let at = match input.byte() % 4 {
            // Cursors and blocks that were given back.
            0 => 4096 + u64::from(input.byte()) * 8 % 512,
            // The first and the last slots' lines, where the streams are.
            1 => 12288 + u64::from(input.byte()) * 8 % (STREAMS as u64 * 128),
            2 => 12288 + lines - 8 - u64::from(input.byte()) * 8 % (STREAMS as u64 * 128),
            _ => u64::from(input.short()) * 8 % self.liar.bytes() as u64,
        };
        let word = self.liar.word(at);
        word.store(input.near(word.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}
