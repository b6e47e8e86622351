//! What processes hold, looked at again and again, and whether it grows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What one process holds at one moment. Memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub seconds: f64,
    pub anonymous: f64,
    pub resident: f64,
    pub descriptors: f64,
    pub threads: f64,
}

/// All samples of one thing that lives as long as the soak.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

/// How one quantity went.
struct Trend {
    first: f64,
    last: f64,
    /// Per hour, by the least squares.
    slope: f64,
}

/// Quantities: their names, how much more of it at the end than at the beginning is no growth, and what they are of a sample.
type Quantity = (&'static str, fn(f64) -> f64, fn(&Sample) -> f64);
const QUANTITIES: [Quantity; 4] = [
    ("anonymous KiB", |first| first * 0.1 + 3072.0, |sample| sample.anonymous),
    ("resident KiB", |first| first * 0.15 + 6144.0, |sample| sample.resident),
    ("descriptors", |first| first * 0.1 + 8.0, |sample| sample.descriptors),
    ("threads", |first| first * 0.1 + 3.0, |sample| sample.threads),
];

impl Sample {
    /// Of a process that lives, and of its children that do.
    pub fn of(pid: u32, seconds: f64) -> Option<Self> {
        let mut sum = Self::of_one(pid, seconds)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            let Some(one) = Self::of_one(child, seconds) else { continue };
            sum.anonymous += one.anonymous;
            sum.resident += one.resident;
            sum.descriptors += one.descriptors;
            sum.threads += one.threads;
        }
        Some(sum)
    }

    fn of_one(pid: u32, seconds: f64) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some(Self {
            seconds,
            anonymous: number("RssAnon:")?,
            resident: number("VmRSS:")?,
            threads: number("Threads:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64,
        })
    }

    /// Of a directory: files as descriptors, bytes as memory.
    pub fn of_directory(path: &Path, seconds: f64) -> Self {
        let mut sample = Self { seconds, ..Self::default() };
        let mut left = vec![path.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let Ok(about) = entry.metadata() else { continue };
                if about.is_dir() {
                    left.push(entry.path());
                }
                sample.descriptors += 1.0;
                sample.anonymous += about.len() as f64 / 1024.0;
            }
        }
        sample
    }
}

impl Series {
    /// Beginning (the second fifth: the first is warming up) and end (the last fifth) of a quantity, and its slope between.
    fn trend(&self, of: fn(&Sample) -> f64) -> Option<Trend> {
        let fifth = self.samples.len() / 5;
        if fifth == 0 {
            return None;
        }
        let values = |range: &[Sample]| {
            let mut values: Vec<f64> = range.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (first, last) = (&self.samples[fifth..2 * fifth], &self.samples[self.samples.len() - fifth..]);
        Some(Trend { first: values(first), last: values(last), slope: slope(&self.samples[fifth..], of) })
    }

    /// A line for each quantity, and the quantities that have grown.
    pub fn judge(&self) -> (String, Vec<String>) {
        let (mut text, mut grown) = (String::new(), Vec::new());
        for (name, allowed, of) in QUANTITIES {
            let Some(Trend { first, last, slope }) = self.trend(of) else { continue };
            if first == 0.0 && last == 0.0 {
                continue;
            }
            let flat = last <= first + allowed(first);
            let verdict = if flat { "flat" } else { "GROWS" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  {:<28} {name:<14} {first:>9.0} -> {last:>9.0}  {slope:>+9.1}/h  {verdict}",
                self.name
            );
            if !flat {
                grown.push(format!("{} of {}: {first:.0} -> {last:.0}", name, self.name));
            }
        }
        (text, grown)
    }

    /// Lines of the CSV file.
    pub fn csv(&self) -> String {
        let line = |sample: &Sample| {
            let Sample { seconds, anonymous, resident, descriptors, threads } = sample;
            format!("{},{seconds:.1},{anonymous:.0},{resident:.0},{descriptors},{threads}\n", self.name)
        };
        self.samples.iter().map(line).collect()
    }
}

/// The least squares' growth per hour.
fn slope(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = samples.iter().fold((0.0, 0.0), |(x, y), sample| (x + sample.seconds, y + of(sample)));
    let (x, y) = (x / count, y / count);
    let (over, under) = samples.iter().fold((0.0, 0.0), |(over, under), sample| {
        let away = sample.seconds - x;
        (over + away * (of(sample) - y), under + away * away)
    });
    if under == 0.0 { 0.0 } else { over / under * 3600.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(of: impl Fn(f64) -> f64) -> Series {
        let sample = |number: i32| {
            let seconds = f64::from(number) * 10.0;
            Sample { seconds, anonymous: of(seconds), descriptors: 20.0, ..Sample::default() }
        };
        Series { name: "x".into(), samples: (0..100).map(sample).collect() }
    }

    #[test]
    fn growth_is_told_from_noise_and_from_warming_up() {
        let noise = |seconds: f64| if (seconds as u64 / 10).is_multiple_of(3) { 700.0 } else { 0.0 };
        assert!(series(|seconds| 10_000.0 + noise(seconds)).judge().1.is_empty());
        let warm = |seconds: f64| if seconds < 190.0 { 1_000.0 } else { 30_000.0 };
        assert!(series(warm).judge().1.is_empty());
        let leak = series(|seconds| 10_000.0 + noise(seconds) + seconds * 10.0);
        assert_eq!(leak.judge().1.len(), 1, "{}", leak.judge().0);
        assert!((slope(&leak.samples, |sample| sample.anonymous) / 36_000.0 - 1.0).abs() < 0.05);
    }
}
