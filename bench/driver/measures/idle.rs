//! What connections cost that do nothing: memory and CPU, both processes together, looked at from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};

use super::arguments;
use crate::compare::{Better, Case, Row, Sample, compare_all};
use crate::lab::{Lab, Run, Transport};
use crate::memory;
use crate::process::Process;

const FEW: usize = 100;
const MANY: usize = 2100;
/// How long CPU time is watched.
const WATCH: Duration = Duration::from_secs(2);

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let cases = vec![
        Case::new("idle", "memory per connection, both ends", "bytes", Better::Lower),
        Case::new("idle", format!("memory of both processes, {FEW} connections"), "KiB", Better::Lower),
        Case::new("idle", format!("CPU of both processes, {MANY} connections"), "ms/s", Better::Lower),
    ];
    report(compare_all(lab, cases, &Transport::NO_UNIX, |run| once(run)));
}

/// The slope between few and many connections leaves out what a channel costs once.
fn once(run: &Run<'_>) -> Result<Vec<Sample>> {
    let (few, _) = look(run, FEW, Duration::ZERO)?;
    let (many, cpu) = look(run, MANY, WATCH)?;
    let per_connection = (many - few) / (MANY - FEW) as f64;
    let counters = run.take_counters();
    let sample =
        |value| Sample { value, extra: BTreeMap::new(), cpu_seconds: 0.0, counters: counters.clone() };
    Ok(vec![sample(per_connection), sample(few / 1024.0), sample(cpu * 1e3)])
}

/// Bytes held with that many idle connections, and CPU seconds per second while `watch` lasts.
fn look(run: &Run<'_>, connections: usize, watch: Duration) -> Result<(f64, f64)> {
    let arguments = arguments(&[("connections", connections.to_string())]);
    let (mut server, mut client) = run.start_pair("load-idle", &arguments)?;
    match client.line(run.lab.limit())?.as_str() {
        "idle" => {}
        other => bail!("load-idle said {other:?}"),
    }
    let held = memory::held_by(&[server.pid(), client.pid()]) as f64;
    let cpu = |server: &Process, client: &Process| server.cpu_now() + client.cpu_now();
    let before = cpu(&server, &client);
    std::thread::sleep(watch);
    let used = (cpu(&server, &client) - before) / watch.as_secs_f64().max(f64::MIN_POSITIVE);
    for process in [&mut client, &mut server] {
        process.release();
        process.wait(run.lab.watchdog)?;
    }
    Ok((held, used))
}
