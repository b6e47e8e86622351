//! A channel: two rings of frames and the lines of its streams, between a program and its agent or between two programs of one
//! host. The layout in shared memory and its ordering are not here (the runtime has them, and loom); frames carry the real
//! header words, and each side believes only what it has checked.

use convoy_aggregator::queue::Piece;
use convoy_aggregator::wire::{self, BlockRef, Header, Kind};
use std::collections::{BTreeSet, VecDeque};

/// Where an end of a stream is, on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub channel: u32,
    pub life: u32,
    /// 0 is the program that has made the channel, 1 its agent or the other program.
    pub side: usize,
    pub slot: u32,
    pub generation: u8,
}

/// State of one side's end of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    #[default]
    Closed,
    Open,
    WantsKernel,
    Lost,
}

/// The receiver looks for switches.
pub const READY: u32 = 1;
/// What is sent stays on the kernel.
pub const STAYS: u32 = 2;
/// The other end has joined.
pub const JOINED: u32 = 4;
/// The stream has returned to the kernel.
pub const RECOVERED: u32 = 8;

/// What one side of a channel says about a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    pub state: SlotState,
    pub flags: u32,
    pub announced: u32,
    pub positions: [u64; 2],
    pub passed: u32,
    pub limit: u64,
    /// Of an agent: so many of the program's switches are known to the other end.
    pub heard: u32,
}

/// A frame in a ring: its header word, the word that names a block, its payload.
pub struct Frame {
    pub word: u64,
    pub reference: Option<u64>,
    pub bytes: Vec<u8>,
    /// The other host has it: room for others, once those in front of it are done as well.
    pub done: bool,
}

impl Frame {
    /// A frame of a stream; in a block when it is large.
    pub fn new(slot: u32, generation: u8, bytes: Vec<u8>, inline: usize) -> Self {
        let length = bytes.len() as u32;
        let block = bytes.len() > inline;
        let (kind, in_ring) = if block { (Kind::Block, BlockRef::BYTES) } else { (Kind::Data, length) };
        Self {
            word: Header { kind, generation, slot, length: in_ring }.to_word(),
            reference: block.then(|| BlockRef { block: 0, length }.to_word()),
            bytes,
            done: false,
        }
    }

    /// The header, if it can be true; nothing for a lie.
    pub fn header(&self, slots: usize) -> Option<Header> {
        let header = Header::from_word(self.word).ok()?;
        let length = match (header.kind, self.reference.map(BlockRef::from_word)) {
            (Kind::Data, None) => header.length,
            (Kind::Block, Some(named)) if header.length == BlockRef::BYTES && named.block == 0 => {
                named.length
            }
            _ => return None,
        };
        (length as usize == self.bytes.len() && length > 0 && (header.slot as usize) < slots)
            .then_some(header)
    }

    fn span(&self) -> usize {
        wire::span(if self.reference.is_some() { BlockRef::BYTES } else { self.bytes.len() as u32 })
    }
}

/// A ring of frames.
pub struct Lane {
    pub frames: VecDeque<Frame>,
    /// Number of the first, and of the next one that the other side takes.
    pub first: u64,
    pub taken: u64,
    /// The reader may take those before this one.
    published: u64,
    used: usize,
    pub capacity: usize,
}

impl Lane {
    fn new(capacity: usize) -> Self {
        Self { frames: VecDeque::new(), first: 0, taken: 0, published: 0, used: 0, capacity }
    }

