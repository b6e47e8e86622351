//! The counters that processes under Convoy leave behind when they end.

use std::collections::BTreeMap;
use std::path::Path;

/// The sums of all counters of all processes of a run. Missing files and missing names count as zero.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    sums: BTreeMap<String, u64>,
    processes: usize,
}

impl Counters {
    /// Reads every `*.json` file in a directory.
    pub fn read(directory: &Path) -> Self {
        let mut counters = Self::default();
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                counters.processes += 1;
                counters.add(&text);
            }
        }
        counters
    }

    /// Adds every `"name": number` of a JSON text; objects inside objects are taken apart.
    fn add(&mut self, text: &str) {
        let mut rest = text;
        while let Some(start) = rest.find('"') {
            let after = &rest[start + 1..];
            let Some(end) = after.find('"') else { return };
            let (name, tail) = (&after[..end], after[end + 1..].trim_start());
            rest = &after[end + 1..];
            let Some(value) = tail.strip_prefix(':') else {
                continue;
            };
            let value = value.trim_start();
            let digits = value.bytes().take_while(u8::is_ascii_digit).count();
            if let Ok(number) = value[..digits].parse::<u64>() {
                let sum = self.sums.entry(name.to_owned()).or_default();
                *sum = sum.saturating_add(number);
            }
        }
    }

    /// The sum of one counter over all processes.
    pub fn get(&self, name: &str) -> u64 {
        self.sums.get(name).copied().unwrap_or(0)
    }

    /// The sum of all counters whose names start so.
    pub fn starting_with(&self, prefix: &str) -> u64 {
        self.sums.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }

    /// A counter that has gone below zero.
    pub fn impossible(&self) -> Option<&str> {
        self.sums.iter().find(|(_, value)| **value >= 1 << 63).map(|(name, _)| name.as_str())
    }

    /// How many processes left counters behind.
    pub fn processes(&self) -> usize {
        self.processes
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} processes:", self.processes)?;
        for (name, value) in self.sums.iter().filter(|(_, value)| **value > 0) {
            write!(out, " {name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Counters;

    #[test]
    fn sums_nested_numbers_and_skips_the_rest() {
        let mut counters = Counters::default();
        counters.add(r#"{"name":"redis \u00e9","bytes_sent": 12, "by": {"demotions_exec":3,"x":"y"}}"#);
        counters.add(r#"{"bytes_sent":30,"demotions_passed" : 1}"#);
        assert_eq!(counters.get("bytes_sent"), 42);
        assert_eq!(counters.starting_with("demotions_"), 4);
        assert_eq!(counters.get("frames_sent"), 0);
    }
}
