//! Messages of few active connections among many open ones, which have all been used before.

use std::collections::BTreeMap;

use anyhow::Result;

use super::many::{self, Load, Pattern};
use crate::compare::{Better, Case, Row, Sample, compare_all};
use crate::lab::{Lab, Run, Transport};

const OPEN: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// How many of them carry messages, at most.
const ACTIVE: usize = 64;
/// Every open connection has a window, so the default limit would leave some of 10,000 on the kernel.
const MEMORY_LIMIT: &str = "4G";
const NOTE: &str = "under Convoy with CONVOY_MEMORY_LIMIT=4G";

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for open in OPEN {
        let active = open.min(ACTIVE);
        let load = Load { sockets: active, idle: open - active, ..Load::default() };
        report(compare_all(lab, cases(open, active), &Transport::ALL, |run| once(run, &load)));
    }
}

fn cases(open: usize, active: usize) -> Vec<Case> {
    let name = format!("{open} open, {active} active x 64 B");
    let case = |unit, better| Case::new("scale", name.clone(), unit, better).with_note(NOTE);
    vec![
        case(Pattern::OneWay.unit(), Better::Higher).at("rate", open),
        case("ns/message", Better::Lower).not_in_overview(),
        case("on channels", Better::Higher),
    ]
}

fn once(run: &mut Run<'_>, load: &Load) -> Result<Vec<Sample>> {
    run.set("CONVOY_MEMORY_LIMIT", MEMORY_LIMIT);
    let rate = many::once(run, load)?;
    let figure = |value: f64| Sample {
        value,
        extra: BTreeMap::new(),
        cpu_seconds: rate.cpu_seconds,
        counters: rate.counters.clone(),
    };
    let (time, carried) = (figure(1e9 / rate.value), figure(rate.counters.accelerated_connections()));
    Ok(vec![rate, time, carried])
}
