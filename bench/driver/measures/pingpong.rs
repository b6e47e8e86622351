//! Ping-pong latency.

use anyhow::Result;

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Transport};

const SIZES: [usize; 7] = [16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];

pub(crate) fn blocking(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for bytes in SIZES {
        let case = case("pingpong", size(bytes)).at("", bytes);
        report(compare(lab, case, &Transport::ALL, |run| once(run, "block", bytes)));
    }
}

pub(crate) fn epoll(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    report(compare(lab, case("epoll", size(64)), &Transport::ALL, |run| once(run, "epoll", 64)));
}

/// A round trip as a line of the table.
pub(super) fn case(measure: &'static str, name: impl Into<String>) -> Case {
    Case::new(measure, name, "us round trip", Better::Lower)
}

/// The mean round trip of one message of `bytes`; both sides wait in the way that `wait` names.
pub(super) fn once(run: &Run<'_>, wait: &str, bytes: usize) -> Result<Sample> {
    let arguments = arguments(&[
        ("size", bytes.to_string()),
        ("wait", wait.to_owned()),
        ("seconds", run.lab.seconds.to_string()),
    ]);
    Sample::of(run.pair("load-pingpong", &arguments)?, "rtt_us")
}
