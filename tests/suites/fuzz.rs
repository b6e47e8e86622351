//! Random programs over the socket API, natively and under Convoy.
//!
//! FUZZ_SEED (1) is the seed of the first program, FUZZ_PROGRAMS (60) how many there are, FUZZ_SECONDS how long to go on
//! instead. A program that differs is made smaller and printed; put it into tests/corpus to keep it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::ALL_VARIANTS;
use convoy_tests::fuzz::{self, Budget};

const PROGRAM: &str = convoy_tests::program!("fuzz");

#[test]
fn random_programs() {
    let mut programs = 0;
    for seed in Budget::from_environment(60).seeds() {
        let (variant, steps) = fuzz::generate(seed, ALL_VARIANTS);
        if let Some(difference) = fuzz::difference(PROGRAM, variant, &steps) {
            let differs = |steps: &[String]| fuzz::difference(PROGRAM, variant, steps);
            let fewer = fuzz::shrink(steps, |steps| differs(steps).is_some());
            let now = differs(&fewer);
            panic!(
                "the program of seed {seed}: {difference}\nsmaller, {}:\n\n# {variant}\n{}\n",
                now.unwrap_or_else(|| "which does not always differ".into()),
                fewer.join("\n")
            );
        }
        programs += 1;
    }
    println!("{programs} programs");
}

#[test]
fn programs_that_once_differed() {
    for kept in fuzz::kept(ALL_VARIANTS) {
        let difference = fuzz::difference(PROGRAM, kept.variant, &kept.steps);
        assert!(difference.is_none(), "{}: {}", kept.path.display(), difference.unwrap_or_default());
    }
}
