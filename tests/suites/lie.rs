//! A peer that lies (`programs/lie`): the honest process may lose its channel with it, and nothing else.
//!
//! LIE_SECONDS (24) is how long, in runs of LIE_RUN_SECONDS (6) each with a registry of its own; LIE_SEED (1) is the seed
//! of the first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use convoy_tests::{Mode, Task};

const PROGRAM: &str = convoy_tests::program!("lie");

fn setting(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What several runs have seen.
#[derive(Default)]
struct Sums {
    numbers: BTreeMap<String, u64>,
    channels_lost: u64,
    promotions: u64,
}

impl Sums {
    /// Takes `NAME NUMBER ..` and `streams FATE NUMBER` apart.
    fn add(&mut self, stdout: &str) {
        for line in stdout.lines() {
            let line =
                line.strip_prefix("streams ").map_or(line.to_owned(), |rest| format!("streams-{rest}"));
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.chunks_exact(2) {
                let sum = self.numbers.entry(pair[0].to_owned()).or_default();
                let number: u64 = pair[1].parse().expect("a number");
                *sum = if pair[0] == "memory" { (*sum).max(number) } else { *sum + number };
            }
        }
    }

    fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}

#[test]
fn a_lying_peer_costs_its_own_channel_only() {
    let limit = Duration::from_secs(setting("LIE_SECONDS", 24));
    let (each, first) = (setting("LIE_RUN_SECONDS", 6), setting("LIE_SEED", 1));
    let (began, mut seed, mut sums) = (Instant::now(), first, Sums::default());
    while began.elapsed() < limit {
        let task = Task::new(PROGRAM).arg("run").arg(each.to_string()).arg(seed.to_string()).arg("both");
        // A liar writes over the words by which the others wake each other.
        let task = task.set("CONVOY_LOOK_SECONDS", "5");
        let run = task.mode(Mode::Preloaded).limit(Duration::from_secs(each + 240)).run();
        assert!(run.status.success(), "seed {seed}\n{}", run.report());
        run.assert_accelerated();
        sums.add(&run.stdout);
        sums.channels_lost += run.counters.get("channels_broken");
        sums.promotions += run.counters.get("promotions");
        seed += 1;
    }
    println!(
        "{} words scribbled by {} liars, {} channels lost, {} bytes of the friend checked, {} short connections, {} promotions, \
         seeds {first} to {}, {:.1} minutes; at most {} KiB of memory; ends of the liars' streams: {}",
        sums.get("words"),
        sums.get("liars"),
        sums.channels_lost,
        sums.get("checked"),
        sums.get("lives"),
        sums.promotions,
        seed - 1,
        began.elapsed().as_secs_f64() / 60.0,
        sums.get("memory"),
        fates(&sums),
    );
    assert!(sums.get("words") > 0 && sums.channels_lost > 0 && sums.get("checked") > 0, "nothing was tried");
}

fn fates(sums: &Sums) -> String {
    let fates = sums.numbers.iter().filter_map(|(name, count)| Some((name.strip_prefix("streams-")?, count)));
    fates.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn shared_memory_lies_between_guards() {
    let run = Task::new(PROGRAM).arg("guards").mode(Mode::Preloaded).run();
    assert!(run.status.success(), "{}", run.report());
    run.assert_accelerated();
    let guarded = run.stdout.trim().strip_prefix("guarded ").and_then(|count| count.parse::<u32>().ok());
    assert!(
        guarded.is_some_and(|count| count >= 3),
        "both ends' segments and the registry\n{}",
        run.report()
    );
}
