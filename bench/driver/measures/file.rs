//! What interception costs a call on a descriptor that is none of Convoy's. The tcp column is without preload.

use super::arguments;
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, PairResult, Side, Transport};

pub(crate) fn read(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    let arguments = arguments(&[("seconds", lab.seconds.to_string())]);
    let case = Case::new("file", "read of a plain file, 1 byte", "ns", Better::Lower).without_traffic();
    report(compare(lab, case, &Transport::NO_UNIX, |run| {
        let mut command = run.command(lab.programs.join("load-file"));
        command.args(&arguments);
        let end = run.start(command, Side::Client)?.wait(lab.limit())?;
        let result =
            PairResult { values: end.values(), cpu_seconds: end.cpu_seconds, counters: run.take_counters() };
        Sample::of(result, "read_ns")
    }));
}
