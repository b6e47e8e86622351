//! More than one thread, and more than one client, on a machine with few processors.

use super::many::{self, Load, Pattern};
use crate::compare::{Better, Case, Row, compare};
use crate::lab::{Lab, Transport};

/// Connections of one thread or one client.
const SOCKETS: usize = 16;
const THREADS: [usize; 2] = [1, 4];
const CLIENTS: [usize; 2] = [1, 4];

/// One server and one client process with several threads each.
pub(crate) fn threads(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for threads in THREADS {
        let load = Load { threads, ..Load::reply(SOCKETS) };
        let name = format!("{}, {SOCKETS} x 64 B each", counted(threads, "thread"));
        report(compare(lab, case("threads", name), &Transport::ALL, |run| many::once(run, &load)));
    }
}

/// Several client processes and one server; under Convoy also when nobody spins.
pub(crate) fn crowd(lab: &Lab, report: &mut dyn FnMut(Vec<Row>)) {
    for (note, spin) in [("", None), (", spinning off", Some(0))] {
        for clients in CLIENTS {
            let name = format!("{}, {SOCKETS} x 64 B each{note}", counted(clients, "client"));
            report(compare(lab, case("crowd", name), &Transport::ALL, |run| {
                if let Some(microseconds) = spin {
                    run.set("CONVOY_SPIN_US", microseconds);
                }
                many::crowd(run, &Load::reply(SOCKETS), clients)
            }));
        }
    }
}

fn case(measure: &'static str, name: String) -> Case {
    Case::new(measure, name, Pattern::Reply.unit(), Better::Higher)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
