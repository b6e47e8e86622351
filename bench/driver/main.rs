//! Measures Convoy beside plain TCP and Unix sockets, alternately in one run, and reports medians and ratios.

mod account;
mod cleanup;
mod compare;
mod counters;
mod curves;
mod demo;
mod descriptors;
mod lab;
mod measures;
mod memory;
mod process;
mod report;
mod svg;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::compare::Row;
use crate::lab::Lab;
use crate::measures::Measure;
use crate::report::Setting;

/// Measure Convoy beside plain TCP and Unix sockets.
#[derive(Parser)]
#[command(name = "convoy-bench", version)]
struct Options {
    /// What to measure (see --list); nothing means everything
    measures: Vec<String>,
    /// Rounds over all transports of each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured time of each run, in seconds
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Put the client on CPU 0 and the server on CPU 1
    #[arg(long)]
    pin: bool,
    /// A hung program is killed this many seconds after the time it should have taken
    #[arg(long, default_value_t = 10)]
    watchdog: u64,
    /// The preload library; by default the one beside this program
    #[arg(long)]
    library: Option<PathBuf>,
    /// Where results.json and the charts go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Show Redis over all three in one table, with the counters that prove the path, and end
    #[arg(long)]
    demo: bool,
    /// List the measures and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("convoy-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.list {
        for measure in measures::ALL {
            println!("{:<10} {}", measure.name, measure.about);
        }
        return Ok(());
    }
    let chosen = choose(&options.measures)?;
    let lab = lab(options)?;
    descriptors::raise_limits();
    cleanup::on_interrupt();
    if options.demo {
        return demo::run(&lab);
    }
    let setting = Setting::of(&lab);
    std::fs::create_dir_all(&options.out)?;
    let rows = measure(&lab, &chosen);
    println!("{}; {}\n\n{}", setting.line(), report::RATIOS, report::table(&rows));
    let json = options.out.join("results.json");
    report::write_json(&json, &setting, &rows)?;
    svg::write_all(&options.out, &setting, &rows)?;
    curves::write_all(&options.out, &setting, &rows)?;
    println!("written: {} and the charts beside it", json.display());
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Measure>> {
    if names.is_empty() {
        return Ok(measures::ALL.iter().collect());
    }
    let find = |name: &String| match measures::ALL.iter().find(|measure| measure.name == name) {
        Some(measure) => Ok(measure),
        None => bail!("no measure called {name:?}; --list shows them"),
    };
    names.iter().map(find).collect()
}

fn lab(options: &Options) -> Result<Lab> {
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a directory of programs")?.to_owned();
    let library = options.library.clone().unwrap_or_else(|| programs.join("libconvoy.so"));
    let library =
        library.canonicalize().with_context(|| format!("no preload library at {}", library.display()))?;
    Ok(Lab {
        library,
        programs,
        rounds: options.rounds.max(1),
        seconds: options.seconds,
        pin: options.pin,
        watchdog: Duration::from_secs(options.watchdog),
    })
}

fn measure(lab: &Lab, chosen: &[&Measure]) -> Vec<Row> {
    let mut rows = Vec::new();
    for measure in chosen {
        (measure.run)(lab, &mut |done: Vec<Row>| {
            for row in &done {
                eprintln!("{} / {}: done", row.case.measure, row.case.name);
            }
            rows.extend(done);
        });
    }
    rows
}
