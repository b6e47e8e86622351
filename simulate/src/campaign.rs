//! Runs seeds: those that once found something first, then new ones, until the time is up or one fails.

use crate::plan::Kind;
use crate::report::{Digest, Report};
use crate::rng::mix;
use crate::world::World;
use crate::{chart, scale};
use clap::Parser;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs Convoy's core with many hosts, streams, faults and liars in virtual time. Everything follows from the seed.
#[derive(Parser, Debug)]
#[command(name = "convoy-simulate", version)]
pub struct Arguments {
    /// Run this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// The kind of run, instead of the seed's own
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// First of the new seeds; by default from the clock
    #[arg(long)]
    from: Option<u64>,
    /// Last of the new seeds, if there is time for so many
    #[arg(long, default_value_t = u64::MAX)]
    to: u64,
    /// Stop after so many seconds of this machine's time
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Stop after so many simulated hours instead
    #[arg(long)]
    hours: Option<f64>,
    /// Leave out the stored seeds
    #[arg(long)]
    new: bool,
    /// Print what a host needs among 10, 1,000 and 10,000, instead
    #[arg(long)]
    scale: bool,
    /// Draw the same as SVG, instead
    #[arg(long)]
    chart: bool,
    /// One line for each seed
    #[arg(long)]
    verbose: bool,
}

/// One seed a line: number, kind, what it has found.
const STORED: &str = include_str!("../seeds.txt");
/// Events of one run at most, so that no seed takes the time of all others.
const MOST_EVENTS: u64 = 40_000_000;

/// The seed that runs now, for a panic.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Runs a campaign. Fails with the first seed that does.
pub fn run(arguments: &Arguments) -> ExitCode {
    if arguments.scale || arguments.chart {
        if arguments.chart {
            print!("{}", chart::svg())
        } else {
            scale::print()
        }
        return ExitCode::SUCCESS;
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("the core panicked; again: {}", replay(CURRENT.load(Ordering::Relaxed), None));
        hook(info);
    }));
    let start = Instant::now();
    let mut campaign = Campaign {
        total: Report::default(),
        digest: Digest::default(),
        seeds: 0,
        verbose: arguments.verbose,
    };
    let limit = Duration::from_secs(arguments.seconds);
    let go_on = |total: &Report| match arguments.hours {
        Some(hours) => total.virtual_us as f64 / 3.6e9 < hours,
        None => start.elapsed() < limit,
    };
    let passed = match arguments.seed {
        Some(seed) => campaign.one(seed, arguments.kind, &|| false),
        None => campaign.many(arguments, go_on),
    };
    if !passed {
        return ExitCode::FAILURE;
    }
    let seconds = start.elapsed().as_secs_f64();
    let events = campaign.total.events;
    println!("{}", campaign.total);
    println!(
        "seeds            {} in {seconds:.1} s, {events} events, {:.0} events/s",
        campaign.seeds,
        events as f64 / seconds
    );
    println!("digest           {}", campaign.digest);
    ExitCode::SUCCESS
}

struct Campaign {
    total: Report,
    digest: Digest,
    seeds: u64,
    verbose: bool,
}

impl Campaign {
    fn many(&mut self, arguments: &Arguments, go_on: impl Fn(&Report) -> bool) -> bool {
        let stored = if arguments.new { Vec::new() } else { stored() };
        for (seed, kind) in stored {
            if !self.one(seed, Some(kind), &|| !go_on(&Report::default())) {
                return false;
            }
        }
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| mix(since.as_nanos() as u64) >> 20);
        let first = arguments.from.unwrap_or_else(clock);
        println!("new seeds        from {first}");
        for seed in first..=arguments.to {
            if !go_on(&self.total) {
                break;
            }
            if !self.one(seed, arguments.kind, &|| !go_on(&Report::default())) {
                return false;
            }
        }
        true
    }

    /// Runs a seed. A failure is run again to see what happened to the stream.
    fn one(&mut self, seed: u64, kind: Option<Kind>, stop: &dyn Fn() -> bool) -> bool {
        CURRENT.store(seed, Ordering::Relaxed);
        let start = Instant::now();
        let mut world = World::new(seed, kind, None);
        let ended = world.run(MOST_EVENTS, stop);
        self.seeds += 1;
        self.total.add(&world.report);
        if ended {
            // How far another one came is no matter of the seed.
            self.digest.add_digest(world.digest);
        }
        if self.verbose {
            let report = &world.report;
            println!(
                "seed {seed} {:?}: {} hosts, {} streams, {} events, {:.1} s virtual, {} ms, {}{}",
                world.plan.kind,
                report.hosts,
                report.streams,
                report.events,
                report.virtual_us as f64 / 1e6,
                start.elapsed().as_millis(),
                world.digest,
                if ended { "" } else { ", cut off" }
            );
        }
        let Some(failure) = world.failure else { return true };
        println!("FAILED: seed {seed}, at {} us: {}", failure.at_us, failure.invariant);
        println!("  {}", failure.details);
        if let Some(stream) = failure.stream {
            drop(world.streams);
            let mut again = World::new(seed, kind, Some(stream));
            again.run(MOST_EVENTS, &|| false);
            println!("  stream {stream}, the last that happened:");
            again.trace.lines().for_each(|line| println!("  {line}"));
        }
        println!("again: {}", replay(seed, kind));
        false
    }
}

fn replay(seed: u64, kind: Option<Kind>) -> String {
    let kind = kind.map(|kind| format!(" --kind {kind:?}").to_lowercase()).unwrap_or_default();
    format!("./dev simulate --seed {seed}{kind}")
}

/// Seeds that once failed, or found what was broken on purpose.
fn stored() -> Vec<(u64, Kind)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let seed = words.next()?.parse().ok()?;
        let kind = match words.next()? {
            "deep" => Kind::Deep,
            "middle" => Kind::Middle,
            "wide" => Kind::Wide,
            _ => Kind::Crowd,
        };
        Some((seed, kind))
    };
    STORED.lines().filter_map(line).collect()
}
