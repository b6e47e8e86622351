//! Which rails are found, and what is said of those that are not.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};

use convoy_fabric::libfabric::{Local, Placement, discover, open};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn one_rail_per_device() {
    let rails = discover("tcp");
    let mut devices: Vec<_> = rails.iter().map(|rail| rail.domain.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), rails.len());
    assert!(rails.iter().all(|rail| rail.provider == "tcp"));
    let is_loopback = |address: Option<IpAddr>| address.is_some_and(|address| address.is_loopback());
    assert!(rails.len() < 2 || !rails.iter().any(|rail| is_loopback(rail.address)));
    for rail in &rails {
        open("tcp", Some(&rail.local()), Placement::Best).unwrap();
    }
}

#[test]
fn by_address_and_by_device() {
    let rails = discover("tcp@127.0.0.1");
    let Some(rail) = rails.first() else {
        println!("skipped: no libfabric");
        return;
    };
    assert_eq!(rails.len(), 1);
    assert_eq!(rail.address, Some(LOOPBACK));
    assert_eq!(rail.local(), Local::Address(LOOPBACK));
    let by_device = discover(&format!("tcp@{}", rail.domain));
    assert_eq!(by_device, rails);
    let by_device = open("tcp", Some(&Local::from(rail.domain.as_str())), Placement::Best).unwrap();
    assert!(by_device.name().contains("127.0.0.1"), "{}", by_device.name());
}

#[test]
fn nothing_where_there_is_nothing() {
    assert_eq!(discover("no such provider"), []);
    assert_eq!(discover("tcp@no such device"), []);
    assert!(open("no such provider", None, Placement::Best).is_err());
    let elsewhere = Local::from("203.0.113.7");
    assert!(open("tcp", Some(&elsewhere), Placement::Best).is_err());
    assert!(open("tcp\0", None, Placement::Best).is_err());
    // Sockets of the kernel are not looked for.
    assert!(discover("auto").iter().all(|rail| rail.provider != "tcp"));
}
