//! Which model of `convoy_aggregator::overhead` counts the bytes of a rail on the wire: the provider and, with verbs,
//! what the kernel says of the device.

use convoy_aggregator::overhead::{Transport, roce_mtu};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

const DEVICES: &str = "/sys/class/infiniband";
/// The path MTU of InfiniBand is not to be found without its library; subnets with devices of today have this one.
const INFINIBAND_MTU: u16 = 4096;

/// How a rail's writes become packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    /// Nothing for providers whose packets are not documented.
    transport: Option<Transport>,
    /// Messages instead of one-sided writes.
    messages: bool,
}

impl Wire {
    /// Of a provider's device, at an address of this host if it is at one.
    pub(crate) fn of(provider: &str, device: &str, one_sided: bool, at: Option<IpAddr>) -> Self {
        let transport = match provider.split(';').next() {
            Some("tcp" | "net" | "sockets") => Some(Transport::Tcp),
            Some("verbs") => Some(of_device(Path::new(DEVICES), device, at)),
            _ => None,
        };
        Self { transport, messages: !one_sided }
    }

    /// Bytes on the wire for a batch; 0 when nothing is known.
    pub(crate) fn batch(self, bytes: usize) -> u64 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (self.transport, self.messages) {
            (Some(transport), false) => transport.write(bytes),
            (Some(transport), true) => transport.message(bytes),
            (None, _) => 0,
        }
    }

    /// Bytes by which the device answers a batch; nothing when that is not known.
    pub(crate) fn acknowledgement(self) -> Option<u64> {
        self.transport.map(Transport::acknowledgement)
    }
}

/// Of a device of verbs, from its directory below `devices`.
fn of_device(devices: &Path, device: &str, at: Option<IpAddr>) -> Transport {
    let ports = devices.join(device).join("ports");
    // Devices that are used have one port, or several of one kind.
    let port =
        fs::read_dir(ports).ok().and_then(|mut entries| entries.next()?.ok()).map(|entry| entry.path());
    let read = |name: &str| {
        let text = fs::read_to_string(port.as_ref()?.join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    if read("link_layer").as_deref() == Some("InfiniBand") {
        return Transport::InfiniBand { mtu: INFINIBAND_MTU };
    }
    if fs::read_to_string(devices.join(device).join("node_type")).is_ok_and(|text| text.starts_with('4')) {
        return Transport::Iwarp;
    }
    let interface = read("gid_attrs/ndevs/0").unwrap_or_default();
    let mtu = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok();
    let mtu = mtu.and_then(|text| text.trim().parse().ok()).unwrap_or(1500);
    Transport::Roce { mtu: roce_mtu(mtu), ipv6: at.is_some_and(|address| address.is_ipv6()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_kernel_says_what_a_device_is() {
        let base = std::env::temp_dir().join(format!("convoy-wire-{}", std::process::id()));
        let port = base.join("rdma0/ports/1");
        fs::create_dir_all(port.join("gid_attrs/ndevs")).unwrap();
        let of = |at: Option<&str>| of_device(&base, "rdma0", at.map(|at| at.parse().unwrap()));
        fs::write(port.join("link_layer"), "Ethernet\n").unwrap();
        assert_eq!(of(Some("10.0.0.1")), Transport::Roce { mtu: 1024, ipv6: false });
        // Loopback has an MTU of 65536.
        fs::write(port.join("gid_attrs/ndevs/0"), "lo\n").unwrap();
        assert_eq!(of(Some("fd00::1")), Transport::Roce { mtu: 4096, ipv6: true });
        fs::write(base.join("rdma0/node_type"), "4: RNIC\n").unwrap();
        assert_eq!(of(None), Transport::Iwarp);
        fs::write(port.join("link_layer"), "InfiniBand\n").unwrap();
        assert_eq!(of(None), Transport::InfiniBand { mtu: 4096 });
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(of(None), Transport::Roce { mtu: 1024, ipv6: false });
    }

    #[test]
    fn what_is_not_known_is_not_counted() {
        assert_eq!(Wire::default().batch(100), 0);
        assert_eq!(Wire::default().acknowledgement(), None);
    }
}
