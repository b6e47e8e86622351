//! Making connections, their addresses and families, and options.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod about;
mod bytes_left;

mod making;

use convoy_tests::kit::main as run;
use convoy_tests::kit::net::Family;

fn main() {
    run(&[
        ("addresses_v4", |case| about::addresses(case, Family::V4)),
        ("addresses_v6", |case| about::addresses(case, Family::V6)),
        ("addresses_mapped", |case| about::addresses(case, Family::Mapped)),
        ("traffic_v6", |case| about::traffic(case, Family::V6)),
        ("traffic_mapped", |case| about::traffic(case, Family::Mapped)),
        ("mapped_to_plain", about::mapped_to_plain),
        ("address_cut_short", about::address_cut_short),
        ("accept_forms", making::accept_forms),
        ("nonblocking_connect", making::nonblocking_connect),
        ("refused", making::refused),
        ("refused_nonblocking", making::refused_nonblocking),
        ("connect_twice", making::connect_twice),
        ("connect_to_itself", making::connect_to_itself),
        ("bound_before_connect", about::bound_before_connect),
        ("other_loopback_address", about::other_loopback_address),
        ("nonblocking_accept", making::nonblocking_accept),
        ("listener_shut", making::listener_shut),
        ("data_before_accept", making::data_before_accept),
        ("closed_before_accept", making::closed_before_accept),
        ("both_ends_one_thread", making::both_ends_one_thread),
        ("options", about::options),
        ("options_at_work", about::options_at_work),
        ("bytes_left", bytes_left::bytes_left),
        ("datagrams", about::datagrams),
    ]);
}
