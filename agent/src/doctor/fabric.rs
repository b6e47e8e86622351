//! Whether connections to other hosts would be accelerated: libfabric, devices, limits, the agent.
//!
//! Nothing here rules acceleration on this host out. What `CONVOY_FABRIC=auto` does not find is good to know; what was
//! named and is not there is a "no".

use super::Findings;
use crate::contact;
use crate::daemon::status::Status;
use convoy_control::peers::config::DEFAULT_PORT;
use convoy_fabric::libfabric::{self, RailInfo, discover};
use convoy_runtime::config::{Fabric, Settings, settings};
use rustix::process::Resource;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Providers that are worth naming when they are there.
const PROVIDERS: [&str; 7] = ["verbs", "efa", "cxi", "opx", "psm3", "ucx", "tcp"];
const DEVICES: &str = "/sys/class/infiniband";
/// Memory that a device holds for some ten hosts.
const LOCKED_ENOUGH: u64 = 64 << 20;
const REACHABLE: Duration = Duration::from_millis(500);

pub(super) fn examine() -> Findings {
    let mut findings = Findings::default();
    let wanted = match &settings().fabric {
        Fabric::Auto => "auto",
        Fabric::Provider(name) => name,
        Fabric::Shm | Fabric::Off => {
            findings.note("fabric", "CONVOY_FABRIC allows shared memory at most: nothing between hosts");
            return findings;
        }
    };
    rails(wanted, &mut findings);
    devices(Path::new(DEVICES), &mut findings);
    locked_memory(&mut findings);
    agent(settings(), &mut findings);
    findings
}

/// What is missing: a note for those who have named nothing.
fn missing(wanted: &str, findings: &mut Findings, topic: &'static str, text: String) {
    if wanted == "auto" { findings.note(topic, text) } else { findings.no(topic, text) }
}

fn rails(wanted: &str, findings: &mut Findings) {
    match libfabric::version() {
        Ok((major, minor)) => findings.fine("libfabric", format!("version {major}.{minor}")),
        Err(error) => {
            let text = format!("{error}: install it (Debian: libfabric1) for connections between hosts");
            return missing(wanted, findings, "libfabric", text);
        }
    }
    let there: Vec<&str> = PROVIDERS.into_iter().filter(|name| !discover(name).is_empty()).collect();
    findings.fine("providers", if there.is_empty() { "none".to_owned() } else { there.join(", ") });
    let rails = discover(wanted);
    if rails.is_empty() {
        let advice = if wanted == "auto" { "; CONVOY_FABRIC=tcp needs none" } else { "" };
        missing(wanted, findings, "rails", format!("no device for CONVOY_FABRIC={wanted}{advice}"));
    } else {
        let names: Vec<String> = rails.iter().map(name).collect();
        findings.fine("rails", format!("CONVOY_FABRIC={wanted}: {}", names.join(", ")));
    }
}

fn name(rail: &RailInfo) -> String {
    let address = rail.address.map(|address| format!(" {address}")).unwrap_or_default();
    format!("{} {}{address}", rail.provider, rail.domain)
}

/// What the kernel knows of RDMA devices.
fn devices(directory: &Path, findings: &mut Findings) {
    let devices = names(directory);
    if devices.is_empty() {
        return findings.note("RDMA devices", "none");
    }
    for device in devices {
        let ports = directory.join(&device).join("ports");
        for number in names(&ports) {
            let port = ports.join(&number);
            let read = |name: &str| fs::read_to_string(port.join(name)).unwrap_or_default().trim().to_owned();
            let state = read("state");
            let state = state.split_once(": ").map_or(&*state, |(_, word)| word);
            // Places without an address are all zeros.
            let gids = names(&port.join("gids")).into_iter().filter_map(|gid| {
                let text = read(&format!("gids/{gid}"));
                let kind = read(&format!("gid_attrs/types/{gid}"));
                let used = text.chars().any(|letter| !matches!(letter, '0' | ':'));
                used.then(|| if kind.is_empty() { text } else { format!("{text} ({kind})") })
            });
            let gids: Vec<String> = gids.collect();
            let list =
                if gids.is_empty() { "no GIDs".to_owned() } else { format!("GIDs {}", gids.join(", ")) };
            let text =
                format!("{device} port {number}: {}, {}, {list}", state.to_lowercase(), read("link_layer"));
            match state {
                "ACTIVE" if gids.is_empty() => {
                    findings.note("RDMA devices", format!("{text}: give its interface an address"));
                }
                "ACTIVE" => findings.fine("RDMA devices", text),
                _ => findings.note("RDMA devices", format!("{text}: is the cable in, the interface up?")),
            }
        }
    }
}

