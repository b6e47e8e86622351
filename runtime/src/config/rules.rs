//! CONVOY_RULES: which connections are accelerated.
//!
//! A list of rules, separated by commas. Each is `+` (accelerate) or `-` (leave to the kernel) and a selector:
//! `port:N` or `port:N-M`, `prog:PATTERN` (file name by which the program was started, `*` and `?` as in a shell), an address
//! (`10.0.0.0/8`, `[fe80::]/10`; without a length one address), or `*` for everything. The first rule that matches
//! decides. If none matches, the connection is accelerated if the list has no `+` rule, and left to the kernel if it
//! has one. Ports and addresses match either end of the connection, so that both ends decide alike.

use super::values::Parsed;
use std::net::IpAddr;

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Everything,
    /// Either port lies in `first..=last`.
    Port {
        first: u16,
        last: u16,
    },
    /// Either address begins with these bits; IPv4 in an IPv6 address counts as IPv4.
    Net {
        address: IpAddr,
        bits: u8,
    },
    /// The program's file name matches this pattern.
    Program(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    accelerate: bool,
    selector: Selector,
}

/// The list; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    list: Vec<Rule>,
}

impl Rules {
    /// Every connection is accelerated.
    pub const ALL: Rules = Rules { list: Vec::new() };

    /// Reads a list; empty items are skipped. The error is the item that is wrong.
    pub(super) fn parse(text: &str) -> Parsed<Rules> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let list: Result<_, _> = items.map(|item| rule(item).ok_or_else(|| item.to_owned())).collect();
        Ok(Rules { list: list? })
    }

    /// Whether this connection of a program with this file name may be accelerated.
    pub fn allows(&self, program: &[u8], local: (IpAddr, u16), peer: (IpAddr, u16)) -> bool {
        let ends = [(local.0.to_canonical(), local.1), (peer.0.to_canonical(), peer.1)];
        match self.list.iter().find(|rule| rule.selector.matches(program, &ends)) {
            Some(rule) => rule.accelerate,
            None => !self.list.iter().any(|rule| rule.accelerate),
        }
    }
}

impl Selector {
    fn matches(&self, program: &[u8], ends: &[(IpAddr, u16); 2]) -> bool {
        match self {
            Selector::Everything => true,
            Selector::Port { first, last } => ends.iter().any(|(_, port)| (*first..=*last).contains(port)),
            Selector::Net { address, bits } => ends.iter().any(|(end, _)| same_bits(*address, *end, *bits)),
            Selector::Program(pattern) => glob(pattern.as_bytes(), program),
        }
    }
}

fn rule(text: &str) -> Option<Rule> {
    let accelerate = match text.chars().next()? {
        '+' => true,
        '-' => false,
        _ => return None,
    };
    selector(text[1..].trim()).map(|selector| Rule { accelerate, selector })
}

fn selector(text: &str) -> Option<Selector> {
    if text == "*" {
        return Some(Selector::Everything);
    }
    if let Some(ports) = text.strip_prefix("port:") {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (port(first)?, port(last)?);
        return (first <= last).then_some(Selector::Port { first, last });
    }
    if let Some(pattern) = text.strip_prefix("prog:") {
        return (!pattern.is_empty() && !pattern.contains('/'))
            .then(|| Selector::Program(pattern.to_owned()));
    }
    net(text)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn net(text: &str) -> Option<Selector> {
    let (address, bits) = match text.rsplit_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address = match address.strip_prefix('[') {
        Some(inner) => IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?),
        None => address.parse().ok()?,
    };
    let bits = bits.unwrap_or(width(address));
    if bits > width(address) {
        return None;
    }
    // A net written in IPv4-mapped form means the IPv4 net.
    let canonical = address.to_canonical();
    match bits.checked_sub(width(address) - width(canonical)) {
        Some(bits) => Some(Selector::Net { address: canonical, bits }),
        None => Some(Selector::Net { address, bits }),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_bits(net: IpAddr, address: IpAddr, bits: u8) -> bool {
    let apart = match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => u128::from(net.to_bits() ^ address.to_bits()) << 96,
        (IpAddr::V6(net), IpAddr::V6(address)) => net.to_bits() ^ address.to_bits(),
        _ => return false,
    };
    apart.leading_zeros() >= u32::from(bits)
}

/// Shell-like match: `*` is any run of bytes, `?` any one byte.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match &mut star {
                Some((back, from)) => {
                    *from += 1;
                    (at, seen) = (*back + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}
