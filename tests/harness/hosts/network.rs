//! Network namespaces joined by veth pairs, or by a bridge where a network has more than two members.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::until;

/// Where `ip netns` keeps namespaces.
const PLACE: &str = "/run/netns";
/// Every namespace of this harness is called so, with the process's id behind it.
const PREFIX: &str = "cvt";

/// Which hosts there are and which networks join them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many hosts.
    pub hosts: usize,
    /// The members of each network.
    pub networks: Vec<Vec<usize>>,
}

/// Namespaces that exist as long as this value.
pub struct Network {
    hosts: Vec<Namespace>,
    switches: Vec<Namespace>,
    plan: Plan,
    /// Tells the addresses of this one apart from those of others that run at the same time.
    number: u16,
}

/// One namespace.
struct Namespace {
    name: String,
    file: OwnedFd,
}

impl Plan {
    /// Two hosts on one network.
    pub fn pair() -> Self {
        Self { hosts: 2, networks: vec![vec![0, 1]] }
    }
}

impl Network {
    /// Makes everything and waits until every host reaches its neighbours.
    ///
    /// # Errors
    /// Why there can be none: what `ip` says.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let number = (pid.wrapping_mul(8).wrapping_add(count * 4) & 0xffff) as u16;
        let mut network = Self { hosts: Vec::new(), switches: Vec::new(), plan: plan.clone(), number };
        for host in 0..plan.hosts {
            network.hosts.push(Namespace::new(format!("{PREFIX}{pid}-{count}h{host}"))?);
        }
        for (index, members) in plan.networks.iter().enumerate() {
            network.join(index, members, &format!("{PREFIX}{pid}-{count}s{index}"))?;
        }
        let reached = until(|| network.all_reach_all());
        if reached { Ok(network) } else { Err("hosts do not reach each other".into()) }
    }

    fn join(&mut self, index: usize, members: &[usize], switch: &str) -> Result<(), String> {
        let device = format!("net{index}");
        if let [one, two] = *members {
            let (one, two) = (self.name(one), self.name(two));
            ip(&format!("link add {device} netns {one} type veth peer name {device} netns {two}"))?;
        } else {
            let switch = Namespace::new(switch.to_owned())?;
            ip(&format!("-n {} link add bridge type bridge", switch.name))?;
            ip(&format!("-n {} link set bridge up", switch.name))?;
            for member in members {
                let (host, port) = (self.name(*member), format!("port{member}"));
                ip(&format!(
                    "link add {device} netns {host} type veth peer name {port} netns {}",
                    switch.name
                ))?;
                ip(&format!("-n {} link set {port} master bridge up", switch.name))?;
            }
            self.switches.push(switch);
        }
        for member in members {
            let (name, address) = (self.name(*member).to_owned(), self.address(*member, index));
            ip(&format!("-n {name} address add {address}/24 dev {device}"))?;
            ip(&format!("-n {name} address add {}/64 dev {device} nodad", self.address6(*member, index)))?;
            ip(&format!("-n {name} link set {device} up"))?;
        }
        Ok(())
    }

    /// The name of a host's namespace.
    pub fn name(&self, host: usize) -> &str {
        &self.hosts[host].name
    }

    /// A host's address in a network.
    pub fn address(&self, host: usize, network: usize) -> Ipv4Addr {
        let [high, low] = self.number.wrapping_add(network as u16).to_be_bytes();
        Ipv4Addr::new(10, high, low, host as u8 + 1)
    }

    /// The same with IPv6.
    pub fn address6(&self, host: usize, network: usize) -> Ipv6Addr {
        let subnet = self.number.wrapping_add(network as u16);
        Ipv6Addr::new(0xfd00, 0xc0, subnet, 0, 0, 0, 0, host as u16 + 1)
    }

    /// The descriptor of a host's namespace.
    pub fn descriptor(&self, host: usize) -> i32 {
        self.hosts[host].file.as_raw_fd()
    }

    /// Does something in a host's namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let descriptor = self.descriptor(host);
        let run = || {
            enter(descriptor).expect("setns");
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("work in a namespace"))
    }

    /// Processes that run on any of the hosts, and what they are.
    pub fn processes(&self) -> Vec<String> {
        let all = self.hosts.iter().flat_map(Namespace::processes);
        all.map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
    }

    /// Removes everything now.
    ///
    /// # Errors
    /// The names of namespaces that are still there.
    pub fn remove(self) -> Result<(), String> {
        let all = self.hosts.iter().chain(&self.switches);
        let places: Vec<String> = all.map(|namespace| format!("{PLACE}/{}", namespace.name)).collect();
        drop(self);
        let left: Vec<String> =
            places.into_iter().filter(|place| fs::exists(place).unwrap_or(true)).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    }

    /// A closed port answers with a refusal, so a refusal shows that packets go both ways.
    fn all_reach_all(&self) -> bool {
        let networks = self.plan.networks.iter().enumerate();
        let mut ways = networks.flat_map(|(index, members)| {
            members.iter().flat_map(move |from| members.iter().map(move |to| (index, *from, *to)))
        });
        ways.all(|(index, from, to)| {
            let addresses: [IpAddr; 2] = [self.address(to, index).into(), self.address6(to, index).into()];
            addresses.iter().all(|address| from == to || self.reaches(from, SocketAddr::new(*address, 9)))
        })
    }

    fn reaches(&self, from: usize, to: SocketAddr) -> bool {
        let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(500));
        self.inside(from, connect).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }
}

impl Namespace {
    fn new(name: String) -> Result<Self, String> {
        ip(&format!("netns add {name}"))?;
        let file = File::open(format!("{PLACE}/{name}")).map_err(|error| error.to_string());
        let file = file.inspect_err(|_| drop(ip(&format!("netns delete {name}"))))?.into();
        let namespace = Self { name, file };
        // Hosts that come to life wait a second for each address to be proven unique.
        let quick = || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        let descriptor = namespace.file.as_raw_fd();
        let quick = std::thread::spawn(move || enter(descriptor).and_then(|()| quick())).join();
        let _ = quick.expect("a thread in a namespace");
        ip(&format!("-n {} link set lo up", namespace.name))?;
        Ok(namespace)
    }

    fn processes(&self) -> Vec<i32> {
        processes_in(&self.name)
    }
}

impl Drop for Namespace {
    /// Whatever still runs there was started by the test that made it.
    fn drop(&mut self) {
        delete(&self.name);
    }
}

fn processes_in(name: &str) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", name]).output().expect("ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Deletes a namespace of this harness, with what runs in it.
fn delete(name: &str) {
    for pid in processes_in(name) {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let _ = ip(&format!("netns delete {name}"));
}

/// Moves the calling thread into a namespace.
///
/// # Errors
/// As setns(2).
pub fn enter(descriptor: i32) -> std::io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Runs `ip` with these words.
///
/// # Errors
/// What it says.
pub fn ip(words: &str) -> Result<(), String> {
    run("ip", words)
}

/// Runs a tool of the system with these words.
///
/// # Errors
/// What it says, or that it is not there.
pub fn run(tool: &str, words: &str) -> Result<(), String> {
    let output = Command::new(tool).args(words.split_whitespace()).env_remove("LD_PRELOAD").output();
    let output = output.map_err(|error| format!("{tool}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{tool} {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes what test processes that were killed have left.
fn sweep() {
    for entry in fs::read_dir(PLACE).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            delete(&name);
        }
    }
}
