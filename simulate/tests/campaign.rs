//! The same seed is the same run, and what has to be true holds for a few seeds of each kind that is quick.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn simulate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_convoy-simulate")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

fn digest(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("digest")).unwrap_or_default()
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, first) = simulate(&["--seed", "7", "--kind", "deep"]);
    let (two, second) = simulate(&["--seed", "7", "--kind", "deep"]);
    let (three, other) = simulate(&["--seed", "8", "--kind", "deep"]);
    assert!(one && two && three, "{first}{second}{other}");
    assert!(!digest(&first).is_empty());
    assert_eq!(digest(&first), digest(&second));
    assert_ne!(digest(&first), digest(&other));
}

#[test]
fn the_table_of_scale_has_a_row_for_each_pattern() {
    let (passed, text) = simulate(&["--scale"]);
    assert!(passed, "{text}");
    for hosts in ["| 10 |", "| 1000 |", "| 10000 |"] {
        assert_eq!(text.lines().filter(|line| line.starts_with(hosts)).count(), 3, "{text}");
    }
}

#[test]
fn a_run_reports_what_it_did() {
    let (passed, text) = simulate(&["--seed", "2", "--kind", "deep"]);
    assert!(passed, "{text}");
    for figure in ["simulated time", "bytes checked", "faults", "events/s", "path switches"] {
        assert!(text.contains(figure), "{figure} is missing in\n{text}");
    }
}
