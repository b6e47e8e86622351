//! Properties of programs, networks and ports, against plain models of them.

use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Globs as recursion says them.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| glob(rest, &text[taken..])),
        Some((letter, rest)) => text
            .split_first()
            .is_some_and(|(first, more)| (*letter == '?' || letter == first) && glob(rest, more)),
    }
}

fn network(text: &str) -> Result<Network, String> {
    Network::try_from(text.to_owned())
}

proptest! {
    #[test]
    fn globs_match_as_the_model_does(pattern in "[ab*?]{1,8}", text in "[ab]{0,10}") {
        let model = glob(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
        prop_assert_eq!(Program::try_from(pattern.clone()).unwrap().matches(&text), model);
        // With a slash, the whole path counts; without, what is behind the last one.
        let path = format!("/usr/{text}");
        prop_assert_eq!(Program::try_from(pattern.clone()).unwrap().matches(&path), model);
        prop_assert_eq!(Program::try_from(format!("/usr/{pattern}")).unwrap().matches(&path), model);
    }

    #[test]
    fn any_text_is_a_pattern_and_matches_safely(pattern in ".{1,12}", text: String) {
        Program::try_from(pattern).unwrap().matches(&text);
    }

    #[test]
    fn ipv4_networks_compare_the_first_bits(bits: u32, other: u32, flip in 0u32..32, prefix in 0u32..=32) {
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        let net = network(&format!("{}/{prefix}", Ipv4Addr::from(bits & mask))).unwrap();
        for other in [other, bits ^ 1 << flip] {
            let inside = other & mask == bits & mask;
            prop_assert_eq!(net.contains(Ipv4Addr::from(other).into()), inside);
            prop_assert_eq!(net.contains(Ipv4Addr::from(other).to_ipv6_mapped().into()), inside);
        }
    }

    #[test]
    fn ipv6_networks_compare_the_first_bits(bits: u128, flip in 0u32..128, prefix in 0u32..=128) {
        let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
        let net = network(&format!("{}/{prefix}", Ipv6Addr::from(bits & mask))).unwrap();
        prop_assert!(net.contains(Ipv6Addr::from(bits).into()));
        prop_assert_eq!(net.contains(Ipv6Addr::from(bits ^ 1 << flip).into()), flip < 128 - prefix);
    }

    #[test]
    fn mapped_networks_are_ipv4(bits: u32, prefix in 0u32..=32) {
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        let address = Ipv4Addr::from(bits & mask);
        let mapped = network(&format!("{}/{}", address.to_ipv6_mapped(), prefix + 96)).unwrap();
        prop_assert_eq!(mapped, network(&format!("{address}/{prefix}")).unwrap());
    }

    #[test]
    fn bits_behind_the_prefix_are_refused(bits: u32, prefix in 0u32..32) {
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        prop_assume!(bits & !mask != 0);
        let text = format!("{}/{prefix}", Ipv4Addr::from(bits));
        prop_assert!(network(&text).is_err());
    }

    #[test]
    fn ports_are_those_of_the_range(first: u16, last: u16, port: u16) {
        match Ports::try_from(Scalar::Text(format!("{first}-{last}"))) {
            Ok(ports) => prop_assert_eq!(ports.contains(port), first <= port && port <= last),
            Err(_) => prop_assert!(first > last),
        }
        let one = Ports::try_from(Scalar::Number(first.into())).unwrap();
        prop_assert_eq!(one.contains(port), first == port);
    }

    #[test]
    fn any_text_is_looked_at_safely(text: String) {
        let _ = network(&text);
        let _ = Ports::try_from(Scalar::Text(text.clone()));
        let _ = Bytes::try_from(Scalar::Text(text));
    }
}

#[test]
fn networks_do_not_mix_families() {
    assert!(!network("0.0.0.0/0").unwrap().contains(Ipv6Addr::LOCALHOST.into()));
    assert!(!network("::/0").unwrap().contains(Ipv4Addr::LOCALHOST.into()));
    assert!(!network("::/0").unwrap().contains(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
}

#[test]
fn bytes_have_suffixes() {
    let bytes = |text: &str| Bytes::try_from(Scalar::Text(text.to_owned())).ok().map(|bytes| bytes.0);
    assert_eq!(bytes("0"), Some(0));
    assert_eq!(bytes("3k"), Some(3 << 10));
    assert_eq!(bytes("256M"), Some(256 << 20));
    assert_eq!(bytes("2G"), Some(2 << 30));
    for wrong in ["", "k", "-1", "+1", "1T", "1.5G", "99999999999G", "1 M"] {
        assert_eq!(bytes(wrong), None, "{wrong}");
    }
}
