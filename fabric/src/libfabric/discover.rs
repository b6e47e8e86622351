//! Which rails a host has.

use std::collections::HashSet;
use std::net::IpAddr;

use super::Local;
use super::info::{Info, Offer, Wanted};
use super::library::library;

/// Providers that `auto` looks for, the best first. Those over the kernel's sockets are no gain by themselves.
const AUTO: [&str; 3] = ["verbs", "efa", "cxi"];

/// One rail that could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailInfo {
    /// The provider, in libfabric's spelling.
    pub provider: String,
    /// The network, as the provider calls it.
    pub fabric: String,
    /// The device, as the provider calls it.
    pub domain: String,
    /// The address on this host, if it is one of IP.
    pub address: Option<IpAddr>,
}

impl RailInfo {
    /// What to open it with.
    pub fn local(&self) -> Local {
        match self.address {
            Some(address) => Local::Address(address),
            None => Local::Device(self.domain.clone()),
        }
    }
}

/// The rails that fit `setting`: `auto`, a provider's name, or a provider's name, `@`, and an address or device. With
/// `auto` they are all of one provider. There is one per device; loopback is left out unless asked for or alone. Where
/// there is no libfabric there are no rails.
pub fn discover(setting: &str) -> Vec<RailInfo> {
    if setting == "auto" {
        let found = AUTO.iter().map(|provider| of_provider(provider, None));
        return found.into_iter().find(|rails| !rails.is_empty()).unwrap_or_default();
    }
    match setting.split_once('@') {
        Some((provider, local)) => of_provider(provider, Some(&Local::from(local))),
        None => of_provider(setting, None),
    }
}

fn of_provider(provider: &str, local: Option<&Local>) -> Vec<RailInfo> {
    let Ok(library) = library() else { return Vec::new() };
    let mut rails = Vec::new();
    for messages in [false, true] {
        let wanted = Wanted { provider, local, messages, ordered: false };
        if let Ok(Some(info)) = Info::query(library, &wanted) {
            rails.extend(info.offers_for(&wanted).map(of_offer));
        }
        if !rails.is_empty() {
            break;
        }
    }
    // Of a device's addresses, one that is good on its own: IPv4 before IPv6, and none that needs its scope told.
    rails.retain(|rail| !rail.address.is_some_and(is_link_local));
    rails.sort_by_key(|rail| rail.address.is_some_and(|address| address.is_ipv6()));
    let mut devices = HashSet::new();
    rails.retain(|rail| devices.insert(rail.domain.clone()));
    let is_loopback = |rail: &RailInfo| rail.address.is_some_and(|address| address.is_loopback());
    if local.is_none() && !rails.iter().all(is_loopback) {
        rails.retain(|rail| !is_loopback(rail));
    }
    rails
}

fn of_offer(offer: Offer<'_>) -> RailInfo {
    RailInfo {
        provider: offer.provider(),
        fabric: offer.fabric_name(),
        domain: offer.domain_name(),
        address: offer.source_address(),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
