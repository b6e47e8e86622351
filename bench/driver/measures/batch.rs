//! How many messages a receiver finds at one look, by the number of sockets that send: Convoy only.

use std::collections::BTreeMap;

use anyhow::Result;

use super::many::{self, Load, Pattern};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Transport};

const SOCKETS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

pub(crate) fn all(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for pattern in Pattern::BOTH {
        for sockets in SOCKETS {
            let name = format!("{}, {sockets} x 64 B", pattern.name());
            let case = Case::new("batch", name, "messages/batch", Better::Higher).at(pattern.name(), sockets);
            let load = Load { sockets, pattern, ..Load::default() };
            report(compare(lab, case, &[Transport::Convoy], |run| once(run, &load)));
        }
    }
}

fn once(run: &Run<'_>, load: &Load) -> Result<Sample> {
    let sample = many::once(run, load)?;
    // None: in this run nothing left the kernel, so there were no batches.
    let value = sample.counters.messages_per_batch().unwrap_or(0.0);
    let extra = BTreeMap::from([(load.pattern.figure().to_owned(), sample.value)]);
    Ok(Sample { value, extra, ..sample })
}
