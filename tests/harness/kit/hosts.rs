//! The two hosts that the ends of a case's connections are on, where they are not both on this one.
//!
//! The suite makes the hosts and names them in an environment variable; see [`crate::hosts`].

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use super::net::{Address, Family};

/// The environment variable with [`Hosts::to_text`].
pub const HOSTS: &str = "TEST_HOSTS";

/// Addresses of this host and of the other, and the other's network namespace.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Names of the network namespaces, this host's first.
    pub namespaces: [String; 2],
    /// Their IPv4 addresses.
    pub v4: [Ipv4Addr; 2],
    /// Their IPv6 addresses.
    pub v6: [Ipv6Addr; 2],
}

impl Hosts {
    /// What the environment says.
    pub fn from_environment() -> Option<Self> {
        let text = std::env::var(HOSTS).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let [here, there, v4_here, v4_there, v6_here, v6_there] = words.as_slice() else {
            panic!("{HOSTS}={text}");
        };
        Some(Self {
            namespaces: [here, there].map(|name| (*name).to_owned()),
            v4: [v4_here, v4_there].map(|address| address.parse().expect("an IPv4 address")),
            v6: [v6_here, v6_there].map(|address| address.parse().expect("an IPv6 address")),
        })
    }

    /// In one line.
    pub fn to_text(&self) -> String {
        let Self { namespaces: [here, there], v4, v6 } = self;
        format!("{here} {there} {} {} {} {}", v4[0], v4[1], v6[0], v6[1])
    }

    /// The same as seen from the other host.
    fn turned(mut self) -> Self {
        self.namespaces.reverse();
        self.v4.reverse();
        self.v6.reverse();
        self
    }

    /// This very program, to be started on the other host.
    pub fn this_program_there() -> Command {
        let hosts = Self::from_environment().unwrap_or_else(|| panic!("{HOSTS} names no hosts"));
        let program = std::env::current_exe().expect("this program's path");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", hosts.namespaces[1])).arg(program);
        command.env(HOSTS, hosts.turned().to_text());
        command
    }
}

/// An address of this host; of the loopback device where there is only one host.
pub fn here(family: Family, port: u16) -> Address {
    address(0, family, port)
}

/// An address of the host that the other ends are on.
pub fn there(family: Family, port: u16) -> Address {
    address(1, family, port)
}

fn address(side: usize, family: Family, port: u16) -> Address {
    Hosts::from_environment().map_or_else(
        || Address::loopback(family, port),
        |hosts| Address::of(family, hosts.v4[side], hosts.v6[side], port),
    )
}
