//! Counters for people: an overview of processes, and everything about one.

use super::{Shown, open};
use convoy_runtime::stats::{LaneCounters, Process, Snapshot};
use std::fmt::Write;

const HEADS: [&str; 14] = [
    "PID",
    "PROGRAM",
    "OPEN",
    "MSGS OUT",
    "MSGS IN",
    "BYTES OUT",
    "BYTES IN",
    "BATCHES",
    "MSGS/BATCH",
    "BELLS",
    "SLEEPS",
    "PROMOTED",
    "BYPASSED",
    "DEMOTED",
];
/// Columns of text, which stand to the left.
const LEFT: [usize; 1] = [1];

/// What is so much at a moment, and has no speed.
const GAUGES: [&str; 2] = ["memory_bytes", "memory_budget"];

/// One line for each process, and below it why connections are on the kernel.
pub(super) fn overview(shown: &[Shown]) -> String {
    if shown.is_empty() {
        return "No process of yours with a TCP connection runs under Convoy. Start one with 'convoy run PROGRAM'.\n".to_owned();
    }
    let rows: Vec<_> = shown.iter().map(row).collect();
    let mut text = aligned(&HEADS, &LEFT, &rows);
    for one in shown {
        let reasons = reasons(&one.snapshot);
        if !reasons.is_empty() {
            let _ = writeln!(text, "{} {}: {reasons}", one.snapshot.pid, one.snapshot.program);
        }
    }
    if shown.iter().any(|one| one.before.is_some()) {
        text.push_str("All but OPEN per second.\n");
    }
    text
}

fn row(one: &Shown) -> Vec<String> {
    let count = |name: &'static str| short(one.number(|page| page.get(name)));
    let sum = |prefix: &'static str| short(one.number(|page| page.sum(prefix)));
    let per_batch = one.messages_per_batch().map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
    vec![
        one.snapshot.pid.to_string(),
        printable(&one.snapshot.program),
        one.open().to_string(),
        count("frames_sent"),
        count("frames_received"),
        count("bytes_sent"),
        count("bytes_received"),
        count("batches_received"),
        per_batch,
        count("doorbells_rung"),
        count("sleeps"),
        count("promotions"),
        sum("bypasses_"),
        sum("demotions_"),
    ]
}

/// Why connections are on the kernel, as far as it happened.
fn reasons(page: &Snapshot) -> String {
    let parts = [("bypasses_", "bypassed"), ("demotions_", "demoted")].map(|(prefix, word)| {
        let some = page.counters().filter(|(name, value)| name.starts_with(prefix) && *value > 0);
        let list: Vec<_> =
            some.map(|(name, value)| format!("{} {value}", name[prefix.len()..].replace('_', " "))).collect();
        if list.is_empty() { String::new() } else { format!("{word}: {}", list.join(", ")) }
    });
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

/// Every counter of a process with its meaning.
pub(super) fn details(one: &Shown) -> String {
    let page = &one.snapshot;
    let mut text = format!(
        "{} (process {}), {} connections accelerated now",
        printable(&page.program),
        page.pid,
        open(page)
    );
    if let Some(ratio) = one.messages_per_batch() {
        let _ = write!(text, ", {ratio:.2} messages per batch");
    }
    text.push_str(if one.before.is_some() { ", counters per second\n" } else { "\n" });
    for (name, help) in Process::FIELDS.iter().chain(LaneCounters::FIELDS) {
        let number = match one.before {
            Some(_) if !GAUGES.contains(name) => format!("{:.1}", one.number(|page| page.get(name))),
            _ => page.get(name).to_string(),
        };
        let _ = writeln!(text, "  {name:<24} {number:>16}  {help}");
    }
    text
}

/// Columns under their heads; those in `left` stand to the left.
pub(super) fn aligned(heads: &[&str], left: &[usize], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines = || std::iter::once(&heads).chain(rows);
    let width = |column: usize| {
        lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if left.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let cells: Vec<_> = cells.collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// A number in at most six characters: 12345, 1.2M.
pub(super) fn short(number: f64) -> String {
    const STEPS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")];
    for (limit, unit) in STEPS {
        if number >= limit {
            let scale = if unit == "k" { 1e3 } else { limit };
            let value = number / scale;
            return if value >= 99.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") };
        }
    }
    if number > 0.0 && number < 10.0 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// A name from outside without control characters.
pub(super) fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let pairs = [
            (0.0, "0"),
            (5.0, "5"),
            (1.25, "1.2"),
            (99999.0, "99999"),
            (123456.0, "123k"),
            (1234567.0, "1.2M"),
        ];
        for (number, text) in pairs.into_iter().chain([(45e9, "45.0G"), (999e9, "999G"), (2e12, "2.0T")]) {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let row = vec!["1".to_owned(); HEADS.len()];
        let text = aligned(&HEADS, &LEFT, &[row]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].starts_with("  1  1 "));
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert!(overview(&[]).contains("convoy run"));
    }
}
