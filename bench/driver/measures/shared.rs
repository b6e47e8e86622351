//! Processors that are not the programs' own: both ends on one, or with others that compute beside them.

use std::collections::BTreeMap;

use anyhow::Result;

use super::many::{self, Load, Pattern};
use super::pingpong;
use crate::compare::{Better, Case, Row, Sample, compare, compare_all};
use crate::lab::{Lab, Run, Transport};

/// How many busy loops compute beside the programs.
const BUSY_LOOPS: [usize; 2] = [1, 2];

/// The processor that both ends share.
const CPU: usize = 0;

pub(crate) fn one_core(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for load in Exchange::BOTH {
        report(compare(lab, load.case("onecore", ""), &Transport::ALL, |run| {
            run.bind_all_to(CPU);
            load.once(run)
        }));
    }
}

pub(crate) fn busy(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for load in Exchange::BOTH {
        report(compare_all(lab, busy_cases(load), &Transport::ALL, |run| beside_busy_loops(run, load)));
    }
}

/// Alone and beside each number of loops, and then what part of its own speed is left beside them.
fn busy_cases(load: Exchange) -> Vec<Case> {
    let beside = BUSY_LOOPS.map(|count| load.case("busy", &format!(", {count} busy")));
    let kept = BUSY_LOOPS.map(|count| {
        let name = format!("{}, {count} busy, speed kept", load.name());
        Case::new("busy", name, "% of its own", Better::Higher).not_in_overview()
    });
    std::iter::once(load.case("busy", ", alone")).chain(beside).chain(kept).collect()
}

fn beside_busy_loops(run: &Run<'_>, load: Exchange) -> Result<Vec<Sample>> {
    let mut samples = vec![load.once(run)?];
    for count in BUSY_LOOPS {
        let loops = run.start_busy_loops(count)?;
        samples.push(load.once(run)?);
        drop(loops);
    }
    let alone = load.speed(&samples[0]);
    let kept: Vec<Sample> = samples[1..].iter().map(|sample| part(sample, load, alone)).collect();
    samples.extend(kept);
    Ok(samples)
}

fn part(sample: &Sample, load: Exchange, alone: f64) -> Sample {
    Sample {
        value: 100.0 * load.speed(sample) / alone,
        extra: BTreeMap::new(),
        cpu_seconds: sample.cpu_seconds,
        counters: sample.counters.clone(),
    }
}

/// What the two programs do with each other.
#[derive(Clone, Copy)]
enum Exchange {
    /// One message of 64 bytes back and forth.
    Trip,
    /// Requests and replies on 64 sockets.
    Reply,
}

impl Exchange {
    const BOTH: [Self; 2] = [Self::Trip, Self::Reply];

    fn name(self) -> &'static str {
        match self {
            Self::Trip => "ping-pong 64 B",
            Self::Reply => "reply 64 x 64 B",
        }
    }

    fn case(self, measure: &'static str, note: &str) -> Case {
        let name = format!("{}{note}", self.name());
        match self {
            Self::Trip => pingpong::case(measure, name),
            Self::Reply => Case::new(measure, name, Pattern::Reply.unit(), Better::Higher),
        }
    }

    fn once(self, run: &Run<'_>) -> Result<Sample> {
        match self {
            Self::Trip => pingpong::once(run, "block", 64),
            Self::Reply => many::once(run, &Load::reply(64)),
        }
    }

    /// Exchanges in a time, in whatever unit.
    fn speed(self, sample: &Sample) -> f64 {
        match self {
            Self::Trip => 1.0 / sample.value,
            Self::Reply => sample.value,
        }
    }
}
