//! Counts the instructions of Convoy's hot paths and compares them with what they were: `./dev instructions`.
//!
//! Times depend on the machine and on what else it does; instructions do not. They are counted by callgrind while
//! `load-calls` makes each call some times (`count`), read (`profile`), put into rows (`rows`) and compared
//! (`baseline`); `frames`, `stages` and `breakdown` tell where they go.

mod baseline;
mod breakdown;
mod count;
mod frames;
mod profile;
mod rows;
mod stages;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::baseline::Baseline;
use crate::count::Counter;
use crate::frames::Frames;
use crate::rows::Counted;

/// Count the instructions of Convoy's hot paths and compare them with the baseline.
#[derive(Parser)]
#[command(name = "convoy-instructions", version)]
struct Options {
    /// Take what is counted as the new baseline, for this reason
    #[arg(long, value_name = "REASON")]
    accept: Option<String>,
    /// Print where the instructions of one path go instead (a counted call: send, recv, epoll_wait_1, ...)
    #[arg(long, value_name = "PATH", conflicts_with = "accept")]
    breakdown: Option<String>,
    /// The file of numbers
    #[arg(long, default_value = "bench/instructions.txt")]
    baseline: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("convoy-instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let counter = Counter::new()?;
    let with = counter.with_convoy()?;
    let frames = Frames::of(&counter.library, with.iter())?;
    if let Some(path) = &options.breakdown {
        let call = rows::least_call(&with, path).with_context(|| format!("there is no path {path:?}"))?;
        breakdown::print(call, &frames);
        return Ok(());
    }
    let numbers = Counted { with, without: counter.without_convoy()?, frames }.numbers()?;
    match &options.accept {
        Some(reason) => baseline::write(&options.baseline, reason, &numbers),
        None => Baseline::read(&options.baseline)?.compare(&numbers),
    }
}
