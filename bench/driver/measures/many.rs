//! Messages over many sockets of two processes.

use anyhow::Result;

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Transport};

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
}

impl Default for Load {
    fn default() -> Self {
        Self { sockets: 64, size: 64, pattern: Pattern::OneWay, nonblocking: false }
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
            ("write", if self.nonblocking { "nonblock" } else { "block" }.to_owned()),
            ("seconds", lab.seconds.to_string()),
        ])
    }
}

/// Messages or requests per second.
pub(super) fn once(run: &Run<'_>, load: &Load) -> Result<Sample> {
    Sample::of(run.pair("load-many", &load.arguments(run.lab))?, load.pattern.figure())
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
