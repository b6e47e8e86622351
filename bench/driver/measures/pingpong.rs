//! Ping-pong latency.

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Transport};

const SIZES: [usize; 6] = [16, 64, 256, 1024, 16 << 10, 64 << 10];

pub(crate) fn blocking(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for bytes in SIZES {
        report(case(lab, "pingpong", "block", bytes));
    }
}

pub(crate) fn epoll(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    report(case(lab, "epoll", "epoll", 64));
}

fn case(lab: &Lab, measure: &'static str, wait: &str, bytes: usize) -> Vec<Row> {
    let arguments = arguments(&[
        ("size", bytes.to_string()),
        ("wait", wait.to_owned()),
        ("seconds", lab.seconds.to_string()),
    ]);
    let case = Case::new(measure, size(bytes), "us round trip", Better::Lower);
    compare(lab, case, &Transport::ALL, |run| Sample::of(run.pair("load-pingpong", &arguments)?, "rtt_us"))
}
