//! Random programs over the socket API: made from a seed, run natively and preloaded, compared line by line, and made
//! smaller when they differ. What a step does is in the test program `fuzz`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::kit::random::Random;
use crate::{Mode, Task, compare};

/// The environment variable that carries the steps to the test program.
pub const SCRIPT: &str = "FUZZ_SCRIPT";
/// Set where agents go while the program runs.
pub const FAULTS: &str = "FUZZ_FAULTS";
/// Connections of a program.
pub const LINKS: u64 = 3;

/// Every step with how many numbers it takes, and how often it is chosen. Numbers are taken modulo what makes sense.
const VERBS: &[(&str, usize, u64)] = &[
    ("send", 3, 12),
    ("recv", 3, 14),
    ("there-send", 2, 12),
    ("there-recv", 1, 8),
    ("poll", 2, 6),
    ("select", 1, 3),
    ("queued", 1, 3),
    ("add", 3, 5),
    ("modify", 3, 3),
    ("delete", 2, 2),
    ("look", 1, 8),
    ("dup", 1, 3),
    ("dup-over", 2, 1),
    ("close-one", 1, 2),
    ("nonblocking", 2, 2),
    ("option", 2, 3),
    ("child-send", 2, 2),
    ("child-recv", 1, 2),
    ("impatient", 2, 2),
    ("interrupted", 2, 1),
    ("await", 3, 4),
    ("bulk", 3, 1),
    ("fill", 2, 1),
    ("urgent", 1, 1),
    ("there-urgent", 1, 1),
    ("pass", 3, 2),
    ("pass-to-itself", 1, 1),
    ("exec", 3, 1),
    ("hold", 0, 1),
    ("release", 2, 2),
    ("nest", 1, 1),
    ("unnest", 0, 1),
    ("ready", 1, 2),
    ("pipe-add", 2, 1),
    ("pipe-write", 0, 2),
    ("pipe-read", 0, 1),
    ("shutdown", 1, 1),
    ("there-shutdown", 0, 1),
    ("there-close", 0, 1),
    ("there-reset", 0, 1),
    ("reset", 0, 1),
    ("close", 0, 2),
    ("open", 1, 6),
];

/// How many programs to run, and which.
pub struct Budget {
    first: u64,
    programs: u64,
    until: Option<Instant>,
}

impl Budget {
    /// From seed FUZZ_SEED (1), FUZZ_PROGRAMS programs, else so many; with FUZZ_SECONDS as many as there is time for.
    pub fn from_environment(programs: u64) -> Self {
        let until = setting("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let programs = setting("FUZZ_PROGRAMS").unwrap_or(programs);
        Self { first: setting("FUZZ_SEED").unwrap_or(1), programs, until }
    }

    /// The seeds, as long as there is time.
    pub fn seeds(self) -> impl Iterator<Item = u64> {
        let last = if self.until.is_some() { u64::MAX } else { self.first + self.programs };
        (self.first..last).take_while(move |_| self.until.is_none_or(|until| Instant::now() < until))
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A program that once differed: a file of the corpus, whose first line names the variant.
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// One of those that were asked for.
    pub variant: &'static str,
    /// What it does.
    pub steps: Vec<String>,
}

/// The programs of the corpus in one of these variants.
pub fn kept(variants: &[&'static str]) -> Vec<Kept> {
    let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a program");
        let (first, steps) = text.split_once('\n').expect("a variant");
        let variant = variants.iter().copied().find(|variant| first == format!("# {variant}"))?;
        Some(Kept { path, variant, steps: steps.lines().map(str::to_owned).collect() })
    };
    paths.into_iter().filter_map(read).collect()
}

/// A random program: one of the variants, and steps of one line each, `LINK VERB NUMBERS...`.
pub fn generate(seed: u64, variants: &[&'static str]) -> (&'static str, Vec<String>) {
    let mut random = Random::new(seed);
    let variant = variants[random.below(variants.len() as u64) as usize];
    let total: u64 = VERBS.iter().map(|(.., weight)| weight).sum();
    let steps = 10 + random.below(50);
    let step = |_| {
        let mut choice = random.below(total);
        let (verb, numbers, _) = VERBS
            .iter()
            .find(|(.., weight)| {
                let here = choice < *weight;
                choice = choice.wrapping_sub(*weight);
                here
            })
            .expect("a verb");
        let mut line = format!("{} {verb}", random.below(LINKS));
        for _ in 0..*numbers {
            // Small numbers are as likely as large ones.
            let bits = random.below(15);
            let _ = write!(line, " {}", random.number() & ((1 << bits) - 1));
        }
        line
    };
    (variant, (0..steps).map(step).collect())
}

/// Runs a program natively and preloaded; what differs, in words. Nothing when all is the same.
pub fn difference(program: &str, variant: &str, steps: &[String]) -> Option<String> {
    let task = Task::new(Path::new(program)).arg("script").arg(variant).set(SCRIPT, steps.join("\n"));
    let native = task.clone().mode(Mode::Native).run();
    let other = task.mode(Mode::Preloaded).run();
    let difference = compare::difference(&native, &other);
    if difference.is_none() && variant.ends_with("warm") {
        other.assert_accelerated();
    }
    difference.map(|difference| format!("{difference}\n{}", other.report()))
}

/// Leaves steps out as long as the program still differs.
pub fn shrink(mut steps: Vec<String>, differs: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(from..(from + piece).min(steps.len()));
            if differs(&fewer) {
                steps = fewer;
            } else {
                from += piece;
            }
        }
        piece /= 2;
    }
    steps
}
