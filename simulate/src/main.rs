//! `convoy-simulate`: Convoy's core under deterministic simulation. See `docs/scale.md` and `docs/design.md`.

mod agent;
mod campaign;
mod channel;
mod chart;
mod check;
mod clock;
mod faults;
mod joining;
mod kernel;
mod lies;
mod link;
mod pattern;
mod plan;
mod port;
mod receiving;
mod report;
mod returning;
mod rng;
mod scale;
mod sending;
mod stream;
mod world;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    campaign::run(&campaign::Arguments::parse())
}
