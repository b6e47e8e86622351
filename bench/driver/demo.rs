//! The demonstration: Redis over TCP, over a Unix socket and under Convoy, in one table, with the proof.

use anyhow::{Result, bail};

use crate::compare::Row;
use crate::lab::{Lab, Transport};
use crate::measures::redis;
use crate::report::{RATIOS, Setting, align, number};

const CLIENTS: usize = 50;
/// Shown in this order when the processes reported them.
const PROOF: [&str; 9] = [
    "bytes_sent",
    "frames_sent",
    "frames_received",
    "batches_received",
    "switches_to_channel",
    "doorbells_rung",
    "sleeps",
    "kernel_bytes_sent",
    "bypasses_unmatched",
];

/// Runs and prints; an error when no byte went through a channel.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    println!(
        "redis-server driven by redis-benchmark -c {CLIENTS} without pipelining, {} rounds ...\n",
        lab.rounds
    );
    let rows = redis::clients(lab, CLIENTS);
    println!("{}", table(&rows));
    println!("{}; {RATIOS}\n", Setting::of(lab).line());
    for row in &rows {
        for (transport, figures) in &row.transports {
            if let Some(failure) = &figures.failure {
                bail!("{} over {}: {failure}", row.case.name, transport.name());
            }
        }
    }
    prove(&rows)
}

fn table(rows: &[Row]) -> String {
    let heading =
        ["test", "over", "requests/s", "to tcp", "p50 ms", "p99 ms", "CPU s / 100k", "messages per batch"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        for transport in Transport::ALL {
            lines.extend(line(row, transport));
        }
    }
    align(&lines, 2)
}

fn line(row: &Row, transport: Transport) -> Option<Vec<String>> {
    let figures = row.transports.get(&transport)?;
    let median = figures.median?;
    let extra = |name: &str| figures.extra.get(name).map_or("-".to_owned(), |value| format!("{value:.3}"));
    let ratio = row.median(Transport::Tcp).map_or("-".to_owned(), |tcp| format!("{:.2}x", median / tcp));
    let batch = row.messages_per_batch.filter(|_| transport == Transport::Convoy);
    Some(vec![
        row.case.name.split(',').next().unwrap_or_default().to_owned(),
        transport.name().to_owned(),
        number(median),
        ratio,
        extra("p50_latency_ms"),
        extra("p99_latency_ms"),
        figures
            .extra
            .get("requests")
            .map_or("-".to_owned(), |count| format!("{:.2}", figures.cpu_seconds * 1e5 / count)),
        batch.map_or("-".to_owned(), |mean| format!("{mean:.1}")),
    ])
}

/// The counters of server and clients, both tests and all rounds together.
fn prove(rows: &[Row]) -> Result<()> {
    let Some(figures) = rows.first().and_then(|row| row.transports.get(&Transport::Convoy)) else {
        bail!("nothing was measured");
    };
    println!("Counters of the Convoy runs (server and clients, all rounds):");
    for name in PROOF {
        if let Some(value) = figures.counters.0.get(name) {
            println!("  {name:<20} {:>16}", number(*value));
        }
    }
    if figures.counters.channel_bytes() > 0.0 {
        println!("The bytes went through shared-memory channels, not through the kernel's TCP.");
        return Ok(());
    }
    bail!("NOT ACCELERATED: no byte went through a channel")
}
