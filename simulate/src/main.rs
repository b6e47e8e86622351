//! `convoy-simulate`: Convoy's core, which is `convoy-aggregator`, under deterministic simulation: many hosts, virtual time, faults and
//! liars. See `docs/simulation.md`.
//!
//! - [`campaign`]: which seeds run; [`plan`]: what a seed stands for; [`report`]: what came of it.
//! - [`world`]: everything there is, and the loop; [`clock`], [`rng`], [`pattern`].
//! - [`joining`], [`sending`], [`receiving`], [`returning`]: programs and their [`stream`]s; [`channel`], [`kernel`]: the two paths.
//! - [`agent`], [`slots`], [`port`]: agents and programs; [`link`], [`transmit`], [`arriving`]: agents among themselves.
//! - [`faults`], [`lies`]: what goes wrong; [`check`]: what has to be true.
//! - [`scale`], [`chart`]: what a host needs among many.
#![forbid(unsafe_code)]

mod agent;
mod arriving;
mod campaign;
mod channel;
mod chart;
mod check;
mod clock;
mod delivering;
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
mod slots;
mod stream;
mod transmit;
mod world;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    campaign::run(&campaign::Arguments::parse())
}
