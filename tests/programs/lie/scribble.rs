//! What a liar writes into the memory that it shares, and where.
//!
//! The places are those of `runtime/src/shm/segment.rs` and `runtime/src/registry.rs`, written down again here, because a
//! liar does not use the library.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::shared::{Mapping, registry, segments};
use convoy_tests::kit::Random;

/// Of a segment's header.
const MAGIC: u64 = u64::from_le_bytes(*b"convoyS1");
const LANES: u64 = 4096;
const LINES: u64 = 12288;
/// Both lines of a slot.
const SLOT: u64 = 128;
/// Bytes of one direction's cursors and returned blocks.
const LANE: u64 = 192;
/// Slots from either end of the table that streams can be in.
const NEAR: u64 = 8;
/// Of the registry: the next channel's serial, and the offers.
const SERIAL: u64 = 16;
const OFFERS: u64 = 282_944;
const OFFER: u64 = 88;
const OFFER_COUNT: u64 = 8192;
/// States of an offer: somebody waits there for an answer, or has one and has not taken it.
const OFFERED: std::ops::RangeInclusive<u32> = 1..=2;

/// What a liar scribbles over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Segment,
    /// The file in which all processes of the user meet.
    Registry,
}

impl What {
    pub fn of(word: &str) -> Self {
        if word == "registry" { Self::Registry } else { Self::Segment }
    }

    pub fn word(self) -> &'static str {
        if self == Self::Registry { "registry" } else { "segment" }
    }
}

/// Where the parts of a segment lie, by its header.
#[derive(Clone, Copy)]
struct Layout {
    ring_bytes: u64,
    slots: u64,
    rings: u64,
    blocks: u64,
}

impl Layout {
    fn of(segment: Mapping) -> Option<Self> {
        if segment.read(0) != MAGIC {
            return None;
        }
        let (ring_bytes, slots) = (segment.read(8) & 0xffff_ffff, segment.read(8) >> 32);
        let page = |bytes: u64| bytes.next_multiple_of(4096);
        let rings = LINES + page(slots * SLOT) + page(slots * 16);
        Some(Self { ring_bytes, slots, rings, blocks: rings + 2 * ring_bytes })
    }
}

/// A part of the shared memory.
#[derive(Clone, Copy, Debug)]
enum Part {
    Header,
    /// Cursors, and blocks that were given back.
    Lanes,
    /// Which lines have changed.
    Changes,
    Lines,
    /// Frame headers and block references near the cursors.
    Frames,
    Ring,
    Blocks,
    /// Whole frames behind the last one, published.
    Forged,
    /// Lock, serial, places to spin.
    RegistryHead,
    /// Serials that channels have already.
    Serial,
    /// Offers that wait, and answers that nobody has taken yet.
    Offers,
    /// Bells, offers and channels that are in use.
    Registry,
}

/// How a liar of one round works.
pub struct Plan {
    parts: Vec<Part>,
    /// Words between two pauses, and how long one is.
    burst: u64,
    pause: Duration,
    lasts: Duration,
    /// Only small changes, which may be believed for longer.
    subtle: bool,
}

impl Plan {
    pub fn new(random: &mut Random, what: What) -> Self {
        const SEGMENT: [Part; 14] = [
            Part::Header,
            Part::Lanes,
            Part::Lanes,
            Part::Lanes,
            Part::Lines,
            Part::Lines,
            Part::Lines,
            Part::Frames,
            Part::Frames,
            Part::Ring,
            Part::Blocks,
            Part::Changes,
            Part::Forged,
            Part::Forged,
        ];
        const REGISTRY: [Part; 6] =
            [Part::RegistryHead, Part::Registry, Part::Registry, Part::Serial, Part::Offers, Part::Offers];
        let all: &[Part] = if what == What::Registry { &REGISTRY } else { &SEGMENT };
        let parts = (0..1 + random.below(3)).map(|_| all[random.below(all.len() as u64) as usize]).collect();
        let pause = [0, 0, 50, 500, 3000][random.below(5) as usize];
        Self {
            parts,
            burst: 1 + random.below(20),
            pause: Duration::from_micros(pause),
            lasts: Duration::from_millis(20 + random.below(150)),
            subtle: random.below(2) == 0,
        }
    }
}

/// Scribbles according to a plan, until `over`; the number of words.
pub fn scribble(random: &mut Random, plan: &Plan, over: impl Fn() -> bool) -> u64 {
    let segments: Vec<(Mapping, Layout)> =
        segments().into_iter().filter_map(|segment| Some((segment, Layout::of(segment)?))).collect();
    let registry = registry();
    let mut old = Vec::new();
    let (began, mut words) = (Instant::now(), 0);
    while began.elapsed() < plan.lasts && !over() {
        for _ in 0..plan.burst {
            let part = plan.parts[random.below(plan.parts.len() as u64) as usize];
            let target = match part {
                Part::RegistryHead | Part::Registry | Part::Serial | Part::Offers => {
                    registry.map(|registry| (registry, None))
                }
                _ => segments
                    .get(random.below(segments.len().max(1) as u64) as usize)
                    .map(|(s, l)| (*s, Some(*l))),
            };
            let Some((mapping, layout)) = target else { return words };
            if let (Part::Forged, Some(layout)) = (part, layout) {
                words += forge(random, mapping, layout);
                continue;
            }
            let at = place(random, part, mapping, layout);
            let word = mapping.word(at);
            let before = word.load(Ordering::Relaxed);
            let lie = match part {
                Part::Serial => random.below(4),
                _ => value(random, before, plan.subtle, &mut old),
            };
            word.store(lie, Ordering::Relaxed);
            words += 1;
        }
        if plan.pause > Duration::ZERO {
            std::thread::sleep(plan.pause);
        } else {
            std::thread::yield_now();
        }
    }
    words
}

