//! The `convoy` command. Lives here: choosing the subcommand, and the one place that prints errors and exits.
//! Not here: the command line ([`cli`]), what commands know of a running agent ([`contact`]) and the subcommands
//! ([`daemon`], [`run`], [`stat`], [`doctor`], [`dump`], [`trace`]).
#![deny(unsafe_code)]

mod cli;
mod contact;
mod daemon;
mod doctor;
mod dump;
mod inspect;
mod output;
mod run;
mod stat;
mod trace;

use clap::Parser;
use clap::error::ErrorKind;
use cli::{Cli, Command};
use std::process::ExitCode;

/// Why the command ends early: one line for the user and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) line: String,
}

impl Failure {
    pub(crate) fn new(status: u8, line: impl Into<String>) -> Failure {
        Failure { status, line: line.into() }
    }
}

/// What a subcommand ends with: an exit status, or a line and one.
pub(crate) type Outcome = Result<u8, Failure>;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => usage(&error),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("convoy: {}", failure.line);
            ExitCode::from(failure.status)
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Agent(options) => daemon::setup::agent(&options),
        Command::Run(options) => run::run(&options),
        Command::Stat(options) => stat::stat(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Dump(options) => dump::dump(&options),
        Command::Trace(options) => trace::trace(&options),
    }
}

/// Help and version as clap prints them; anything else in one line.
fn usage(error: &clap::Error) -> Outcome {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return Ok(0);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Ok(cli::USAGE);
    }
    // As with env(1), a status that can hardly be the program's own.
    let of_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    let status = if of_run { run::FAILED } else { cli::USAGE };
    let text = error.to_string();
    let paragraph: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    Err(Failure::new(status, format!("{line} (see 'convoy --help')")))
}
