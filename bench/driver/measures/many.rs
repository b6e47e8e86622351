//! Messages over many sockets of two processes.

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Transport};

const SOCKETS: [usize; 4] = [1, 8, 64, 512];
const SIZES: [usize; 3] = [16, 64, 256];

pub(crate) fn one_way(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for sockets in SOCKETS {
        for bytes in SIZES {
            report(oneway_case(lab, sockets, bytes, "block"));
        }
    }
    report(oneway_case(lab, 64, 64, "nonblock"));
}

fn oneway_case(lab: &Lab, sockets: usize, bytes: usize, write: &str) -> Vec<Row> {
    let arguments = arguments(&[
        ("sockets", sockets.to_string()),
        ("size", bytes.to_string()),
        ("write", write.to_owned()),
        ("seconds", lab.seconds.to_string()),
    ]);
    let note = if write == "block" { "" } else { ", nonblocking" };
    let case = Case::new("many", format!("{sockets} x {}{note}", size(bytes)), "messages/s", Better::Higher);
    compare(lab, case, &Transport::ALL, |run| {
        Sample::of(run.pair("load-many", &arguments)?, "messages_per_s")
    })
}

pub(crate) fn reply(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let arguments = arguments(&[
        ("sockets", 64.to_string()),
        ("size", 64.to_string()),
        ("pattern", "reply".to_owned()),
        ("seconds", lab.seconds.to_string()),
    ]);
    let case = Case::new("reply", "64 x 64 B", "requests/s", Better::Higher);
    report(compare(lab, case, &Transport::ALL, |run| {
        Sample::of(run.pair("load-many", &arguments)?, "requests_per_s")
    }));
}
