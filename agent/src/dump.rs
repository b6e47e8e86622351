//! `convoy dump`: all state of a process's channels, from outside: of one that runs, of a core file, or what the peers of a dead
//! one still hold.
//!
//! Not here: reading it (`inspect`), and words for people ([`text`]).

mod text;

use crate::cli::Dump;
use crate::inspect::core::Core;
use crate::inspect::memory::Memory;
use crate::inspect::registry::{Who, of_file};
use crate::inspect::state::{State, View};
use crate::inspect::{self, Blind};
use crate::output::print;
use crate::stat::pages;
use crate::{Failure, Outcome};
use convoy_runtime::config;
use convoy_runtime::stats::start_time;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Exit status: nothing to be seen.
const NONE: u8 = 1;
/// A process whose memory cannot be read in this time (it may be made so) is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Core files leave some memory out.
const CORE_NOTE: &str = "from a core file: payload in blocks and queues is left out of those, and files such as the registry (coredump_filter)";

/// What is known of one process.
#[derive(Serialize)]
pub(crate) struct Report {
    pid: u32,
    program: String,
    /// process, core, or peer: of a dead process, seen from this one.
    source: &'static str,
    /// The dead process that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<u32>,
    notes: Vec<String>,
    #[serde(flatten)]
    state: State,
}

pub(crate) fn dump(options: &Dump) -> Outcome {
    config::load();
    let (sender, receiver) = mpsc::channel();
    let options = options.clone();
    let json = options.json;
    let work = move || drop(sender.send(collect(&options)));
    std::thread::Builder::new().spawn(work).map_err(|error| Failure::new(NONE, error.to_string()))?;
    let reports = receiver.recv_timeout(PATIENCE).map_err(|_| {
        Failure::new(NONE, format!("its memory cannot be read within {} seconds", PATIENCE.as_secs()))
    })??;
    let text = if json {
        let document = serde_json::json!({ "processes": reports });
        format!("{document}\n")
    } else {
        text::of(&reports)
    };
    print(&text)?;
    Ok(0)
}

fn collect(options: &Dump) -> Result<Vec<Report>, Failure> {
    match (&options.core, options.pid) {
        (Some(path), _) => Ok(vec![of_core(path)?]),
        (None, Some(pid)) if start_time(pid).is_none() => of_dead(pid),
        (None, Some(pid)) => Ok(vec![of_process(pid)?]),
        (None, None) => {
            let pids = pages::find(None)?.into_iter().map(|page| page.pid);
            Ok(pids.filter_map(|pid| of_process(pid).ok()).collect())
        }
    }
}

fn of_process(pid: u32) -> Result<Report, Failure> {
    let memory = Memory::of_process(pid).map_err(|error| {
        let who = if error.kind() == ErrorKind::PermissionDenied {
            "; this needs its user, or root, and the right to trace it (ptrace_scope)"
        } else {
            ""
        };
        Failure::new(NONE, format!("process {pid} cannot be looked into: {error}{who}"))
    })?;
    let state = look(&memory, None).map_err(|blind| Failure::new(NONE, format!("process {pid}: {blind}")))?;
    Ok(Report { pid, program: program(pid), source: "process", dead: None, notes: Vec::new(), state })
}

fn of_core(path: &Path) -> Result<Report, Failure> {
    let fail = |why: String| Failure::new(NONE, format!("'{}' {why}", path.display()));
    let core = Core::open(path).map_err(fail)?;
    let (pid, program) = core.process.clone().unwrap_or_default();
    let memory = Memory::of_core(core);
    let state = look(&memory, None).map_err(|blind| match blind {
        Blind::NoAnchor => fail(
            "has nothing of Convoy's: its program did not run under it, or its private memory was left out \
             (coredump_filter, core(5))"
                .to_owned(),
        ),
        blind @ Blind::Version { .. } => fail(format!("is of another version: {blind}")),
    })?;
    let notes = vec![CORE_NOTE.to_owned()];
    Ok(Report { pid, program, source: "core", dead: None, notes, state })
}

/// A process that is gone, as its peers see it.
fn of_dead(pid: u32) -> Result<Vec<Report>, Failure> {
    let peers = peers_of(pid)?;
    let reports: Vec<Report> = peers.into_iter().filter_map(|peer| of_peer(pid, peer)).collect();
    if reports.is_empty() {
        let line = format!(
            "process {pid} does not run, and no process under Convoy that runs has a channel to it: nothing is left of it"
        );
        return Err(Failure::new(NONE, line));
    }
    Ok(reports)
}

fn of_peer(dead: u32, peer: u32) -> Option<Report> {
    let memory = Memory::of_process(peer).ok()?;
    let state = look(&memory, Some(dead)).ok().filter(|state| !state.channels.is_empty())?;
    let notes = vec![format!(
        "process {dead} is gone. This is what process {peer} holds of their channel: 'out' is what {dead} would have \
         received, 'in' is what it has sent. What {dead} itself had received and not read, its connections to others, its \
         locks and its threads cannot be seen any more."
    )];
    Some(Report { pid: peer, program: program(peer), source: "peer", dead: Some(dead), notes, state })
}

/// Living processes that have, or had, a channel to this one, by the registries in the user's directory.
fn peers_of(pid: u32) -> Result<BTreeSet<u32>, Failure> {
    let mut peers = BTreeSet::new();
    for path in pages::registries()? {
        let Some(registry) = fs::read(path).ok().and_then(|bytes| of_file(&bytes)) else { continue };
        let sides = registry.channels.iter().map(|record| record.sides);
        let beside = |[one, two]: [Who; 2]| match (one.pid == pid, two.pid == pid) {
            (true, _) => Some(two.pid),
            (_, true) => Some(one.pid),
            _ => None,
        };
        peers.extend(sides.filter_map(beside).filter(|peer| *peer != pid && start_time(*peer).is_some()));
    }
    Ok(peers)
}

fn look(memory: &Memory, peer: Option<u32>) -> Result<State, Blind> {
    let found = inspect::find(memory)?;
    Ok(View { memory, found }.state(peer))
}

fn program(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}
