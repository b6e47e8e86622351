//! What a host with an agent needs when there are many: links, memory, and how full batches are. Sizes are those of the real
//! structures; batches are those that two real queues make of a given load.

use crate::channel::{Line, Payload};
use crate::port::Slot;
use crate::rng::Rng;
use convoy_aggregator::batch::{Head, Record, Records};
use convoy_aggregator::gather::Thresholds;
use convoy_aggregator::link::{BATCH_BYTES, BUFFERS, PLACE_BYTES, PLACES, RING_BYTES};
use convoy_aggregator::overhead::Transport;
use convoy_aggregator::queue::{Queue, Stream, Taken};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Messages of a host in a second, their size, and streams between two hosts.
const MESSAGES: u64 = 4_000_000;
const MESSAGE_BYTES: u32 = 64;
const STREAMS: u32 = 64;
/// One-way time of a write, in microseconds.
const FLIGHT_US: f64 = 10.0;
/// How many messages are looked at.
const SAMPLE: u64 = 60_000;

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each host with so many others.
    Partners(u64),
    /// Each host with each.
    All,
}

/// What one host has.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub hosts: u64,
    pub pattern: Pattern,
    pub links: u64,
    pub streams: u64,
    /// Bytes for links, and for streams at the agent.
    pub link_bytes: u64,
    pub stream_bytes: u64,
    /// Messages in a batch, its bytes, bytes on the wire (RoCE) for each of the payload, writes in a second.
    pub messages: f64,
    pub batch: f64,
    pub wire: f64,
    pub writes: f64,
}

/// Bytes of an end of a link: registered memory, and the bookkeeping.
pub fn bytes_of_link() -> [(&'static str, u64); 4] {
    [
        ("ring", u64::from(RING_BYTES)),
        ("places for large payloads", (PLACES * PLACE_BYTES) as u64),
        ("send buffers", u64::from(BUFFERS) * BATCH_BYTES as u64),
        ("queue", size_of::<Queue<Payload>>() as u64),
    ]
}

/// Bytes of a stream at its agent: its slot, its place in the link's queue, its lines.
pub fn bytes_of_stream() -> u64 {
    // The lines are 64 bytes each, whatever is in them.
    let lines = 2 * size_of::<Line>().next_multiple_of(64) as u64;
    (size_of::<Slot>() + 2 * size_of::<Option<Stream<Payload>>>()) as u64 + lines
}

impl Row {
    /// A host among so many.
    pub fn of(hosts: u64, pattern: Pattern) -> Self {
        let links = match pattern {
            Pattern::Partners(partners) => partners.min(hosts - 1),
            Pattern::All => hosts - 1,
        };
        let streams = links * u64::from(STREAMS);
        let link: u64 = bytes_of_link().iter().map(|(_, bytes)| bytes).sum();
        let load = Load::of_link(MESSAGES as f64 / links as f64);
        let writes = (load.batches + load.answers) as f64 * MESSAGES as f64 / load.messages as f64;
        Self {
            hosts,
            pattern,
            links,
            streams,
            link_bytes: links * link,
            stream_bytes: streams * bytes_of_stream(),
            messages: load.messages as f64 / load.batches as f64,
            batch: load.bytes as f64 / load.batches as f64,
            wire: load.wire as f64 / (load.messages * u64::from(MESSAGE_BYTES)) as f64,
            writes,
        }
    }
}

/// What became of a load on a link, in one direction.
#[derive(Default)]
struct Load {
    messages: u64,
    batches: u64,
    /// Batches of cursors only.
    answers: u64,
    bytes: u64,
    wire: u64,
}

/// What happens on the one link: a message comes, a batch lands, something is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Message(usize),
    Lands(usize, usize),
    Due(usize),
}

