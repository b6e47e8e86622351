//! A real memcached with one worker thread under our own client: 50 connections, replies checked.

use anyhow::Result;

use super::arguments;
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, PairResult, Run, Side, Transport, free_port};

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let case = Case::new("memcached", "9 get : 1 set, 100 B, 50 clients", "requests/s", Better::Higher);
    report(compare(lab, case, &Transport::ALL, |run| once(run)));
}

fn once(run: &Run<'_>) -> Result<Sample> {
    let port = free_port()?;
    let socket = run.path("socket");
    let mut command = run.command("memcached");
    command.args(["-t", "1", "-U", "0", "-u", "root"]);
    if run.transport == Transport::Unix {
        command.arg("-s").arg(&socket);
    } else {
        command.args(["-l", "127.0.0.1", "-p", &port.to_string()]);
    }
    let mut server = run.start(command, Side::Server)?;
    if run.transport == Transport::Unix {
        run.await_socket(&socket, &mut server)?;
    } else {
        run.await_port(port, &mut server)?;
    }

    let mut command = run.command(run.lab.programs.join("load-memcache"));
    command.args(arguments(&[("seconds", run.lab.seconds.to_string()), ("port", port.to_string())]));
    if run.transport == Transport::Unix {
        command.arg("--unix").arg(&socket);
    }
    let client = run.start(command, Side::Client)?.wait(run.lab.limit())?;
    server.signal(libc::SIGTERM);
    let ended = server.wait(run.lab.watchdog)?;
    let cpu_seconds = client.cpu_seconds + ended.cpu_seconds;
    Sample::of(
        PairResult { values: client.values(), cpu_seconds, counters: run.take_counters() },
        "requests_per_s",
    )
}
