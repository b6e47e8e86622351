//! Random programs over the socket API, natively and under Convoy.
//!
//! FUZZ_SEED (1) is the seed of the first program, FUZZ_PROGRAMS (60) how many there are, FUZZ_SECONDS how long to go on
//! instead. A program that differs is made smaller and printed; put it into tests/corpus to keep it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use convoy_tests::fuzz;

const PROGRAM: &str = convoy_tests::program!("fuzz");

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn random_programs() {
    let first = setting("FUZZ_SEED").unwrap_or(1);
    let seconds = setting("FUZZ_SECONDS").map(Duration::from_secs);
    let programs = setting("FUZZ_PROGRAMS").unwrap_or(60);
    let began = Instant::now();
    let goes_on = |done: u64| seconds.map_or(done < programs, |seconds| began.elapsed() < seconds);
    let mut seed = first;
    while goes_on(seed - first) {
        let (variant, steps) = fuzz::generate(seed);
        if let Some(difference) = fuzz::difference(PROGRAM, variant, &steps) {
            let fewer = fuzz::shrink(PROGRAM, variant, steps);
            let now = fuzz::difference(PROGRAM, variant, &fewer);
            panic!(
                "the program of seed {seed}: {difference}\nsmaller, {}:\n\n# {variant}\n{}\n",
                now.unwrap_or_else(|| "which does not always differ".into()),
                fewer.join("\n")
            );
        }
        seed += 1;
    }
    println!("{} programs, seeds {first} to {}", seed - first, seed - 1);
}

/// Programs that once differed. The first line of each names the variant.
#[test]
fn programs_that_once_differed() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a program");
        let mut lines = text.lines().map(str::to_owned);
        let variant = lines.next().expect("a variant");
        let steps: Vec<String> = lines.collect();
        let difference = fuzz::difference(PROGRAM, variant.trim_start_matches("# "), &steps);
        assert!(difference.is_none(), "{}: {}", path.display(), difference.unwrap_or_default());
    }
}
