//! What a run has done: counters, the digest of its history, a failure with what is needed to see it again.

use crate::clock::Event;
use crate::rng::mix;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Counters of one run or, added up, of many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub hosts: u64,
    pub events: u64,
    pub virtual_us: u64,
    pub streams: u64,
    pub whole: u64,
    pub visibly: u64,
    pub tainted: u64,
    /// Bytes read and compared, and those of liars' streams, which are not.
    pub bytes_checked: u64,
    pub bytes_of_liars: u64,
    pub batches: u64,
    pub switches: u64,
    pub returns: u64,
    pub joins: u64,
    pub lies_seen: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Bytes that were in use at most: of a link end, a channel, a stream's end.
    pub most: Most,
}

/// Largest sizes seen, in bytes, and the most streams and links at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most {
    pub link: u64,
    pub channel: u64,
    pub end: u64,
    pub streams: u64,
    pub links: u64,
    /// Batches that were sent and not delivered.
    pub undelivered: u64,
}

impl Report {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.hosts, other.hosts),
            (&mut self.events, other.events),
            (&mut self.virtual_us, other.virtual_us),
            (&mut self.streams, other.streams),
            (&mut self.whole, other.whole),
            (&mut self.visibly, other.visibly),
            (&mut self.tainted, other.tainted),
            (&mut self.bytes_checked, other.bytes_checked),
            (&mut self.bytes_of_liars, other.bytes_of_liars),
            (&mut self.batches, other.batches),
            (&mut self.switches, other.switches),
            (&mut self.returns, other.returns),
            (&mut self.joins, other.joins),
            (&mut self.lies_seen, other.lies_seen),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        let (most, more) = (&mut self.most, other.most);
        most.link = most.link.max(more.link);
        most.channel = most.channel.max(more.channel);
        most.end = most.end.max(more.end);
        most.streams = most.streams.max(more.streams);
        most.links = most.links.max(more.links);
        most.undelivered = most.undelivered.max(more.undelivered);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "simulated time   {:.2} h", self.virtual_us as f64 / 3.6e9)?;
        writeln!(f, "hosts            {}", self.hosts)?;
        writeln!(
            f,
            "streams          {}: {} whole, {} ended visibly, {} of liars; at most {} at a time, {} links",
            self.streams, self.whole, self.visibly, self.tainted, self.most.streams, self.most.links
        )?;
        writeln!(f, "bytes checked    {} (and {} of liars, not)", self.bytes_checked, self.bytes_of_liars)?;
        writeln!(
            f,
            "core             {} batches, {} path switches, {} joins, {} returns to the kernel, {} lies seen",
            self.batches, self.switches, self.joins, self.returns, self.lies_seen
        )?;
        writeln!(
            f,
            "most memory      {} B a link end, {} B a channel, {} B a stream's end; {} batches undelivered",
            self.most.link, self.most.channel, self.most.end, self.most.undelivered
        )?;
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(f, "faults           {}", if faults.is_empty() { "none".into() } else { faults.join(", ") })
    }
}

/// A digest of everything that happened, in order: equal for equal histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Adds an event.
    pub fn add(&mut self, now: u64, event: &Event) {
        let words = match *event {
            Event::Act { stream, end, .. } => [1, stream, end.into()],
            Event::Sort { channel, side, .. } => [2, channel, side.into()],
            Event::Turn { host, life } => [3, host, life],
            Event::Tick { host, life } => [4, host, life],
            Event::Land { flight } => [5, flight, 0],
            Event::Complete { link, immediate, .. } => [6, link, immediate],
            Event::Written { link, side, .. } => [7, link, side.into()],
            Event::Down { link, token, .. } => [8, link, token],
            Event::Kernel { stream, bytes, .. } => [9, stream, bytes],
            Event::Return { stream, end, .. } => [10, stream, end.into()],
            Event::Open { stream, number, .. } => [11, stream, number],
            Event::Opened { stream, number, .. } => [12, stream, number],
            Event::Attach { stream, slot, .. } => [13, stream, slot],
            Event::RailUp { host, rail } => [14, host, rail.into()],
            Event::Restart { host } => [15, host, 0],
            Event::Arrivals => [16, 0, 0],
            Event::Fault => [17, 0, 0],
            Event::Calm => [18, 0, 0],
            Event::Publish { host, life } => [19, host, life],
            Event::GivenUp { channel, life } => [20, channel, life],
        };
        self.mix(now << 8 | u64::from(words[0]));
        self.mix(u64::from(words[1]) << 32 | u64::from(words[2]));
    }

    /// Adds another run's.
    pub fn add_digest(&mut self, other: Self) {
        self.mix(other.0);
    }

    fn mix(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word).rotate_left(5);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Something that has to be true was not.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at_us: u64,
    pub invariant: &'static str,
    pub details: String,
    /// By its serial number.
    pub stream: Option<u64>,
}

/// The last things that happened to one stream.
pub struct Trace {
    stream: Option<u64>,
    lines: VecDeque<String>,
}

const MOST_LINES: usize = 6000;

impl Trace {
    /// Of the stream with that serial number.
    pub const fn new(stream: Option<u64>) -> Self {
        Self { stream, lines: VecDeque::new() }
    }

    /// Notes something.
    pub fn note(&mut self, stream: u64, now: u64, what: impl FnOnce() -> String) {
        if self.stream != Some(stream) {
            return;
        }
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>14} us  {}", now, what()));
    }

    /// What was noted, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
