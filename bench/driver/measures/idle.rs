//! What connections cost that do nothing: memory and CPU, both processes together, looked at from outside, and the time of
//! one that is active beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::arguments;
use super::pingpong;
use crate::compare::{Better, Case, Row, Sample, compare_all};
use crate::counters::Counters;
use crate::descriptors;
use crate::lab::{Lab, Run, Transport};
use crate::memory;
use crate::process::{Process, pair};

const FEW: usize = 100;
const MANY: usize = 2_100;
/// More than one channel has places for.
const FLOOD: usize = 50_000;
/// Each takes tens of seconds.
const FLOOD_ROUNDS: usize = 3;
/// Every accelerated connection has a window; with the default limit fewer of the flood would be accelerated.
const FLOOD_MEMORY_LIMIT: &str = "4G";
/// Descriptors of a load program that are no connections, at most.
const OTHER_DESCRIPTORS: usize = 100;
const FLOOD_NOTE: &str = "50000 connections in at most 3 rounds, under Convoy with CONVOY_MEMORY_LIMIT=4G; round trips in the last pair";
/// How long CPU time is watched.
const WATCH: Duration = Duration::from_secs(2);
/// Time that one connection may take to open and close on a busy machine.
const PATIENCE: Duration = Duration::from_millis(5);

/// What one look at idle connections shows.
struct Look {
    /// Bytes of all processes.
    held: f64,
    /// CPU seconds per second.
    cpu: f64,
    /// Round trips on the first and the last connection of the pair that came last, in microseconds.
    trips: [f64; 2],
    counters: Counters,
}

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    report(compare_all(lab, few_cases(), &Transport::NO_UNIX, |run| few_and_many(run)));
    let fewer = Lab { rounds: lab.rounds.min(FLOOD_ROUNDS), ..lab.clone() };
    report(compare_all(&fewer, flood_cases(), &Transport::NO_UNIX, flood));
}

fn few_cases() -> Vec<Case> {
    vec![
        Case::new("idle", "memory per connection, both ends", "bytes", Better::Lower),
        Case::new("idle", format!("memory of both processes, {FEW} connections"), "KiB", Better::Lower),
        Case::new("idle", format!("CPU of both processes, {MANY} connections"), "ms/s", Better::Lower),
        pingpong::case("idle", format!("64 B on the first of {FEW} connections")),
    ]
}

/// The slope between few and many connections leaves out what a channel costs once.
fn few_and_many(run: &Run<'_>) -> Result<Vec<Sample>> {
    let few = look(run, 1, FEW, Duration::ZERO)?;
    let many = look(run, 1, MANY, WATCH)?;
    let per_connection = (many.held - few.held) / (MANY - FEW) as f64;
    let sample = |value| sample(value, &many.counters);
    Ok(vec![sample(per_connection), sample(few.held / 1024.0), sample(many.cpu * 1e3), sample(few.trips[0])])
}

/// What exists for Convoy only comes last.
fn flood_cases() -> Vec<Case> {
    let pairs = process_pairs();
    let beside = if pairs == 1 { String::new() } else { format!(" of {pairs} process pairs") };
    let case = |name: &str, unit, better| {
        Case::new("idle", format!("{FLOOD} connections{beside}: {name}"), unit, better).with_note(FLOOD_NOTE)
    };
    vec![
        case("memory per connection, both ends", "bytes", Better::Lower),
        case("64 B on the first", "us round trip", Better::Lower),
        case("64 B on the last", "us round trip", Better::Lower),
        case("on channels, the others on TCP", "connections", Better::Higher),
        case("memory per connection on a channel", "bytes", Better::Lower),
    ]
}

/// As few as the descriptors of a process allow.
fn process_pairs() -> usize {
    FLOOD.div_ceil(descriptors::most().saturating_sub(OTHER_DESCRIPTORS).max(1))
}

fn flood(run: &mut Run<'_>) -> Result<Vec<Sample>> {
    run.set("CONVOY_MEMORY_LIMIT", FLOOD_MEMORY_LIMIT);
    let pairs = process_pairs();
    let few = look(run, pairs, FEW, Duration::ZERO)?;
    let flood = look(run, pairs, FLOOD.div_ceil(pairs), Duration::ZERO)?;
    let more = flood.held - few.held;
    let few_connections = (pairs * FEW) as f64;
    let mut values = vec![more / (FLOOD as f64 - few_connections), flood.trips[0], flood.trips[1]];
    let accelerated = flood.counters.accelerated_connections();
    if accelerated > few_connections {
        values.extend([accelerated, more / (accelerated - few_connections)]);
    }
    Ok(values.into_iter().map(|value| sample(value, &flood.counters)).collect())
}

fn sample(value: f64, counters: &Counters) -> Sample {
    Sample { value, extra: BTreeMap::new(), cpu_seconds: 0.0, counters: counters.clone() }
}

/// Looks at process pairs with `connections` idle connections each, and at their CPU time while `watch` lasts.
fn look(run: &Run<'_>, pairs: usize, connections: usize, watch: Duration) -> Result<Look> {
    let limit = run.lab.limit() + PATIENCE * connections as u32;
    let (mut processes, mut trips) = (Vec::new(), [0.0; 2]);
    for _ in 0..pairs {
        let (server, client, times) = open(run, connections, limit)?;
        // The client's end comes first.
        processes.extend([client, server]);
        trips = times;
    }
    let pids: Vec<u32> = processes.iter().map(Process::pid).collect();
    let held = memory::held_by(&pids)? as f64;
    let cpu = |processes: &[Process]| processes.iter().map(Process::cpu_now).sum::<f64>();
    let before = cpu(&processes);
    std::thread::sleep(watch);
    let used = (cpu(&processes) - before) / watch.as_secs_f64().max(f64::MIN_POSITIVE);
    for process in &mut processes {
        process.release();
        process.wait(limit)?;
    }
    Ok(Look { held, cpu: used, trips, counters: run.take_counters() })
}

/// Server and client with that many connections, which are idle when this returns, and the client's round trips.
fn open(run: &Run<'_>, connections: usize, limit: Duration) -> Result<(Process, Process, [f64; 2])> {
    let seconds = run.lab.seconds.to_string();
    let arguments = arguments(&[("connections", connections.to_string()), ("seconds", seconds)]);
    let (server, mut client) = run.start_pair("load-idle", &arguments)?;
    let mut values = BTreeMap::new();
    loop {
        match client.line(limit)?.as_str() {
            "idle" => break,
            line => values.extend(pair(line)),
        }
    }
    let trip = |name: &str| values.get(name).copied().with_context(|| format!("load-idle said no {name}"));
    let trips = [trip("first_rtt_us")?, trip("last_rtt_us")?];
    Ok((server, client, trips))
}
