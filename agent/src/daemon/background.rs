//! An agent that `convoy run` starts: a process between the two starts it in a session of its own and ends, so that the
//! program which takes the place of `convoy run` never has a child that it does not know.

use crate::{Failure, Outcome, contact};
use convoy_runtime::{config, sys};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the agent may take until programs can find it. `convoy run` waits a little longer.
const PATIENCE: Duration = Duration::from_millis(1800);
const PAUSE: Duration = Duration::from_millis(10);

/// Starts this command again without `--background`; 0 when programs can find an agent.
pub(super) fn start() -> Outcome {
    // Whoever waits for the end of a pipe of the program's shall not wait for the agent.
    close_inherited();
    // This process leads no group: it was not started by a shell. Otherwise the agent stays in its session.
    let _ = rustix::process::setsid();
    let failed = |error: std::io::Error| Failure::new(1, format!("cannot start an agent: {error}"));
    let command = std::env::current_exe().map_err(failed)?;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--background");
    let mut agent = Command::new(command);
    agent.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).env_remove("LD_PRELOAD");
    let mut child = agent.spawn().map_err(failed)?;
    let (settings, _) = config::read(std::env::vars_os().collect());
    let until = Instant::now() + PATIENCE;
    loop {
        if contact::find(&settings).is_some() {
            return Ok(0);
        }
        if let Ok(Some(_)) = child.try_wait() {
            // It has said why.
            return Ok(1);
        }
        if Instant::now() >= until {
            return Err(Failure::new(1, "the agent takes long to start; programs find it later"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Closes all descriptors but the standard ones.
pub(super) fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // All are known before the first is closed: the directory has one too, which is gone by then.
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    numbers.into_iter().for_each(|number| {
        let _ = sys::close(number);
    });
}
