//! What the aggregation thresholds do, one setting changed at a time.

use anyhow::Result;

use super::many::{self, Load, Pattern};
use super::pingpong;
use crate::compare::{Better, Case, Row, compare_all};
use crate::lab::{Lab, Run, Transport};

const VALUES: [(&str, [u32; 4]); 4] = [
    ("CONVOY_BATCH_BYTES", [1024, 4096, 16384, 65536]),
    ("CONVOY_BATCH_FRAMES", [1, 16, 64, 256]),
    ("CONVOY_BATCH_DELAY_US", [0, 5, 20, 100]),
    ("CONVOY_COALESCE_MAX", [64, 256, 4096, 16384]),
];

/// Messages over 64 sockets, Convoy only.
pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for (variable, values) in VALUES {
        for pattern in Pattern::BOTH {
            let name = |value| format!("{}, {variable}={value}", pattern.name());
            let case = |value| Case::new("sweep", name(value), pattern.unit(), Better::Higher);
            let cases = values.iter().map(case).collect();
            let load = Load { pattern, ..Load::default() };
            // All values within a round, so that what else the machine does weighs on all alike.
            report(compare_all(lab, cases, &[Transport::Convoy], |_| {
                let once = |value: &u32| many::once(&with(lab, variable, *value)?, &load);
                values.iter().map(once).collect()
            }));
        }
    }
}

/// What the thresholds cost where there is nothing to gather: one socket, one message of 64 bytes at a time.
pub(crate) fn price(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let settings = || VALUES.iter().flat_map(|(name, values)| values.map(|value| (*name, value)));
    let varied = settings().map(|(name, value)| pingpong::case("price", format!("{name}={value}")));
    let cases =
        std::iter::once(pingpong::case("price", "64 B, defaults").not_in_overview()).chain(varied).collect();
    report(compare_all(lab, cases, &Transport::NO_UNIX, |run| {
        let defaults = pingpong::once(run, "block", 64)?;
        if run.transport == Transport::Tcp {
            return Ok(vec![defaults]);
        }
        let once = |(name, value)| pingpong::once(&with(lab, name, value)?, "block", 64);
        std::iter::once(Ok(defaults)).chain(settings().map(once)).collect()
    }));
}

/// A run under Convoy with one setting changed.
fn with<'a>(lab: &'a Lab, variable: &str, value: u32) -> Result<Run<'a>> {
    let mut run = Run::new(lab, Transport::Convoy)?;
    run.set(variable, value);
    Ok(run)
}
