//! One suite of checks over all kinds of rails. Each check gets the two ends of a rail, both used by its own thread,
//! and waits for conditions with a watchdog.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connecting;
mod dying;
mod flow;
mod harness;
mod placing;
mod refusing;
mod sleeping;

use std::net::{IpAddr, Ipv4Addr};

use convoy_fabric::libfabric::{self, Local, Placement};
use convoy_fabric::{Fabric, Limits, memory};

/// Two rails that reach each other; nothing when the machine has no such thing.
type Ends = Option<(Box<dyn Fabric>, Box<dyn Fabric>)>;

/// The checks as tests of one kind of rail.
macro_rules! suite {
    ($name:ident, $open:expr) => {
        mod $name {
            use crate::harness::Pair;

            suite!(@tests $open; connecting: both_ways_round, token_refused, disconnect_and_again, many_links, nobody_there);
            suite!(@tests $open; placing: exactly, from_unregistered_bytes, from_foreign_memory, full_depth);
            suite!(@tests $open; flow: immediates_once_and_in_order, many_writes_both_ways);
            suite!(@tests $open; refusing: beyond_limits, out_of_bounds, wrong_key, released_under_way, local_memory);
            suite!(@tests $open; sleeping: wakes_for_a_write, wakes_for_a_connection);
        }
    };
    (@tests $open:expr; $module:ident: $($check:ident),+) => {
        $(#[test]
        fn $check() {
            match $open {
                Some((a, b)) => crate::$module::$check(&mut Pair::new(a, b)),
                None => println!("skipped: {} is not on this machine", stringify!($open)),
            }
        })+
    };
}

fn over(provider: &str, placement: Placement) -> Ends {
    let local = Local::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if libfabric::discover(&format!("{provider}@{local}")).is_empty() {
        return None;
    }
    let open = || libfabric::open(provider, Some(&local), placement).unwrap();
    Some((open(), open()))
}

/// Two rails of the first device.
fn over_device(provider: &str) -> Ends {
    let local = libfabric::discover(provider).first()?.local();
    let open = || libfabric::open(provider, Some(&local), Placement::Best).unwrap();
    Some((open(), open()))
}

fn in_memory(limits: Limits) -> Ends {
    let (a, b) = memory::pair(limits, [memory::Faults::default(); 2]).unwrap();
    Some((Box::new(a), Box::new(b)))
}

suite!(in_memory, crate::in_memory(crate::memory::LIMITS));
suite!(shared_memory, Some((convoy_fabric::shm::open().unwrap(), convoy_fabric::shm::open().unwrap())));
suite!(tcp, crate::over("tcp", crate::Placement::Best));
suite!(tcp_with_messages, crate::over("tcp", crate::Placement::Messages));
suite!(udp_rxd, crate::over("udp;ofi_rxd", crate::Placement::Best));
suite!(tcp_rxm, crate::over("tcp;ofi_rxm", crate::Placement::Best));
suite!(verbs, crate::over_device("verbs"));
suite!(tcp_rxm_with_messages, crate::over("tcp;ofi_rxm", crate::Placement::Messages));

/// So many links that a rail needs more than one completion queue.
#[test]
fn tcp_with_many_queues() {
    if let Some((a, b)) = over("tcp", Placement::Best) {
        connecting::links(&mut harness::Pair::new(a, b), 40);
    }
}