    /// Bytes of the ring in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether a frame with so many bytes of payload in the ring finds room.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used + wire::span(bytes as u32) <= self.capacity
    }

    /// Writes and publishes a frame; false without room.
    pub fn put(&mut self, frame: Frame) -> bool {
        let written = self.write(frame);
        self.publish();
        written
    }

    /// The reader may take what was written: true when there was anything.
    pub fn publish(&mut self) -> bool {
        let end = self.first + self.frames.len() as u64;
        std::mem::replace(&mut self.published, end) != end
    }

    /// Writes a frame, which is to be published; false without room.
    pub fn write(&mut self, frame: Frame) -> bool {
        if self.used + frame.span() > self.capacity {
            return false;
        }
        self.used += frame.span();
        self.frames.push_back(frame);
        true
    }

    /// Whether nothing is published that was not taken.
    pub const fn is_sorted(&self) -> bool {
        self.first >= self.published
    }

    /// Takes the next frame that is published out of the ring.
    pub fn take_published(&mut self) -> Option<Frame> {
        if self.is_sorted() { None } else { self.take() }
    }

    /// Takes the first frame out of the ring.
    fn take(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.used -= frame.span();
        self.first += 1;
        self.taken = self.taken.max(self.first);
        Some(frame)
    }

    /// The next frame to look at, which stays in the ring until it is done: its number.
    pub fn next(&mut self) -> Option<u64> {
        let number = self.taken;
        (number < self.first + self.frames.len() as u64).then(|| self.taken += 1)?;
        Some(number)
    }

    /// A frame in the ring.
    pub fn get(&self, number: u64) -> Option<&Frame> {
        self.frames.get(number.checked_sub(self.first)? as usize)
    }

    /// A frame is not needed any more; those that are done up to the first that is not give their room back.
    pub fn finish(&mut self, number: u64) {
        let index = number.checked_sub(self.first).map(|index| index as usize);
        if let Some(frame) = index.and_then(|index| self.frames.get_mut(index)) {
            frame.done = true;
        }
        while self.frames.front().is_some_and(|frame| frame.done) {
            self.take();
        }
    }

    /// Payload of a stream in frames that were not given back.
    pub fn retained(&self, slot: u32, generation: u8) -> Vec<u8> {
        let of_stream = |frame: &&Frame| {
            Header::from_word(frame.word)
                .is_ok_and(|header| header.slot == slot && header.generation == generation)
        };
        self.frames.iter().filter(of_stream).flat_map(|frame| &frame.bytes).copied().collect()
    }
}

/// Where a frame's payload is: in the ring of the program that is known to the link by this channel.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    pub frame: u64,
    pub length: u32,
    pub large: bool,
}

impl Piece for Payload {
    fn length(&self) -> u32 {
        self.length
    }

    fn is_large(&self) -> bool {
        self.large
    }
}

/// Who is at an end of a slot: stream and end.
pub type Owner = Option<(u32, usize)>;

/// See the module.
pub struct Channel {
    /// Tells apart channels that had the same place in the table.
    pub life: u32,
    /// The programs at its sides; an agent's side has none.
    pub programs: [Option<u32>; 2],
    pub host: u32,
    pub lanes: [Lane; 2],
    pub lines: Vec<[Line; 2]>,
    pub generations: Vec<u8>,
    pub owners: Vec<[Owner; 2]>,
    pub free: VecDeque<u32>,
    /// The agent's side.
    pub port: Option<crate::port::Port>,
    /// The agent is gone, or a side has lied: no more frames either way.
    pub lost: bool,
    /// Its program is about to take the agent for gone, and has done so.
    pub gives_up: bool,
    pub gave_up: bool,
    /// A program of it is gone: no new streams.
    pub retired: bool,
    /// Its place in the table is free.
    pub over: bool,
    /// Slots whose line the program has changed since the agent has looked.
    pub changes: BTreeSet<u32>,
    /// Ends that are open.
    pub open: u32,
    pub sort_planned: [bool; 2],
}

impl Channel {
    /// A channel with empty rings.
    pub fn new(life: u32, host: u32, programs: [Option<u32>; 2], lane_bytes: usize) -> Self {
        Self {
            life,
            programs,
            host,
            lanes: [Lane::new(lane_bytes), Lane::new(lane_bytes)],
            lines: Vec::new(),
            generations: Vec::new(),
            owners: Vec::new(),
            free: VecDeque::new(),
            port: None,
            lost: false,
            gives_up: false,
            gave_up: false,
            retired: false,
            over: false,
            changes: BTreeSet::new(),
            open: 0,
            sort_planned: [false; 2],
        }
    }

    /// A slot for a new stream, under a new generation.
    pub fn open_slot(&mut self) -> (u32, u8) {
        if let Some(slot) = self.free.pop_front() {
            let index = slot as usize;
            self.lines[index] = [Line::default(); 2];
            self.generations[index] = self.generations[index].wrapping_add(1);
            self.owners[index] = [None; 2];
            return (slot, self.generations[index]);
        }
        self.lines.push([Line::default(); 2]);
        self.generations.push(1);
        self.owners.push([None; 2]);
        (self.lines.len() as u32 - 1, 1)
    }

    /// Whether its other side is an agent.
    pub const fn is_far(&self) -> bool {
        self.programs[1].is_none()
    }
}
