//! What a seed stands for: sizes, times, and how often what goes wrong.

use crate::rng::Rng;
use clap::ValueEnum;
use convoy_aggregator::queue::least_ring;

/// The kind of a run; a seed has one unless it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Few hosts and streams, everything goes wrong all the time.
    Deep,
    /// Some dozens of hosts.
    Middle,
    /// Thousands of hosts with a few streams each.
    Wide,
    /// Few hosts with very many streams, most of them short.
    Crowd,
}

/// The parameters of a run. Times are microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub hosts: u32,
    pub programs_per_host: u32,
    pub rails: u8,
    /// Other hosts that one host speaks to.
    pub partners: u32,
    /// Streams in all, most of them at a time, and the time between arrivals.
    pub streams: u64,
    pub most_open: u64,
    pub arrivals_every: u64,
    /// The longest stream, in bytes each way.
    pub bytes: u64,
    /// Calls in which a stream is sent, at least.
    pub calls: u64,
    /// The longest pause of a program between two calls.
    pub pause: u64,
    /// When faults end. Everything must have drained `patience` later.
    pub calm_at: u64,
    pub patience: u64,
    /// Between faults; 0 for none.
    pub faults_every: u64,
    /// Of so many batches one is lost; completions that come twice; 0 for none.
    pub loss: u64,
    pub twice: u64,
    /// One-way time of a rail, and how much more it may be.
    pub flight: u64,
    pub jitter: u64,
    /// Of so many programs and agents one lies; 0 for none.
    pub liars: u64,
    pub lying_agents: u64,
    /// Rings between programs and agents, and those of links; the largest batch.
    pub lane_bytes: usize,
    pub link_bytes: u32,
    pub batch_bytes: usize,
    /// Writes that a rail takes at a time.
    pub depth: usize,
    /// Places for large payloads at each end of a link.
    pub places: u32,
    pub window: u64,
    /// The kernel's buffer of one direction.
    pub kernel_buffer: usize,
    pub delay_us: u32,
    /// Credit that an agent passes on, at most, in bytes.
    pub ahead: u64,
}

/// Bytes of a link's ring that are kept for answers.
pub const ANSWERS: usize = 2 << 10;
const SECOND: u64 = 1_000_000;
/// Bytes of a run in each direction, or it takes too long.
const MOST_BYTES: u64 = 32 << 20;

impl Plan {
    /// The parameters of a seed, of a kind if it is asked for.
    pub fn new(seed: u64, kind: Option<Kind>) -> Self {
        let mut rng = Rng::new(seed ^ 0x0070_6c61_6e00);
        let chosen = match rng.below(16) {
            0 => Kind::Wide,
            1 | 2 => Kind::Crowd,
            3..6 => Kind::Middle,
            _ => Kind::Deep,
        };
        let kind = kind.unwrap_or(chosen);
        let rng = &mut rng;
        let (hosts, partners, streams, most_open) = match kind {
            Kind::Deep => (rng.between(2, 6), 5, rng.between(10, 600), 60),
            Kind::Middle => (rng.between(10, 60), 8, rng.between(1_000, 8_000), 1_000),
            Kind::Wide => (rng.between(1_000, 4_000), 3, rng.between(20_000, 60_000), 20_000),
            Kind::Crowd => (rng.between(3, 12), 11, rng.between(50_000, 150_000), 30_000),
        };
        let seconds = match kind {
            Kind::Deep => rng.between(5, 120),
            Kind::Middle => rng.between(20, 60),
            Kind::Wide | Kind::Crowd => rng.between(10, 30),
        };
        let small = matches!(kind, Kind::Wide);
        let bytes = match kind {
            Kind::Deep => 1 << rng.between(8, 20),
            Kind::Middle => 1 << rng.between(8, 16),
            Kind::Wide | Kind::Crowd => 1 << rng.between(6, 11),
        };
        let streams = streams.min(MOST_BYTES / bytes).max(10);
        let batch_bytes = if small { 2 << 10 } else { rng.pick(&[1 << 10, 4 << 10, 64 << 10]) };
        let ordered = rng.once_in(2);
        Self {
            kind,
            hosts: hosts as u32,
            programs_per_host: rng.between(1, 4) as u32,
            rails: rng.between(1, 3) as u8,
            partners,
            streams,
            most_open,
            arrivals_every: (seconds * SECOND / 2 / streams).max(1),
            bytes,
            calls: if matches!(kind, Kind::Wide | Kind::Crowd) { 3 } else { 8 },
            pause: rng.pick(&[200, 2_000, 20_000, 500_000]),
            calm_at: seconds * SECOND,
            patience: 300 * SECOND,
            faults_every: rng.pick(&[0, 50_000, 500_000, SECOND, 5 * SECOND]) * if small { 2 } else { 1 },
            loss: rng.pick(&[0, 0, 200, 20_000]),
            twice: rng.pick(&[0, 3, 50]),
            flight: rng.pick(&[2, 20, 300]),
            jitter: if ordered { 0 } else { rng.pick(&[1, 20, 500, 5_000]) },
            liars: rng.pick(&[0, 0, 4, 12]),
            lying_agents: rng.pick(&[0, 0, 0, 5]),
            lane_bytes: rng.pick(&[1 << 10, 16 << 10, 64 << 10, 256 << 10]),
            link_bytes: least_ring(batch_bytes, ANSWERS).next_multiple_of(1 << 10) as u32
                * if small { 1 } else { rng.pick(&[1, 4, 8]) },
            batch_bytes,
            depth: rng.pick(&[16, 64, 256]),
            places: if ordered { rng.pick(&[0, 1, 16]) } else { 0 },
            window: rng.pick(&[512, 4 << 10, 32 << 10]),
            kernel_buffer: rng.pick(&[200, 4 << 10, 64 << 10]),
            delay_us: rng.pick(&[0, 0, 50, 2_000]),
            ahead: rng.pick(&[u64::MAX, u64::MAX, 4 << 10, 100]),
        }
    }

    /// Whether a rail keeps writes in order, so that large payloads may go beside the batches.
    pub const fn is_ordered(&self) -> bool {
        self.jitter == 0
    }
}
