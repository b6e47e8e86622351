//! What a rule compares a connection with: programs, networks, ports; each from its text, and by itself.
//! Not here: rules.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::net::IpAddr;

/// A number or a text, as TOML has it.
pub(super) enum Scalar {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number that is not negative")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                let refused = || E::invalid_value(de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(Scalar::Number).map_err(|_| refused())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number of bytes.
#[derive(serde::Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(try_from = "Scalar")]
pub(super) struct Bytes(pub(super) u64);

impl TryFrom<Scalar> for Bytes {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Bytes, String> {
        let text = match scalar {
            Scalar::Number(number) => return Ok(Bytes(number)),
            Scalar::Text(text) => text,
        };
        let (digits, shift) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 10),
            Some((at, 'M')) => (&text[..at], 20),
            Some((at, 'G')) => (&text[..at], 30),
            _ => (text.as_str(), 0),
        };
        let number = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        number
            .and_then(|digits| digits.parse::<u64>().ok())
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Bytes)
            .ok_or_else(|| {
                format!("'{text}' is no number of bytes; allowed: digits, then k, M, G or nothing")
            })
    }
}

/// A range of ports.
#[derive(serde::Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(try_from = "Scalar")]
pub(super) struct Ports {
    first: u16,
    last: u16,
}

impl TryFrom<Scalar> for Ports {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Ports, String> {
        let text = match scalar {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text,
        };
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let ports = first.trim().parse().ok().zip(last.trim().parse().ok());
        ports.filter(|(first, last)| first <= last).map(|(first, last)| Ports { first, last }).ok_or_else(
            || format!("'{text}' is no port; allowed: 0 to 65535, or a range such as \"8000-8999\""),
        )
    }
}

impl Ports {
    pub(super) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// An IP address or network. IPv4 mapped into IPv6 is IPv4.
#[derive(serde::Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(try_from = "String")]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let wrong = || {
            format!("'{text}' is no address or network; allowed are such as 10.1.2.3, 10.0.0.0/8, fd00::/8")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.as_str(), None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = width(written);
        let digits = |prefix: &&str| !prefix.is_empty() && prefix.bytes().all(|digit| digit.is_ascii_digit());
        let mut prefix: u8 = match prefix {
            None => width,
            Some(prefix) => {
                Some(prefix).filter(digits).and_then(|prefix| prefix.parse().ok()).ok_or_else(wrong)?
            }
        };
        if prefix > width {
            return Err(wrong());
        }
        let mut address = written;
        if written.is_ipv6() && prefix >= 96 && written.to_canonical().is_ipv4() {
            address = written.to_canonical();
            prefix -= 96;
        }
        let base = base(address, prefix);
        if base != address {
            return Err(format!("'{text}' has bits set behind its prefix; the network is {base}/{prefix}"));
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && base(address, self.prefix) == self.address
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits behind the first `prefix` cleared.
fn base(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// A program's name, or its path if there is a slash; `?` is any one character and `*` any number of them,
/// also slashes.
#[derive(serde::Deserialize, Clone, Debug, PartialEq)]
#[serde(try_from = "String")]
pub(super) struct Program(Vec<char>);

impl TryFrom<String> for Program {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Program, &'static str> {
        if text.is_empty() {
            return Err("an empty program matches nothing; allowed: a name or path, with * and ?");
        }
        Ok(Program(text.chars().collect()))
    }
}

impl Program {
    pub(super) fn matches(&self, program: &str) -> bool {
        let whole = self.0.contains(&'/');
        let subject = if whole { program } else { program.rsplit('/').next().unwrap_or(program) };
        let subject: Vec<char> = subject.chars().collect();
        let (mut at, mut from) = (0, 0);
        // Where to go on when the last star has to take one more character.
        let mut again: Option<(usize, usize)> = None;
        while from < subject.len() {
            match self.0.get(at) {
                Some('*') => {
                    again = Some((at + 1, from + 1));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == subject[from] => {
                    at += 1;
                    from += 1;
                }
                _ => {
                    let Some((star, next)) = again else { return false };
                    again = Some((star, next + 1));
                    (at, from) = (star, next);
                }
            }
        }
        self.0[at..].iter().all(|letter| *letter == '*')
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
