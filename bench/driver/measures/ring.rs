//! Beside a bare ring in shared memory: what two processes could do that have no sockets, no waiting and no peer to doubt.

use anyhow::Result;

use super::arguments;
use super::many::{self, Load};
use super::pingpong;
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Transport};

const EVERY: [Transport; 4] = [Transport::Tcp, Transport::Unix, Transport::Ring, Transport::Convoy];

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let trip = case("64 B, one message at a time", "us round trip", Better::Lower);
    report(compare(lab, trip, &EVERY, |run| match run.transport {
        Transport::Ring => bare(run, "trip", "all", "rtt_us"),
        _ => pingpong::once(run, "block", 64),
    }));
    let load = Load { sockets: 64, size: 64, ..Load::default() };
    let all = case("64 x 64 B one way, all at a look", "messages/s", Better::Higher);
    report(compare(lab, all, &EVERY, |run| match run.transport {
        Transport::Ring => bare(run, "oneway", "all", "messages_per_s"),
        _ => many::once(run, &load),
    }));
    let one = case("64 B one way, one at a look", "messages/s", Better::Higher);
    report(compare(lab, one, &[Transport::Ring], |run| bare(run, "oneway", "one", "messages_per_s")));
}

fn case(name: &str, unit: &'static str, better: Better) -> Case {
    Case::new("ring", name, unit, better).not_in_overview()
}

/// The ring itself has one lane each way, however many sockets the others use.
fn bare(run: &Run<'_>, pattern: &str, take: &str, figure: &str) -> Result<Sample> {
    let arguments = arguments(&[
        ("pattern", pattern.to_owned()),
        ("take", take.to_owned()),
        ("seconds", run.lab.seconds.to_string()),
    ]);
    Sample::of(run.pair("load-ring", &arguments)?, figure)
}
