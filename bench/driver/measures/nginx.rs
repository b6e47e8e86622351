//! A real nginx, master and one worker, serving 1 KiB to wrk with 50 connections: a file that is opened for each request, a file that
//! stays open (open_file_cache), and an answer out of memory.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Side, Transport, free_port};

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for (name, resource, directives) in [
        ("1 KiB file, wrk -c 50", "file", ""),
        ("1 KiB file kept open, wrk -c 50", "file", "open_file_cache max=100;"),
        ("1 KiB of memory, wrk -c 50", "memory", ""),
    ] {
        let case = Case::new("nginx", name, "requests/s", Better::Higher);
        report(compare(lab, case, &Transport::NO_UNIX, |run| once(run, resource, directives)));
    }
}

fn once(run: &Run<'_>, resource: &str, directives: &str) -> Result<Sample> {
    let port = free_port()?;
    let place = run.path("nginx");
    fs::create_dir(&place)?;
    fs::write(place.join("file"), "x".repeat(1024))?;
    fs::write(place.join("nginx.conf"), configuration(port, directives))?;

    let mut command = run.command("nginx");
    command.arg("-p").arg(&place).args(["-c", "nginx.conf", "-e", "stderr"]);
    let mut server = run.start(command, Side::Server)?;
    run.await_port(port, &mut server)?;

    let seconds = run.lab.seconds.ceil().max(1.0);
    let mut command = run.command("wrk");
    command.args(["-t", "1", "-c", "50", "--latency", "-d", &format!("{seconds}s")]);
    command.arg(format!("http://127.0.0.1:{port}/{resource}"));
    let client = run.start(command, Side::Client)?.wait(run.lab.limit())?;
    server.signal(libc::SIGQUIT);
    let ended = server.wait(run.lab.watchdog)?;

    let value = field(&client.output, "Requests/sec:").context("wrk printed no Requests/sec")?;
    let refused = client.output.iter().any(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    anyhow::ensure!(!refused, "wrk saw errors: {}", client.output.join(" | "));
    let cpu_seconds = client.cpu_seconds + ended.cpu_seconds;
    Ok(Sample { value, extra: BTreeMap::new(), cpu_seconds, counters: run.take_counters() })
}

/// The first number after `label`.
fn field(output: &[String], label: &str) -> Option<f64> {
    output.iter().find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next()?.parse().ok())
}

fn configuration(port: u16, directives: &str) -> String {
    let kilobyte = "x".repeat(1024);
    // SAFETY: no arguments, no failure.
    let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
    format!(
        "{user} daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
         events {{ worker_connections 1024; }}
         http {{
             access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000; {directives}
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
             server {{ listen 127.0.0.1:{port}; root .; location /memory {{ return 200 {kilobyte}; }} }}
         }}\n"
    )
}
