//! The file of numbers that must not be exceeded, and the comparison with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::rows;

/// By how many percent a number may exceed its baseline.
const LIMIT: f64 = 5.0;
/// The same when the compiler is not the one that the baseline was made with: it may well choose other instructions.
const LIMIT_OTHER_COMPILER: f64 = 15.0;
/// Always allowed, in instructions: a percentage of a few is less than one.
const SLACK: u64 = 2;

const COMPILER: &str = "# Compiler: ";
const HEAD: &str = "\
# Instructions per call of Convoy's hot paths, in the release build, counted by callgrind. `./dev instructions` compares
# with these numbers and fails when one is exceeded by more than 5 % (15 % with another compiler than the one below).
# A change that is worth more instructions, or saves some, writes this file anew: ./dev instructions --accept \"reason\"
";

/// What the file holds.
pub(crate) struct Baseline {
    compiler: String,
    numbers: BTreeMap<String, u64>,
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut baseline = Self { compiler: String::new(), numbers: BTreeMap::new() };
        for line in text.lines() {
            if let Some(compiler) = line.strip_prefix(COMPILER) {
                baseline.compiler = compiler.to_owned();
            } else if !line.starts_with('#') {
                let pair = line.split_once(' ').and_then(|(name, number)| Some((name, number.parse().ok()?)));
                let (name, number) = pair.with_context(|| format!("{}: {line:?}", path.display()))?;
                baseline.numbers.insert(name.to_owned(), number);
            }
        }
        Ok(baseline)
    }

    /// Prints all numbers beside the baseline's.
    ///
    /// # Errors
    /// A number that exceeds its baseline too far or has none.
    pub(crate) fn compare(&self, numbers: &BTreeMap<String, u64>) -> Result<()> {
        let compiler = compiler()?;
        let limit = if compiler == self.compiler { LIMIT } else { LIMIT_OTHER_COMPILER };
        if compiler != self.compiler {
            println!("The baseline is of {}, this is {compiler}: the limit is {limit} %.\n", self.compiler);
        }
        println!("{:<18} {:>8} {:>8} {:>8}  what", "path", "now", "baseline", "change");
        let mut exceeded = Vec::new();
        for row in rows::ALL {
            let now = numbers.get(row.name).copied().context(row.name)?;
            let Some(before) = self.numbers.get(row.name).copied() else {
                println!("{:<18} {now:>8} {:>8} {:>8}  {}", row.name, "-", "new", row.about);
                exceeded.push(row.name);
                continue;
            };
            let change = 100.0 * (now as f64 - before as f64) / before.max(1) as f64;
            println!("{:<18} {now:>8} {before:>8} {change:>+7.1}%  {}", row.name, row.about);
            if exceeds(now, before, limit) {
                exceeded.push(row.name);
            }
        }
        if exceeded.is_empty() {
            return Ok(());
        }
        bail!(
            "more instructions than the baseline allows: {} (see --breakdown PATH; --accept \"reason\" takes them)",
            exceeded.join(", ")
        )
    }
}

fn exceeds(now: u64, before: u64, limit: f64) -> bool {
    now > before + SLACK && now as f64 > before as f64 * (1.0 + limit / 100.0)
}

/// Writes the file anew.
pub(crate) fn write(path: &Path, reason: &str, numbers: &BTreeMap<String, u64>) -> Result<()> {
    let mut text = format!("{HEAD}# Reason: {}\n{COMPILER}{}\n", reason.replace('\n', " "), compiler()?);
    for row in rows::ALL {
        writeln!(text, "{} {}", row.name, numbers.get(row.name).context(row.name)?)?;
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// What the compiler says of itself.
fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_number_may_grow_by_the_limit_or_by_the_slack() {
        assert!(!exceeds(105, 100, 5.0) && exceeds(106, 100, 5.0));
        assert!(!exceeds(9, 7, 5.0) && exceeds(10, 7, 5.0));
        assert!(!exceeds(1, 100, 5.0));
    }

    #[test]
    fn what_is_written_is_read_again_and_suffices() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers: BTreeMap<_, _> = rows::ALL.iter().map(|row| (row.name.to_owned(), 100)).collect();
        write(file.path(), "first\nnumbers", &numbers).unwrap();
        let baseline = Baseline::read(file.path()).unwrap();
        assert_eq!(baseline.numbers, numbers);
        baseline.compare(&numbers).unwrap();
        let more = numbers.into_iter().map(|(name, number)| (name, number + 30)).collect();
        assert!(baseline.compare(&more).is_err());
    }
}
