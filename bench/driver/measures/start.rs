//! How much longer a program takes to start and end with the preload library. The tcp column is without it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::compare::{Better, Case, Row, Sample, compare, median};
use crate::lab::{Lab, Run, Transport};

/// A program that does nothing but start and end.
const PROGRAM: &str = "true";
/// Of one round; their median counts.
const STARTS: usize = 100;

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let case = Case::new("start", "wall time of `true`", "us", Better::Lower).without_traffic();
    report(compare(lab, case, &Transport::NO_UNIX, |run| once(run)));
}

fn once(run: &Run<'_>) -> Result<Sample> {
    let mut times = (0..STARTS).map(|_| start(run)).collect::<Result<Vec<f64>>>()?;
    let value = median(&mut times).unwrap_or(f64::NAN);
    Ok(Sample { value, extra: BTreeMap::new(), cpu_seconds: 0.0, counters: run.take_counters() })
}

/// One start and end, in microseconds.
fn start(run: &Run<'_>) -> Result<f64> {
    let mut command = run.command(PROGRAM);
    // Counters at the end would be written to a file, which they are not by default.
    command.env_remove("CONVOY_STATS").stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let time = begun.elapsed().as_secs_f64() * 1e6;
    ensure!(status.success(), "{PROGRAM} ended with {status}");
    Ok(time)
}
