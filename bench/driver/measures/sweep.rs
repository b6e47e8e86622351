//! What the aggregation thresholds do to messages over 64 sockets: Convoy only, one setting changed at a time.

use anyhow::Result;

use super::arguments;
use crate::compare::{Better, Case, Row, Sample, compare_all};
use crate::lab::{Lab, Run, Transport};

const VALUES: [(&str, [u32; 4]); 4] = [
    ("CONVOY_BATCH_BYTES", [1024, 4096, 16384, 65536]),
    ("CONVOY_BATCH_FRAMES", [1, 16, 64, 256]),
    ("CONVOY_BATCH_DELAY_US", [0, 5, 20, 100]),
    ("CONVOY_COALESCE_MAX", [64, 256, 4096, 16384]),
];
const PATTERNS: [(&str, &str, &str); 2] =
    [("oneway", "messages_per_s", "messages/s"), ("reply", "requests_per_s", "requests/s")];

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for (variable, values) in VALUES {
        for (pattern, key, unit) in PATTERNS {
            let case =
                |value| Case::new("sweep", format!("{pattern}, {variable}={value}"), unit, Better::Higher);
            let cases = values.iter().map(case).collect();
            // All values within a round, so that what else the machine does weighs on all alike.
            report(compare_all(lab, cases, &[Transport::Convoy], |_| {
                values.iter().map(|value| once(lab, pattern, key, variable, *value)).collect()
            }));
        }
    }
}

fn once(lab: &Lab, pattern: &str, key: &str, variable: &str, value: u32) -> Result<Sample> {
    let arguments = arguments(&[
        ("sockets", 64.to_string()),
        ("size", 64.to_string()),
        ("pattern", pattern.to_owned()),
        ("seconds", lab.seconds.to_string()),
    ]);
    let mut run = Run::new(lab, Transport::Convoy)?;
    run.set(variable, value);
    Sample::of(run.pair("load-many", &arguments)?, key)
}
