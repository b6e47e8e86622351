//! Bulk transfer and short connections.

use super::{arguments, size};
use crate::compare::{Better, Case, Row, Sample, compare};
use crate::lab::{Lab, Run, Transport};

pub(crate) fn bulk(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for bytes in [128 << 10, 16 << 10] {
        let arguments = arguments(&[("size", bytes.to_string()), ("seconds", lab.seconds.to_string())]);
        let case = Case::new("bulk", format!("{} writes", size(bytes)), "GB/s", Better::Higher);
        let measure = |run: &mut Run<'_>| Sample::of(run.pair("load-bulk", &arguments)?, "gb_per_s");
        report(compare(lab, case, &Transport::ALL, measure));
    }
}

pub(crate) fn connect(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for (exchange, name) in [("no", "connect, accept, close"), ("yes", "connect, request, reply, close")] {
        let arguments = arguments(&[("exchange", exchange.to_owned()), ("seconds", lab.seconds.to_string())]);
        let case = Case::new("connect", name, "connections/s", Better::Higher);
        let case = if exchange == "no" { case.without_traffic() } else { case };
        let measure =
            |run: &mut Run<'_>| Sample::of(run.pair("load-connect", &arguments)?, "connections_per_s");
        report(compare(lab, case, &Transport::ALL, measure));
    }
}
