//! Every target over its corpus and random changes of it: what `./dev fuzz` does for long, for about a second each.
//!
//! CONVOY_FUZZ_SEED (1) begins the random changes, CONVOY_FUZZ_INPUTS is how many there are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_fuzz::mutate::{self, Random};
use convoy_fuzz::{TARGETS, Target};
use std::path::Path;
use std::time::{Duration, Instant};

/// Enough for a target of which a run takes microseconds.
const INPUTS: u64 = 20_000;
/// A slow machine tries fewer.
const LONGEST: Duration = Duration::from_secs(2);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

fn run(name: &str) {
    let target: &Target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "no corpus");
    corpus.iter().for_each(|input| replayable(target, input));
    let seed = setting("CONVOY_FUZZ_SEED").unwrap_or(1);
    let wanted = setting("CONVOY_FUZZ_INPUTS").unwrap_or(INPUTS);
    let (mut random, began, mut tried) = (Random::new(seed), Instant::now(), 0);
    while tried < wanted && (began.elapsed() < LONGEST || wanted != INPUTS) {
        replayable(target, &mutate::input(&mut random, &corpus));
        tried += 1;
    }
    println!("{name}: {} inputs of the corpus, {tried} others, seed {seed}", corpus.len());
}

/// The panic names what did not hold; this, what to replay.
fn replayable(target: &Target, input: &[u8]) {
    let replay = Replay { name: target.name, input };
    (target.run)(input);
    std::mem::forget(replay);
}

/// Prints its input when a panic passes by.
struct Replay<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        eprintln!("target {}, input {:?}", self.name, self.input);
    }
}

/// The corpora are part of the sources: what they hold is worth its room.
#[test]
fn the_corpora_are_small() {
    let bytes: usize = TARGETS.iter().flat_map(|target| corpus(target.name)).map(|input| input.len()).sum();
    assert!(bytes < 300 << 10, "{bytes} bytes: ./dev fuzz --minimise");
}

macro_rules! targets {
    ($($target:ident),* $(,)?) => {
        $(#[test] fn $target() { run(stringify!($target)); })*

        #[test]
        fn every_target_is_listed() {
            let listed = [$(stringify!($target)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(listed));
        }
    };
}

targets!(
    frame, batch, link, stream, segment, port, channel, registry, records, hello, agents, program, request,
    settings, policy
);
