//! Messages over many sockets of two processes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, PairResult, Run, Transport};

const PROGRAM: &str = "load-many";
const SOCKETS: [usize; 4] = [1, 8, 64, 512];
const SIZES: [usize; 3] = [16, 64, 256];

/// What the load program is asked to do.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) sockets: usize,
    /// Bytes of a message.
    pub(super) size: usize,
    pub(super) pattern: Pattern,
    pub(super) nonblocking: bool,
    /// Of each side; each has sockets of its own.
    pub(super) threads: usize,
    /// Connections more, which are used a little and are idle then.
    pub(super) idle: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { sockets: 64, size: 64, pattern: Pattern::OneWay, nonblocking: false, threads: 1, idle: 0 }
    }
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// The client, as fast as it can.
    OneWay,
    /// Both: one request is outstanding on every socket.
    Reply,
}

impl Pattern {
    pub(super) const BOTH: [Self; 2] = [Self::OneWay, Self::Reply];

    /// As the load program and the table call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneWay => "oneway",
            Self::Reply => "reply",
        }
    }

    /// The figure that the load program prints.
    pub(super) fn figure(self) -> &'static str {
        match self {
            Self::OneWay => "messages_per_s",
            Self::Reply => "requests_per_s",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::OneWay => "messages/s",
            Self::Reply => "requests/s",
        }
    }
}

impl Load {
    pub(super) fn reply(sockets: usize) -> Self {
        Self { sockets, pattern: Pattern::Reply, ..Self::default() }
    }

    /// Words for the load program.
    pub(super) fn arguments(&self, lab: &Lab) -> Vec<String> {
        arguments(&[
            ("sockets", self.sockets.to_string()),
            ("size", self.size.to_string()),
            ("pattern", self.pattern.name().to_owned()),
            ("threads", self.threads.to_string()),
            ("idle", self.idle.to_string()),
            ("write", if self.nonblocking { "nonblock" } else { "block" }.to_owned()),
            ("seconds", lab.seconds.to_string()),
        ])
    }
}

/// Messages or requests per second.
pub(super) fn once(run: &Run<'_>, load: &Load) -> Result<Sample> {
    let result = run.pair(PROGRAM, &load.arguments(run.lab))?;
    check(load, &result, result.value("messages")?)?;
    Sample::of(result, load.pattern.figure())
}

/// What `clients` client processes reach together against one server.
pub(super) fn crowd(run: &Run<'_>, load: &Load, clients: usize) -> Result<Sample> {
    let own = load.arguments(run.lab);
    let all = [own.clone(), arguments(&[("clients", clients.to_string())])].concat();
    let result = run.crowd(PROGRAM, &all, clients, &own)?;
    let values = |name: &str| -> Vec<f64> {
        result.clients.iter().map(|client| client.get(name).copied().unwrap_or(f64::NAN)).collect()
    };
    check(load, &result.server, values("messages").iter().sum())?;
    let speeds = values(load.pattern.figure());
    let (value, slowest) = (speeds.iter().sum(), speeds.iter().copied().fold(f64::INFINITY, f64::min));
    let extra = BTreeMap::from([("slowest_client".to_owned(), slowest)]);
    Ok(Sample { value, extra, cpu_seconds: result.server.cpu_seconds, counters: result.server.counters })
}

/// Nothing was lost and nothing came twice.
fn check(load: &Load, server: &PairResult, messages: f64) -> Result<()> {
    let (bytes, sent) = (server.value("bytes")?, messages * load.size as f64);
    ensure!(bytes == sent, "{sent} bytes were sent and {bytes} received");
    Ok(())
}

pub(crate) fn one_way(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for sockets in SOCKETS {
        for bytes in SIZES {
            let case = case(format!("{sockets} x {}", size(bytes)));
            let case = if bytes == 64 { case.at("", sockets) } else { case };
            let load = Load { sockets, size: bytes, ..Load::default() };
            report(compare(lab, case, &Transport::ALL, |run| once(run, &load)));
        }
    }
    let load = Load { nonblocking: true, ..Load::default() };
    let case = case("64 x 64 B, nonblocking".to_owned());
    report(compare(lab, case, &Transport::ALL, |run| once(run, &load)));
}

fn case(name: String) -> Case {
    Case::new("many", name, Pattern::OneWay.unit(), Better::Higher)
}

pub(crate) fn reply(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let case = Case::new("reply", "64 x 64 B", Pattern::Reply.unit(), Better::Higher);
    report(compare(lab, case, &Transport::ALL, |run| once(run, &Load::reply(64))));
}