impl Load {
    /// Both ends send so many messages in a second, at random times, on their streams in turn.
    fn of_link(per_second: f64) -> Self {
        let mut rng = Rng::new(per_second as u64);
        let mut pair = [
            Queue::new(RING_BYTES, false, Thresholds::default()),
            Queue::new(RING_BYTES, true, Thresholds::default()),
        ];
        for stream in 0..STREAMS {
            pair[0].enter(stream * 2, 0, stream, true);
            pair[1].enter(stream * 2, 0, stream, false);
        }
        // Times in nanoseconds.
        let mut gap =
            || (-((rng.any() >> 11) as f64 / (1u64 << 53) as f64).max(1e-12).ln() / per_second * 1e9) as u64;
        let mut planned: BinaryHeap<Reverse<(u64, Step)>> = BinaryHeap::new();
        (0..2).for_each(|side| planned.push(Reverse((gap(), Step::Message(side)))));
        let (mut load, mut batches) = (Self::default(), Vec::new());
        let mut sent = [0; 2];
        while let Some(Reverse((now, step))) = planned.pop() {
            let side = match step {
                Step::Message(side) if sent[side] == SAMPLE => continue,
                Step::Message(side) => {
                    let stream = (sent[side] % u64::from(STREAMS)) as u32 * 2;
                    let piece = Payload { frame: sent[side], length: MESSAGE_BYTES, large: false };
                    pair[side].push(stream, Taken::new(piece, sent[side]), now / 1000);
                    sent[side] += 1;
                    planned.push(Reverse((now + gap(), Step::Message(side))));
                    side
                }
                Step::Lands(side, batch) => {
                    let bytes: Vec<u8> = std::mem::take(&mut batches[batch]);
                    land(&mut pair[side], &bytes, now / 1000);
                    side
                }
                Step::Due(side) => side,
            };
            let queue = &mut pair[side];
            let now_us = now / 1000;
            let answers = queue.owes.due().is_some_and(|due| due <= now_us) || queue.must_answer();
            if queue.has_pending() && queue.is_due(now_us) || answers {
                let batch = load.build(queue, side, now_us);
                batches.push(batch);
                planned.push(Reverse((
                    now + (FLIGHT_US * 1000.0) as u64,
                    Step::Lands(1 - side, batches.len() - 1),
                )));
            } else if let Some(due) = queue.owes.due() {
                planned.push(Reverse((due * 1000, Step::Due(side))));
            }
        }
        load
    }

    /// The next batch of one end; the first end's are counted.
    fn build(&mut self, queue: &mut Queue<Payload>, side: usize, now_us: u64) -> Vec<u8> {
        let mut room = vec![0; BATCH_BYTES];
        let built = queue.build(&mut room, now_us, |_, _, _, into| into.fill(1));
        room.truncate(built.length);
        if side == 0 {
            self.messages += built.messages();
            self.batches += u64::from(built.full);
            self.answers += u64::from(!built.full);
            self.bytes += if built.full { built.length as u64 } else { 0 };
            let transport = Transport::Roce { mtu: 4096, ipv6: false };
            self.wire += transport.write(built.length as u32);
        }
        queue.on_sent(built);
        room
    }
}

/// A batch is taken.
fn land(queue: &mut Queue<Payload>, batch: &[u8], now_us: u64) {
    let head = Head::read(batch).unwrap_or_default();
    queue.receive.arrived(head.sequence << 16);
    let _ = queue.receive.next_batch();
    let mut done = Vec::new();
    let _ = queue.on_head(&head, |sequence| done.push(sequence));
    for sequence in done {
        let frames = queue.take_sent(sequence);
        queue.return_list(frames);
    }
    let any = Records::new(batch).any(|record| matches!(record, Ok(Record::Data { .. })));
    queue.on_records(head.sequence, any, false, 0, now_us);
}

/// The rows that are printed and drawn, by pattern.
pub fn rows(hosts: &[u64]) -> Vec<Vec<Row>> {
    let patterns = [Pattern::Partners(10), Pattern::Partners(100), Pattern::All];
    patterns.map(|pattern| hosts.iter().map(|hosts| Row::of(*hosts, pattern)).collect()).into()
}

/// The table, as Markdown.
pub fn print() {
    println!("An end of a link:");
    let parts = bytes_of_link();
    parts.iter().for_each(|(what, bytes)| println!("- {what}: {bytes} B"));
    println!("- in all: {:.2} MiB\n", parts.iter().map(|part| part.1).sum::<u64>() as f64 / 1_048_576.0);
    println!("A stream at its agent: {} B\n", bytes_of_stream());
    println!(
        "| hosts | each speaks to | links | streams | memory for links | for streams | messages a batch | bytes a batch | wire bytes per byte | writes/s |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for row in rows(&[10, 1_000, 10_000]).iter().flatten() {
        let whom = match row.pattern {
            Pattern::All => "all".into(),
            Pattern::Partners(partners) => format!("{partners}"),
        };
        println!(
            "| {} | {whom} | {} | {} | {} | {} | {:.1} | {:.0} | {:.2} | {:.0} |",
            row.hosts,
            row.links,
            row.streams,
            human(row.link_bytes),
            human(row.stream_bytes),
            row.messages,
            row.batch,
            row.wire,
            row.writes
        );
    }
}

/// Bytes with a unit.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
