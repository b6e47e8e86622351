//! The table for people and the JSON for programs.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::compare::Row;
use crate::lab::{Lab, Transport};

/// The machine and the way of measuring, for the record.
#[derive(Serialize)]
pub(crate) struct Setting {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    pub(crate) pinned: bool,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

impl Setting {
    pub(crate) fn of(lab: &Lab) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| {
                line.strip_prefix("model name")
                    .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
            })
            .unwrap_or_else(|| "unknown CPU".to_owned());
        Self {
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            pinned: lab.pin,
            rounds: lab.rounds,
            seconds: lab.seconds,
        }
    }

    /// What was measured on and how, in one line.
    pub(crate) fn line(&self) -> String {
        let pinned = if self.pinned { "client on CPU 0, server on CPU 1" } else { "not pinned" };
        format!(
            "{} x {}, Linux {}; {} alternating rounds of {} s, medians; {pinned}",
            self.cpus, self.cpu, self.kernel, self.rounds, self.seconds
        )
    }
}

/// How the ratios are to be read.
pub(crate) const RATIOS: &str = "ratio > 1: Convoy is better";

/// The rows as text, columns aligned; columns without any figure are left out.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "measure",
            "case",
            "unit",
            "tcp",
            "unix",
            "ring",
            "convoy",
            "/tcp",
            "/unix",
            "/ring",
            "msg/batch",
            "channel MB",
            "range of convoy",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    lines.extend(rows.iter().map(cells));
    let mut text = align(&without_empty_columns(&lines), 2);
    let mut notes: Vec<String> = rows.iter().filter_map(note).collect();
    notes.dedup();
    text += &notes.concat();
    for row in rows {
        for (transport, figures) in &row.transports {
            if let Some(failure) = &figures.failure {
                text += &format!(
                    "FAILED {} / {} / {}: {failure}\n",
                    row.case.measure,
                    row.case.name,
                    transport.name()
                );
            }
        }
    }
    text
}

fn note(row: &Row) -> Option<String> {
    Some(format!("{}: {}\n", row.case.measure, row.case.note?))
}

fn cells(row: &Row) -> Vec<String> {
    let figure = |transport| match row.transports.get(&transport) {
        None => "-".to_owned(),
        Some(figures) => match (&figures.failure, figures.median) {
            (Some(_), _) => "FAILED".to_owned(),
            (None, Some(median)) => number(median),
            (None, None) => "-".to_owned(),
        },
    };
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
    let convoy = row.transports.get(&Transport::Convoy);
    let range = match convoy {
        Some(figures) if figures.runs > 0 && row.case.traffic && !row.accelerated => {
            "NOT ACCELERATED".to_owned()
        }
        Some(figures) if figures.runs > 0 => format!("{} .. {}", number(figures.least), number(figures.most)),
        _ => "-".to_owned(),
    };
    vec![
        row.case.measure.to_owned(),
        row.case.name.clone(),
        row.case.unit.to_owned(),
        figure(Transport::Tcp),
        figure(Transport::Unix),
        figure(Transport::Ring),
        figure(Transport::Convoy),
        ratio(row.ratio_to_tcp),
        ratio(row.ratio_to_unix),
        ratio(row.ratio_to_ring),
        row.messages_per_batch.map_or("-".to_owned(), |mean| format!("{mean:.1}")),
        if row.accelerated { number(row.channel_bytes / 1e6) } else { "-".to_owned() },
        range,
    ]
}

/// Leaves out columns that have nothing but dashes below their heading.
fn without_empty_columns(lines: &[Vec<String>]) -> Vec<Vec<String>> {
    let used = |column: usize| {
        lines.len() < 2 || lines.iter().skip(1).any(|line| line.get(column).is_some_and(|cell| cell != "-"))
    };
    let kept = |line: &Vec<String>| {
        let cells = line.iter().enumerate().filter(|(column, _)| used(*column));
        cells.map(|(_, cell)| cell.clone()).collect()
    };
    lines.iter().map(kept).collect()
}

/// Pads columns: the first `left` to the left, the others to the right; a line under the heading.
pub(crate) fn align(lines: &[Vec<String>], left: usize) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
        if index == 0 {
            text += &"-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
            text.push('\n');
        }
    }
    text
}

/// A number with about four significant digits and thousands set apart.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        return grouped(value.round() as i64);
    }
    let decimals = if magnitude >= 100.0 {
        1
    } else if magnitude >= 10.0 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[derive(Serialize)]
struct Document<'a> {
    setting: &'a Setting,
    rows: &'a [Row],
}

/// Writes `results.json`.
pub(crate) fn write_json(path: &Path, setting: &Setting, rows: &[Row]) -> Result<()> {
    Ok(std::fs::write(path, serde_json::to_string_pretty(&Document { setting, rows })? + "\n")?)
}

#[cfg(test)]
mod tests {
    use super::{align, number, without_empty_columns};

    #[test]
    fn numbers_are_grouped_and_rounded() {
        assert_eq!(number(1_234_567.4), "1 234 567");
        assert_eq!(number(999.94), "999.9");
        assert_eq!(number(0.5312), "0.531");
        assert_eq!(number(-4200.0), "-4 200");
    }

    #[test]
    fn columns_without_figures_are_left_out() {
        let lines = [["a", "b", "c"], ["1", "-", "-"], ["2", "-", "3"]];
        let lines = lines.map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(without_empty_columns(&lines), [["a", "c"], ["1", "-"], ["2", "3"]]);
        assert_eq!(without_empty_columns(&lines[..1]), lines[..1]);
    }

    #[test]
    fn columns_line_up() {
        let lines = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(align(&lines, 1), "a    bb\n-------\nccc   d\n");
    }
}
