//! Compares what a test program says natively with what it says preloaded.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use crate::{Mode, Run, Task};

/// Every way to place the peer (a thread of the program, or a process), to choose who connects, and to start a
/// case with traffic that has already moved to the channel or on a fresh connection.
pub const ALL_VARIANTS: &[&str] = &[
    "thread-client-warm",
    "thread-server-cold",
    "process-client-warm",
    "process-client-cold",
    "process-server-warm",
    "process-server-cold",
];

/// The variants with the peer in a process of its own.
pub const PROCESS_VARIANTS: &[&str] =
    &["process-client-warm", "process-client-cold", "process-server-warm", "process-server-cold"];

/// The variants with the peer on another host.
pub const HOST_VARIANTS: &[&str] =
    &["host-client-warm", "host-client-cold", "host-server-warm", "host-server-cold"];

/// For programs that arrange their processes themselves.
pub const WARMTHS: &[&str] = &["process-server-warm", "process-server-cold"];

/// One case of one test program, to be run in several variants and modes.
#[derive(Clone)]
pub struct Check {
    task: Task,
    variants: Vec<String>,
    modes: Vec<Mode>,
    accelerated: bool,
    quiet: bool,
}

impl Check {
    /// Runs a case in all variants, and expects that warm ones use the channel.
    pub fn new(program: &str, case: &str) -> Self {
        Self {
            task: Task::new(program).arg(case),
            variants: ALL_VARIANTS.iter().map(|&variant| variant.to_owned()).collect(),
            modes: vec![Mode::Preloaded],
            accelerated: true,
            quiet: true,
        }
    }

    /// Chooses the variants.
    #[must_use]
    pub fn variants(mut self, variants: &[&str]) -> Self {
        self.variants = variants.iter().map(|&variant| variant.to_owned()).collect();
        self
    }

    /// Chooses what is compared with the native run.
    #[must_use]
    pub fn modes(mut self, modes: &[Mode]) -> Self {
        self.modes = modes.to_vec();
        self
    }

    /// Adds a setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.task = self.task.set(name, value);
        self
    }

    /// How long each run may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.task = self.task.limit(limit);
        self
    }

    /// Whether the channel has to be used matters only where there is something to accelerate.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.accelerated = false;
        self
    }

    /// Lets the library write lines to stderr; the caller looks at them.
    #[must_use]
    pub fn noisy(mut self) -> Self {
        self.quiet = false;
        self
    }

    /// Runs everything and panics at the first difference; gives back the runs that were compared.
    pub fn compare(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for variant in &self.variants {
            let task = self.task.clone().arg(variant);
            let native = task.clone().mode(Mode::Native).run();
            assert!(native.status.success(), "the case does not work natively\n{}", native.report());
            for &mode in &self.modes {
                let run = task.clone().mode(mode).run();
                same(&native, &run, self.quiet);
                if self.accelerated && mode == Mode::Preloaded && variant.ends_with("warm") {
                    run.assert_accelerated();
                }
                runs.push(run);
            }
        }
        runs
    }
}

/// Panics at the first line that differs.
fn same(native: &Run, other: &Run, quiet: bool) {
    if let Some(difference) = difference(native, other) {
        panic!("{difference}\n{}", other.report());
    }
    assert!(!quiet || native.stderr == other.stderr, "stderr differs\n{}", other.report());
}

pub fn difference(native: &Run, other: &Run) -> Option<String> {
    differ((&native.stdout, native.status), (&other.stdout, other.status))
}

/// The first line in which two transcripts differ, or else their ends, in words.
pub fn differ(native: (&str, ExitStatus), other: (&str, ExitStatus)) -> Option<String> {
    let (mut left, mut right) = (native.0.lines(), other.0.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (expected, got) = (left.next(), right.next());
        if expected != got {
            let (expected, got) = (expected.unwrap_or("(nothing)"), got.unwrap_or("(nothing)"));
            return Some(format!("line {number} differs\n  natively:  {expected}\n  otherwise: {got}"));
        }
        if expected.is_none() {
            break;
        }
    }
    let (expected, got) = (native.1, other.1);
    (expected != got).then(|| format!("ended differently\n  natively:  {expected}\n  otherwise: {got}"))
}

/// Panics when a program has a case that no test runs.
pub fn assert_listed(program: &str, listed: &[&str]) {
    let run = Task::new(Path::new(program)).arg("list").run();
    let mut known: Vec<&str> = run.stdout.lines().collect();
    let mut listed = listed.to_vec();
    known.sort_unstable();
    listed.sort_unstable();
    assert_eq!(known, listed, "the program's cases, and the ones that this suite runs");
}
