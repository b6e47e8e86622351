//! `convoy stat`: the counters of running processes, once or again and again.
//!
//! Not here: finding and sweeping pages ([`pages`]), tables for people ([`table`]), JSON ([`json`]) and the agent
//! ([`links`]).

mod json;
mod links;
pub(crate) mod pages;
mod table;

use crate::cli::Stat;
use crate::output::print;
use crate::{Failure, Outcome};
use convoy_runtime::config;
use convoy_runtime::stats::Snapshot;
use std::time::{Duration, Instant};

/// Exit status: no such process, or no counters to be had.
const NONE: u8 = 1;

/// Counters of a process as they shall be shown.
pub(crate) struct Shown {
    pub(crate) snapshot: Snapshot,
    /// What they were a while ago, and how long ago.
    pub(crate) before: Option<(Snapshot, Duration)>,
}

impl Shown {
    /// A counter: its value, or its growth per second where an earlier one is known.
    fn number(&self, value: impl Fn(&Snapshot) -> u64) -> f64 {
        let now = value(&self.snapshot);
        match &self.before {
            None => now as f64,
            Some((before, span)) => now.saturating_sub(value(before)) as f64 / span.as_secs_f64().max(1e-6),
        }
    }

    /// Connections that are accelerated at this moment.
    fn open(&self) -> u64 {
        open(&self.snapshot)
    }

    /// Messages per batch received, over the time shown; `None` without a batch.
    fn messages_per_batch(&self) -> Option<f64> {
        let batches = self.number(|page| page.get("batches_received"));
        (batches > 0.0).then(|| self.number(|page| page.get("frames_received")) / batches)
    }
}

pub(crate) fn open(page: &Snapshot) -> u64 {
    page.get("streams_opened").saturating_sub(page.get("streams_closed"))
}

pub(crate) fn stat(options: &Stat) -> Outcome {
    config::load();
    let mut earlier: Option<(Vec<Snapshot>, Instant)> = None;
    let mut agent = None;
    loop {
        let now = Instant::now();
        let found = pages::find(options.pid)?;
        if let (Some(pid), true) = (options.pid, found.is_empty()) {
            return Err(Failure::new(
                NONE,
                format!("process {pid} does not run under Convoy, or has opened no TCP connection"),
            ));
        }
        let shown: Vec<Shown> = found.iter().map(|page| shown(page, earlier.as_ref(), now)).collect();
        // Who asks for one process has nothing to do with the agent.
        agent = if options.pid.is_none() { links::find(agent.as_ref()) } else { None };
        print(&text(options, &shown, agent.as_ref()))?;
        let Some(seconds) = options.watch else {
            return Ok(0);
        };
        earlier = Some((found, now));
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn shown(page: &Snapshot, earlier: Option<&(Vec<Snapshot>, Instant)>, now: Instant) -> Shown {
    let before = earlier.and_then(|(pages, then)| {
        let same = |other: &&Snapshot| other.pid == page.pid && other.start_time == page.start_time;
        pages.iter().find(same).map(|before| (before.clone(), now.duration_since(*then)))
    });
    Shown { snapshot: page.clone(), before }
}

fn text(options: &Stat, shown: &[Shown], agent: Option<&links::Agent>) -> String {
    if options.json {
        return json::document(shown, agent.map(|agent| &agent.value));
    }
    let mut text = match options.pid {
        Some(_) => shown.iter().map(table::details).collect(),
        None => table::overview(shown),
    };
    if let Some(agent) = agent {
        text.push('\n');
        text.push_str(&links::table(agent));
    }
    if options.watch.is_some() { format!("{text}\n") } else { text }
}
