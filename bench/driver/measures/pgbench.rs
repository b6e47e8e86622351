//! A real PostgreSQL server, a process per connection, under pgbench's select-only script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::cleanup;
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Account, Lab, Run, Side, Transport, free_port};
use crate::process::Process;

const SCALE: &str = "5";
const CLIENTS: &str = "8";

/// A database cluster that all rounds use one after the other.
struct Cluster {
    binaries: PathBuf,
    account: Option<Account>,
    /// Holds the data; goes with this.
    directory: TempDir,
}

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let case =
        Case::new("pgbench", format!("select only, {CLIENTS} clients"), "transactions/s", Better::Higher);
    let cluster = Cluster::create(lab);
    report(compare(lab, case, &Transport::ALL, |run| match &cluster {
        Ok(cluster) => cluster.once(run),
        Err(error) => bail!("{error:#}"),
    }));
}

impl Cluster {
    fn create(lab: &Lab) -> Result<Self> {
        let binaries = binaries().context("no PostgreSQL server below /usr/lib/postgresql")?;
        let account = Account::unprivileged("postgres")?;
        let directory = TempDir::with_prefix(cleanup::prefix())?;
        if let Some(account) = account {
            account.own(directory.path())?;
        }
        let cluster = Self { binaries, account, directory };
        let run = Run::new(lab, Transport::Tcp)?;
        cluster.account.map_or(Ok(()), |account| run.give_to(account))?;
        let mut command = cluster.command(&run, "initdb");
        command.args(["-A", "trust", "-U", "bench", "--no-sync", "-D"]).arg(cluster.data());
        run.start(command, Side::Server)?.wait(lab.watchdog)?;
        let (mut server, port) = cluster.serve(&run)?;
        let mut command = cluster.command(&run, "pgbench");
        command.args(["-i", "-q", "-s", SCALE, "-U", "bench", "-h", "127.0.0.1", "-p", &port, "postgres"]);
        run.start(command, Side::Client)?.wait(lab.watchdog)?;
        stop(&run, &mut server)?;
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, run: &Run<'_>, program: &str) -> Command {
        let mut command = run.command(self.binaries.join(program));
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        command
    }

    /// Starts the server and waits until it takes connections.
    fn serve(&self, run: &Run<'_>) -> Result<(Process, String)> {
        let port = free_port()?.to_string();
        let mut command = self.command(run, "postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(run.path("")).args(["-p", &port, "-F"]);
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        let mut server = run.start(command, Side::Server)?;
        run.await_output(&mut server, "ready to accept connections")?;
        Ok((server, port))
    }

    fn once(&self, run: &Run<'_>) -> Result<Sample> {
        self.account.map_or(Ok(()), |account| run.give_to(account))?;
        let (mut server, port) = self.serve(run)?;
        let host =
            if run.transport == Transport::Unix { run.path("") } else { Path::new("127.0.0.1").to_owned() };
        let seconds = run.lab.seconds.ceil().max(1.0).to_string();
        let mut command = self.command(run, "pgbench");
        command.args(["-n", "-S", "-c", CLIENTS, "-T", &seconds, "-U", "bench", "-p", &port, "-h"]);
        command.arg(host).arg("postgres");
        let client = run.start(command, Side::Client)?.wait(run.lab.limit())?;
        let cpu_seconds = client.cpu_seconds + stop(run, &mut server)?;
        let number = |label: &str| {
            let rest = client.output.iter().find_map(|line| line.strip_prefix(label))?;
            rest.split_whitespace().next()?.parse::<f64>().ok()
        };
        let value = number("tps = ").context("pgbench printed no tps")?;
        let failed = number("number of failed transactions: ").unwrap_or(0.0);
        ensure!(failed == 0.0, "pgbench: {failed} transactions failed");
        let latency = number("latency average = ").map(|ms| ("latency_ms".to_owned(), ms));
        let extra: BTreeMap<String, f64> = latency.into_iter().collect();
        Ok(Sample { value, extra, cpu_seconds, counters: run.take_counters() })
    }
}

/// Fast shutdown; the CPU seconds of the server and all its processes.
fn stop(run: &Run<'_>, server: &mut Process) -> Result<f64> {
    server.signal(libc::SIGINT);
    Ok(server.wait(run.lab.watchdog)?.cpu_seconds)
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.flatten().map(|version| version.path().join("bin"));
    found.filter(|path| path.join("postgres").exists()).max()
}