fn place(random: &mut Random, part: Part, mapping: Mapping, layout: Option<Layout>) -> u64 {
    let Some(layout) = layout else {
        return match part {
            // Not the first word, without which nobody would meet here any more.
            Part::RegistryHead => 8 + random.below(8192),
            Part::Serial => SERIAL,
            Part::Offers => next_offered(mapping, random),
            _ => next_in_use(mapping, random.below(mapping.bytes() as u64)),
        };
    };
    match part {
        Part::Header => random.below(384),
        Part::Lanes => LANES + random.below(2 * LANE),
        Part::Changes => LANES + 1024 + random.below(4224),
        Part::Lines => {
            let slot = random.below(2 * NEAR);
            let slot = if slot < NEAR { slot } else { layout.slots - 1 - (slot - NEAR) };
            LINES + slot * SLOT + random.below(SLOT)
        }
        Part::Frames => {
            let side = random.below(2);
            let tail = mapping.read(LANES + side * LANE);
            let behind = random.below(64) * 8;
            layout.rings + side * layout.ring_bytes + (tail.wrapping_sub(behind) & (layout.ring_bytes - 1))
        }
        Part::Ring => layout.rings + random.below(2 * layout.ring_bytes),
        Part::Blocks => layout.blocks + random.below(mapping.bytes() as u64 - layout.blocks),
        Part::Forged | Part::RegistryHead | Part::Registry | Part::Serial | Part::Offers => 0,
    }
}

/// Publishes a frame that the library of neither side has written: of a stream that there is, as a rule, and with numbers of
/// which one or two cannot be. How many words that were.
fn forge(random: &mut Random, mapping: Mapping, layout: Layout) -> u64 {
    let side = random.below(2);
    let tail = mapping.word(LANES + side * LANE);
    let from = tail.load(Ordering::Relaxed);
    let near = random.below(2 * NEAR);
    let slot = if near < NEAR { near } else { layout.slots - 1 - (near - NEAR) };
    let generation = (mapping.read(LINES + slot * SLOT + side * 64 + 24) >> 40) & 0xff;
    let kind = [1, 2, 2, 3, 3, 3, 4][random.below(7) as usize];
    let usual = if kind == 3 { 8 } else { 8 * random.below(8) };
    let length = [usual, usual, usual, usual, random.below(1 << 24)][random.below(5) as usize];
    let block = [random.below(256), random.below(256), random.below(1 << 32)][random.below(3) as usize];
    let of_block = [random.below(16385), 0, 16384, random.below(1 << 32)][random.below(4) as usize];
    let at = |step: u64| {
        layout.rings + side * layout.ring_bytes + (from.wrapping_add(step) & (layout.ring_bytes - 1))
    };
    mapping.word(at(0)).store(kind | generation << 8 | slot << 16 | length << 40, Ordering::Relaxed);
    mapping.word(at(8)).store(block | of_block << 32, Ordering::Relaxed);
    let span = 8 + length.next_multiple_of(8);
    let published = [span, span, span, 8, 16, 24][random.below(6) as usize];
    tail.store(from.wrapping_add(published), Ordering::Release);
    3
}

/// A word of an offer that somebody waits for, or of any.
fn next_offered(mapping: Mapping, random: &mut Random) -> u64 {
    let from = random.below(OFFER_COUNT);
    let mut places = (0..OFFER_COUNT).map(|step| OFFERS + (from + step) % OFFER_COUNT * OFFER);
    let found = places.find(|at| OFFERED.contains(&(mapping.read(*at) as u32)));
    found.unwrap_or(OFFERS + from * OFFER) + random.below(OFFER)
}

/// The first word from `from` on that is not 0: most of a registry is empty.
fn next_in_use(mapping: Mapping, from: u64) -> u64 {
    let words = mapping.bytes() as u64 / 8;
    let place = |step: u64| (from / 8 + step) % words * 8;
    let found = (0..words).map(place).find(|at| mapping.read(*at) != 0);
    // Beside it, too: a bell's owner is seldom 0, its sleepers often are.
    found.unwrap_or(from) + [0, 0, 0, 8, 16][(from % 5) as usize]
}

/// What to write over `before`; `old` is what stood anywhere earlier.
fn value(random: &mut Random, before: u64, subtle: bool, old: &mut Vec<u64>) -> u64 {
    if old.len() < 64 {
        old.push(before);
    } else {
        let place = random.below(64) as usize;
        old[place] = before;
    }
    let step = [1, 8, 16, 1 << 32][random.below(4) as usize];
    match random.below(if subtle { 5 } else { 9 }) {
        0 => before.wrapping_add(step),
        1 => before.wrapping_sub(step),
        2 => before ^ 1 << random.below(64),
        3 => old[random.below(old.len() as u64) as usize],
        4 => before.wrapping_add(random.below(4096) * 8),
        5 => random.number(),
        6 => u64::MAX - random.below(16),
        7 => 0,
        _ => 1 << random.below(64),
    }
}
