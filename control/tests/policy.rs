//! The policy file: which rule decides, limits of users, and what is said about mistakes.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

use convoy_control::Policy;
use convoy_control::policy::{Limits, Request, Spread};
use proptest::prelude::*;
use std::net::SocketAddr;

fn request(uid: u32, program: &'static str, local: &str, remote: &str) -> Request<'static> {
    Request { uid, program, local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

fn wrong(text: &str) -> String {
    let line = Policy::parse(text, "policy.toml").unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn an_empty_file_is_the_default() {
    let policy = Policy::parse("", "x").unwrap();
    assert_eq!(policy, Policy::default());
    let decision = policy.decide(&request(5, "/bin/a", "10.0.0.1:1", "10.0.0.2:2"));
    assert!(decision.allow && !decision.join_users);
    assert_eq!((decision.rail, decision.rule), (None, None));
    assert_eq!(policy.spread(), Spread::Hash);
    let limits = Limits { memory: 256 << 20, streams: 10_000, offers_per_second: 5_000, bytes_per_second: 0 };
    assert_eq!(policy.limits(0), limits);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let text = r#"
        [defaults]
        accelerate = false
        [[rule]]
        allow = false
        users = ["root"]
        remote_ports = [22]
        [[rule]]
        allow = true
        programs = ["nginx", "/usr/sbin/redis*"]
        local = ["10.0.0.0/8"]
        remote = ["fd00::/8", "10.1.2.3"]
        local_ports = ["8000-8999", 22]
        join_users = true
        rail = "mlx5_0"
        [[rule]]
        allow = true
        users = [0]
        [rails]
        spread = "least-loaded"
    "#;
    let policy = Policy::parse(text, "x").unwrap();
    assert_eq!(policy.spread(), Spread::LeastLoaded);
    let rule = |uid, program, local, remote| policy.decide(&request(uid, program, local, remote)).rule;
    assert_eq!(rule(0, "/usr/sbin/nginx", "10.0.0.1:8000", "10.1.2.3:22"), Some(0));
    assert_eq!(rule(0, "/usr/sbin/nginx", "10.0.0.1:8000", "10.1.2.3:23"), Some(1));
    assert_eq!(rule(7, "/opt/nginx", "10.0.0.1:22", "[fd12::1]:23"), Some(1));
    assert_eq!(rule(7, "/usr/sbin/redis-server", "[::ffff:10.9.9.9]:8999", "10.1.2.3:23"), Some(1));
    assert_eq!(rule(7, "/usr/bin/redis-server", "10.0.0.1:22", "10.1.2.3:23"), None);
    assert_eq!(rule(7, "nginx", "11.0.0.1:22", "10.1.2.3:23"), None);
    assert_eq!(rule(7, "nginx", "10.0.0.1:9000", "10.1.2.3:23"), None);
    assert_eq!(rule(7, "nginx", "10.0.0.1:22", "10.1.2.4:23"), None);
    assert_eq!(rule(0, "sshd", "10.0.0.1:22", "10.1.2.4:23"), Some(2));
    let pinned = policy.decide(&request(7, "nginx", "10.0.0.1:22", "10.1.2.3:23"));
    assert!(pinned.allow && pinned.join_users);
    assert_eq!(pinned.rail, Some("mlx5_0"));
    let none = policy.decide(&request(7, "sshd", "10.0.0.1:22", "10.1.2.3:23"));
    assert!(!none.allow && !none.join_users);
}

#[test]
fn joining_users_follows_the_default_unless_the_rule_says() {
    let text = "defaults.join_users = true\n[[rule]]\nallow = true\nusers = [1]\n[[rule]]\nallow = true\nusers = [2]\n\
                join_users = false\n[[rule]]\nallow = false\nusers = [3]";
    let policy = Policy::parse(text, "x").unwrap();
    let join = |uid| policy.decide(&request(uid, "a", "10.0.0.1:1", "10.0.0.2:2")).join_users;
    assert_eq!([1, 2, 3, 4].map(join), [true, false, false, true]);
}

#[test]
fn limits_are_the_users_own_where_they_are_given() {
    let text = r#"
        [defaults]
        memory_per_user = "1G"
        bytes_per_second_per_user = "10k"
        [[limits]]
        users = ["root", 7]
        memory = 4096
        streams = 3
        [[limits]]
        users = [7, 8]
        offers_per_second = 0
        bytes_per_second = "2M"
    "#;
    let policy = Policy::parse(text, "x").unwrap();
    let all = |uid| {
        let Limits { memory, streams, offers_per_second, bytes_per_second } = policy.limits(uid);
        [memory, streams, offers_per_second, bytes_per_second]
    };
    assert_eq!(all(0), [4096, 3, 5000, 10 << 10]);
    assert_eq!(all(7), [4096, 3, 5000, 10 << 10]);
    assert_eq!(all(8), [1 << 30, 10_000, 0, 2 << 20]);
    assert_eq!(all(9), [1 << 30, 10_000, 5000, 10 << 10]);
}

#[test]
fn mistakes_are_told_with_line_and_remedy() {
    let line = wrong("[defaults]\n\nacclerate = true\n");
    assert!(line.starts_with("policy.toml:3: "), "{line}");
    assert!(line.contains("'acclerate'") && line.contains("did you mean 'accelerate'"), "{line}");
    assert!(line.contains("allowed: accelerate, join_users"), "{line}");
    let line = wrong("[[rule]]\nallow = true\nremote_port = [1]\n");
    assert!(line.starts_with("policy.toml:3: ") && line.contains("'remote_ports'?"), "{line}");
    let line = wrong("[rules]\n");
    assert!(line.starts_with("policy.toml:1: ") && line.contains("did you mean 'rule'?"), "{line}");
    let line = wrong("[rails]\nspread = \"hahs\"\n");
    assert!(line.starts_with("policy.toml:2: ") && line.contains("'hash'?"), "{line}");
    let line = wrong("[defaults]\nzebra = 1\n");
    assert!(!line.contains("did you mean") && line.contains("allowed: accelerate"), "{line}");
}

#[test]
fn impossible_values_are_told_with_line_and_what_is_allowed() {
    let cases = [
        ("[[rule]]\nusers = []\n", 1, "allow"),
        ("[[rule]]\nallow = false\n\njoin_users = true\n", 1, "allow = true"),
        ("\n[[rule]]\nallow = false\nrail = \"a\"\n", 2, "allow = true"),
        ("[[rule]]\nallow = true\nusers = [\n 1,\n \"no such user\"]\n", 5, "no such user"),
        ("[[rule]]\nallow = true\nusers = [4294967296]\n", 3, "4294967296"),
        ("[[rule]]\nallow = true\nusers = [-1]\n", 3, "-1"),
        ("[[rule]]\nallow = true\nusers = [1.5]\n", 3, "a text or a number"),
        ("[[rule]]\nallow = true\nlocal = [\"10.0.0.1/8\"]\n", 3, "10.0.0.0/8"),
        ("[[rule]]\nallow = true\nlocal = [\"10.0.0/8\"]\n", 3, "fd00::/8"),
        ("[[rule]]\nallow = true\nremote = [\"::/129\"]\n", 3, "fd00::/8"),
        ("[[rule]]\nallow = true\nlocal_ports = [70000]\n", 3, "65535"),
        ("[[rule]]\nallow = true\nlocal_ports = [\"2-1\"]\n", 3, "8000-8999"),
        ("[[rule]]\nallow = true\nprograms = [\"\"]\n", 3, "name or path"),
        ("[[rule]]\nallow = \"yes\"\n", 2, "boolean"),
        ("[defaults]\nmemory_per_user = \"1X\"\n", 2, "k, M, G"),
        ("[defaults]\nstreams_per_user = -1\n", 2, "-1"),
        ("[defaults\n", 1, ""),
    ];
    for (text, number, needle) in cases {
        let line = wrong(text);
        assert!(
            line.starts_with(&format!("policy.toml:{number}: ")) && line.contains(needle),
            "{text}: {line}"
        );
    }
}

#[test]
fn files_are_read_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let line = Policy::read(&path).unwrap_err().to_string();
    assert!(line.contains(path.to_str().unwrap()), "{line}");
    std::fs::write(&path, "[rails]\nspread = 1").unwrap();
    let line = Policy::read(&path).unwrap_err().to_string();
    assert!(line.starts_with(&format!("{}:2: ", path.display())), "{line}");
    std::fs::write(&path, "[rails]\nspread = \"hash\"").unwrap();
    assert_eq!(Policy::read(&path).unwrap(), Policy::default());
}

proptest! {
    #[test]
    fn any_text_is_read_safely(text in "(\\[\\[?(rule|limits|rails|defaults)\\]?\\]\n|[a-z_]{1,10} = [\\[\\]\"0-9a-z/.:-]{0,12}\n){0,6}") {
        if let Err(error) = Policy::parse(&text, "x") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn mapped_addresses_are_decided_as_ipv4(bits: [u8; 4], prefix in 0u32..=32, other: [u8; 4], port: u16) {
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        let base = std::net::Ipv4Addr::from(u32::from_be_bytes(bits) & mask);
        let text = format!("[[rule]]\nallow = true\nremote = [\"{base}/{prefix}\"]");
        let policy = Policy::parse(&text, "x").unwrap();
        let four = std::net::Ipv4Addr::from(other);
        let decide = |remote: SocketAddr| {
            let local = SocketAddr::from(([0, 0, 0, 0], 0));
            policy.decide(&Request { uid: 1, program: "a", local, remote }).rule
        };
        let plain = decide(SocketAddr::new(four.into(), port));
        prop_assert_eq!(plain, decide(SocketAddr::new(four.to_ipv6_mapped().into(), port)));
        prop_assert_eq!(plain.is_some(), u32::from(four) & mask == u32::from(base));
    }
}
