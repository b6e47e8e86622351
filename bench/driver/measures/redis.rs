//! A real redis-server under redis-benchmark, without pipelining, and with it as a reference.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use anyhow::{Context, Result, anyhow};

use crate::compare::{Better, Case, Row, Sample, compare_all};
use crate::counters::Counters;
use crate::lab::{Lab, Run, Side, Transport, free_port};
use crate::process::Process;

const MEASURE: &str = "redis";
const TESTS: [&str; 2] = ["SET", "GET"];

/// How redis-benchmark is started.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    /// Requests that each client has outstanding (-P).
    pipeline: usize,
    requests: u64,
}

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    report(clients(lab, 50));
    report(clients(lab, 1));
    report(pipelining(lab, 50, 16));
}

/// SET and GET with that many clients, each with one request outstanding.
pub(crate) fn clients(lab: &Lab, clients: usize) -> Vec<Row> {
    let note = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
    // Roughly the asked time over TCP on a small machine.
    let per_second = if clients == 1 { 50e3 } else { 200e3 };
    measure(lab, &note, Load { clients, pipeline: 1, requests: requests(lab, per_second) })
}

/// The same with several requests outstanding, as a program can have them that was written for it.
fn pipelining(lab: &Lab, clients: usize, pipeline: usize) -> Vec<Row> {
    let note = format!("{clients} clients, -P {pipeline}");
    measure(lab, &note, Load { clients, pipeline, requests: requests(lab, 1e6) })
}

fn requests(lab: &Lab, per_second: f64) -> u64 {
    ((lab.seconds * per_second) as u64).max(1000)
}

fn measure(lab: &Lab, note: &str, load: Load) -> Vec<Row> {
    let case = |test: &&str| Case::new(MEASURE, format!("{test}, {note}"), "requests/s", Better::Higher);
    let cases = TESTS.iter().map(case).collect();
    compare_all(lab, cases, &Transport::ALL, |run| once(run, load))
}

fn once(run: &Run<'_>, load: Load) -> Result<Vec<Sample>> {
    let port = free_port()?.to_string();
    let socket = run.path("redis.sock");
    let mut command = run.command("redis-server");
    command.args([
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--unixsocket",
    ]);
    command.arg(&socket).args(["--loglevel", "warning"]);
    let mut server = run.start(command, Side::Server)?;
    run.await_port(port.parse()?, &mut server)?;

    // One run of the client per test, so that CPU time is each test's own.
    let place: &[&OsStr] = match run.transport {
        Transport::Unix => &["-s".as_ref(), socket.as_ref()],
        _ => &["-h".as_ref(), "127.0.0.1".as_ref(), "-p".as_ref(), port.as_ref()],
    };
    let test = |test: &&str| drive(run, load, test, place, &server);
    let mut samples = TESTS.iter().map(test).collect::<Result<Vec<_>>>()?;
    server.signal(libc::SIGTERM);
    server.wait(run.lab.watchdog)?;
    let counters = run.take_counters();
    for sample in &mut samples {
        sample.counters = counters.clone();
    }
    Ok(samples)
}

/// One test of redis-benchmark; the counters come later, when the server has ended.
fn drive(run: &Run<'_>, load: Load, test: &str, place: &[&OsStr], server: &Process) -> Result<Sample> {
    let mut command = run.command("redis-benchmark");
    command.args(["--csv", "-t", &test.to_lowercase()]).args(place);
    for (option, number) in [("-c", load.clients as u64), ("-P", load.pipeline as u64), ("-n", load.requests)]
    {
        command.args([option, &number.to_string()]);
    }
    let before = server.cpu_now();
    let end = run.start(command, Side::Client)?.wait(run.lab.limit())?;
    let cpu_seconds = end.cpu_seconds + server.cpu_now() - before;
    let (value, mut extra) = figures(&end.output, test)?;
    extra.insert("requests".to_owned(), load.requests as f64);
    Ok(Sample { value, extra, cpu_seconds, counters: Counters::default() })
}

/// Requests per second and the other columns of `--csv`, whose first line names them.
fn figures(output: &[String], test: &str) -> Result<(f64, BTreeMap<String, f64>)> {
    let cells =
        |line: &str| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let mut lines =
        output.iter().map(|line| cells(line)).skip_while(|line| line.first().is_none_or(|c| c != "test"));
    let names = lines.next().context("redis-benchmark printed no heading")?;
    let values = lines.find(|line| line.first().is_some_and(|cell| cell == test));
    let values = values.ok_or_else(|| anyhow!("redis-benchmark printed no line for {test}"))?;
    let number = |(name, value): (String, String)| Some((name, value.parse().ok()?));
    let extra: BTreeMap<String, f64> = names.into_iter().zip(values).filter_map(number).collect();
    let rps = *extra.get("rps").context("redis-benchmark printed no rps")?;
    Ok((rps, extra))
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn csv_is_read_by_its_heading() {
        let output = ["\"test\",\"rps\",\"p50_latency_ms\"", "\"SET\",\"123.5\",\"0.25\""].map(str::to_owned);
        let (rps, extra) = figures(&output, "SET").unwrap_or_default();
        assert_eq!((rps, extra.get("p50_latency_ms").copied()), (123.5, Some(0.25)));
        assert!(figures(&output, "GET").is_err());
    }
}