/// What is in a directory, numbers in their order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_by_key(|name| (name.parse::<u32>().unwrap_or(u32::MAX), name.clone()));
    names
}

fn locked_memory(findings: &mut Findings) {
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    match limit {
        None => findings.fine("locked memory", "unlimited"),
        Some(bytes) if bytes >= LOCKED_ENOUGH || rustix::process::geteuid().is_root() => {
            findings.fine("locked memory", format!("{} KiB (root is not bound by it)", bytes >> 10));
        }
        Some(bytes) => findings.note(
            "locked memory",
            format!(
                "{} KiB only, an RDMA device needs 4 MiB for each host: raise memlock in /etc/security/limits.conf, \
                 or LimitMEMLOCK=infinity in the agent's systemd unit",
                bytes >> 10
            ),
        ),
    }
}

fn agent(settings: &Settings, findings: &mut Findings) {
    let Some(place) = contact::find(settings) else {
        findings.note("agent", "none runs for this user here: start 'convoy agent' on each host");
        let port = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT);
        if answers(port) {
            findings.note("agent's port", format!("somebody listens at port {DEFAULT_PORT} already"));
        }
        return;
    };
    match contact::ask(&place, "/health") {
        Ok(_) => findings.fine("agent", format!("runs and answers at {}", place.display())),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return findings.fine("agent", format!("runs at {} (only root may ask it)", place.display()));
        }
        Err(error) => {
            return findings
                .note("agent", format!("runs at {}, but does not answer: {error}", place.display()));
        }
    }
    let status: Option<Status> =
        contact::ask(&place, "/status").ok().and_then(|text| serde_json::from_str(&text).ok());
    let Some(listening) = status.and_then(|status| status.control.listening.parse().ok()) else { return };
    let here = loopback(listening);
    if answers(here) {
        findings.fine("agent's port", format!("{here} is reachable"));
    } else {
        findings.note("agent's port", format!("{here} is not reachable: is there a firewall?"));
    }
}

/// Where this host reaches a socket that listens there.
fn loopback(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It takes IPv4 too, which is there where IPv6 is switched off.
        IpAddr::V6(address) if address == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(ip, listening.port())
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, REACHABLE).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn devices_are_told_with_their_ports() {
        let base = std::env::temp_dir().join(format!("convoy-devices-{}", std::process::id()));
        let look = || {
            let mut findings = Findings::default();
            devices(&base, &mut findings);
            let [finding] = &findings.0[..] else { return None };
            Some((finding.verdict, finding.text.clone()))
        };
        assert_eq!(look(), Some((Verdict::Note, "none".to_owned())));
        let port = base.join("rdma0/ports/1");
        fs::create_dir_all(port.join("gids")).unwrap();
        fs::create_dir_all(port.join("gid_attrs/types")).unwrap();
        fs::write(port.join("state"), "1: DOWN\n").unwrap();
        fs::write(port.join("link_layer"), "Ethernet\n").unwrap();
        fs::write(port.join("gids/0"), "0000:0000:0000:0000:0000:0000:0000:0000\n").unwrap();
        let (verdict, text) = look().unwrap();
        assert!(verdict == Verdict::Note && text.contains("down, Ethernet, no GIDs"), "{text}");
        fs::write(port.join("state"), "4: ACTIVE\n").unwrap();
        assert!(look().unwrap().1.contains("give its interface an address"));
        fs::write(port.join("gids/1"), "0000:0000:0000:0000:0000:ffff:0a00:0001\n").unwrap();
        fs::write(port.join("gid_attrs/types/1"), "RoCE v2\n").unwrap();
        let (verdict, text) = look().unwrap();
        assert!(verdict == Verdict::Fine && text.ends_with("0a00:0001 (RoCE v2)"), "{text}");
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn only_what_was_named_must_be_there() {
        for (wanted, verdict) in [("auto", Verdict::Note), ("verbs", Verdict::No)] {
            let mut findings = Findings::default();
            missing(wanted, &mut findings, "rails", String::new());
            assert_eq!(findings.0[0].verdict, verdict);
        }
    }

    #[test]
    fn an_agent_that_listens_everywhere_is_on_loopback() {
        for (listening, here) in
            [("[::]:5", "127.0.0.1:5"), ("0.0.0.0:5", "127.0.0.1:5"), ("10.0.0.1:5", "10.0.0.1:5")]
        {
            assert_eq!(loopback(listening.parse().unwrap()), here.parse().unwrap());
        }
    }
}
