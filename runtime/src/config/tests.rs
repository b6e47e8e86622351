#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::net::IpAddr;

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn good(name: &str, value: &str) -> Settings {
    let (settings, complaints) = read(environment(&[(name, value)]));
    assert_eq!(complaints, [], "{name}={value}");
    settings
}

fn bad(name: &str, value: &str) {
    let (settings, complaints) = read(environment(&[(name, value)]));
    assert_eq!(settings, Settings::DEFAULT, "{name}={value}");
    let [complaint] = &complaints[..] else { panic!("{name}={value}: {complaints:?}") };
    assert_eq!(complaint.level, LogLevel::Error);
    assert!(complaint.text.contains(name), "{}", complaint.text);
    assert!(!complaint.text.contains('\n'), "{}", complaint.text);
}

fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap()
}

fn end(address: &str, port: u16) -> (IpAddr, u16) {
    (address.parse().unwrap(), port)
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(read(environment(&[("PATH", "/bin"), ("CONVOYS", "x")])), (Settings::DEFAULT, vec![]));
    assert_eq!(good("CONVOY_SPIN_US", ""), Settings::DEFAULT);
}

#[test]
fn the_table_tells_the_defaults() {
    for variable in VARIABLES {
        let mut settings = Settings::DEFAULT;
        let words = ["all connections", "no file", "beside the convoy command"];
        if !words.contains(&variable.default) {
            assert_eq!(variable.apply(&mut settings, variable.default), Ok(()), "{}", variable.name);
        }
        assert_eq!(settings, Settings::DEFAULT, "{}", variable.name);
        assert!(!variable.meaning.ends_with('.') && !variable.meaning.contains('\n'));
    }
}

#[test]
fn every_setting_takes_a_right_value() {
    assert!(!good("CONVOY", "off").enabled);
    assert_eq!(good("CONVOY_BATCH_BYTES", "32K").batch_bytes, 32768);
    assert_eq!(good("CONVOY_BATCH_FRAMES", "1").batch_frames, 1);
    assert_eq!(good("CONVOY_BATCH_DELAY_US", "50").batch_delay_us, 50);
    assert_eq!(good("CONVOY_COALESCE_MAX", "1k").coalesce_max, 1024);
    assert_eq!(good("CONVOY_RING_BYTES", "64M").ring_bytes, 64 << 20);
    assert_eq!(good("CONVOY_WINDOW_BYTES", "1G").window_bytes, 1 << 30);
    assert_eq!(good("CONVOY_MEMORY_LIMIT", "8G").memory_limit, 8 << 30);
    assert_eq!(good("CONVOY_USER_MEMORY_LIMIT", "1M").user_memory_limit, 1 << 20);
    assert_eq!(good("CONVOY_AGENT_MEMORY_LIMIT", "1024G").agent_memory_limit, 1 << 40);
    assert_eq!(good("CONVOY_SPIN_US", "20").spin, Spin::Micros(20));
    assert_eq!(good("CONVOY_SPIN_US", "AUTO").spin, Spin::Auto);
    assert_eq!(good("CONVOY_FABRIC", "off").fabric, Fabric::Off);
    assert_eq!(good("CONVOY_FABRIC", "udp;ofi_rxd").fabric, Fabric::Provider("udp;ofi_rxd".into()));
    assert_eq!(good("CONVOY_RULES", "-port:22, +10.0.0.0/8").rules, rules("-port:22,+10.0.0.0/8"));
    assert_eq!(good("CONVOY_LOG", "debug").log, LogLevel::Debug);
    assert_eq!(good("CONVOY_LOG", "info:/tmp/a:b").log_target, LogTarget::File(c"/tmp/a:b".into()));
    assert_eq!(good("CONVOY_STATS", "stderr").stats, Some(StatsTarget::Stderr));
    assert_eq!(good("CONVOY_STATS", "/tmp/a").stats, Some(StatsTarget::File(c"/tmp/a".into())));
    assert_eq!(good("CONVOY_STATS", "/tmp/a/").stats, Some(StatsTarget::Directory(c"/tmp/a/".into())));
    assert!(good("CONVOY_IO_URING", "allow").io_uring_allow);
    assert_eq!(good("CONVOY_PROMOTE_AFTER", "0").promote_after, 0);
    assert_eq!(good("CONVOY_DIR", "/run/x/").directory.as_ref(), c"/run/x");
    assert!(good("CONVOY_AGENT_INSECURE", "1").agent_insecure);
}

#[test]
fn every_setting_refuses_a_wrong_value() {
    for (name, values) in [
        ("CONVOY", &["maybe", "2"][..]),
        ("CONVOY_BATCH_BYTES", &["63", "2M", "-1", "1.5K", " 64", "K", "99999999999999999999G"]),
        ("CONVOY_BATCH_FRAMES", &["0", "65537", "1K"]),
        ("CONVOY_BATCH_DELAY_US", &["1000001", "+1"]),
        ("CONVOY_COALESCE_MAX", &["1", "1M"]),
        ("CONVOY_RING_BYTES", &["65537", "32K", "128M", "0x10000"]),
        ("CONVOY_WINDOW_BYTES", &["4095", "2G"]),
        ("CONVOY_MEMORY_LIMIT", &["1", "all"]),
        ("CONVOY_USER_MEMORY_LIMIT", &["1023K", "half"]),
        ("CONVOY_AGENT_MEMORY_LIMIT", &["0", "1025G"]),
        ("CONVOY_SPIN_US", &["ever", "1000001"]),
        ("CONVOY_LOOK_SECONDS", &["-1", "86401", "never"]),
        ("CONVOY_FABRIC", &["infiniband", "verbs;", "verbs;x"]),
        ("CONVOY_RULES", &["port:22", "+port:0", "+port:9-8", "-10.0.0.0/33", "+[::1", "+prog:", "+x\ny"]),
        ("CONVOY_LOG", &["loud", "warn:", ":/tmp/x", "warn:/tmp/"]),
        ("CONVOY_STATS", &["a\0b"]),
        ("CONVOY_IO_URING", &["perhaps"]),
        ("CONVOY_PROMOTE_AFTER", &["-4"]),
        ("CONVOY_DIR", &["shm", "./x", "/x".repeat(91).as_str()]),
        ("CONVOY_CONFIG", &["/nonexistent/convoy.toml"]),
    ] {
        values.iter().for_each(|value| bad(name, value));
    }
}

#[test]
fn an_unknown_name_is_one_warning() {
    let (settings, complaints) = read(environment(&[("CONVOY_BATCH_BYTE", "1")]));
    assert_eq!(settings, Settings::DEFAULT);
    assert_eq!(complaints.len(), 1);
    assert_eq!(complaints[0].level, LogLevel::Warn);
    assert!(complaints[0].text.contains("CONVOY_BATCH_BYTE"));
}

#[test]
fn a_wrong_value_is_shown_short_and_in_one_line() {
    let value = format!("+1.2.3.4,\n{}", "y".repeat(5000));
    let line = check("CONVOY_RULES", &value).unwrap_err();
    assert!(line.len() < 500 && !line.contains('\n'), "{line}");
    let line = check("CONVOY_RULES", "+1.2.3.4,oops").unwrap_err();
    assert!(line.contains("(at 'oops')"), "{line}");
    assert!(check("CONVOY_NONE", "1").is_err());
    assert_eq!(check("CONVOY_SPIN_US", "1"), Ok(()));
}

#[test]
fn the_file_gives_what_the_environment_does_not() {
    let path = std::env::temp_dir().join(format!("convoy-config-{}.toml", std::process::id()));
    let text = "# all of it\nCONVOY_SPIN_US = 20 # short\nCONVOY_RING_BYTES='1M'\nCONVOY_BATCH_FRAMES = 2_0\n\
                CONVOY_IO_URING = true\nCONVOY_RULES = \"-prog:a\\\\b\"\n[table]\nCONVOY_NEW = 1\nCONVOY_LOG = x\n";
    std::fs::write(&path, text).unwrap();
    let (settings, complaints) =
        read(environment(&[("CONVOY_CONFIG", path.to_str().unwrap()), ("CONVOY_BATCH_FRAMES", "7")]));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(settings.spin, Spin::Micros(20));
    assert_eq!(settings.ring_bytes, 1 << 20);
    assert_eq!(settings.batch_frames, 7);
    assert!(settings.io_uring_allow);
    assert_eq!(settings.rules, rules("-prog:a\\b"));
    let lines: Vec<_> = complaints.iter().map(|complaint| complaint.text.as_str()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("line 7"), "{lines:?}");
    assert!(lines[1].contains("line 8") && lines[1].contains("CONVOY_NEW"), "{lines:?}");
    assert!(lines[2].contains("line 9"), "{lines:?}");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let (client, server) = (end("127.0.0.1", 40000), end("127.0.0.1", 22));
    assert!(Rules::ALL.allows(b"ssh", client, server));
    assert!(!rules("-port:22").allows(b"ssh", client, server));
    assert!(!rules("-port:22").allows(b"sshd", server, client), "either end's port");
    assert!(rules("+prog:ss?,-port:22").allows(b"ssh", client, server));
    assert!(!rules("+prog:ss?,-port:22").allows(b"sshd", client, server));
    assert!(rules("-port:23-24").allows(b"ssh", client, server), "no '+' rule: the rest is accelerated");
    assert!(!rules("+port:23-24").allows(b"ssh", client, server), "a '+' rule: the rest is not");
    assert!(rules("+port:1000,+*").allows(b"ssh", client, server));
}

#[test]
fn nets_match_either_end_and_mapped_addresses() {
    let local = end("::ffff:10.1.2.3", 1);
    let other = end("fe80::1", 2);
    assert!(rules("+10.0.0.0/8").allows(b"", local, other));
    assert!(rules("+10.0.0.0/8").allows(b"", other, local));
    assert!(!rules("+10.1.2.4").allows(b"", local, other));
    assert!(rules("+[::ffff:10.0.0.0]/104").allows(b"", local, other));
    assert!(rules("+[fe80::]/10").allows(b"", local, other));
    assert!(!rules("+[::1]/128").allows(b"", local, other));
    assert!(rules("+0.0.0.0/0").allows(b"", local, other));
    assert!(!rules("+0.0.0.0/0").allows(b"", other, other), "IPv4 only");
    assert!(rules("+fe80::1").allows(b"", local, other), "without brackets too");
}

#[test]
fn patterns_are_those_of_a_shell() {
    let allows = |pattern: &str, name: &str| {
        rules(&format!("+prog:{pattern}")).allows(name.as_bytes(), end("::1", 1), end("::1", 2))
    };
    assert!(allows("redis*", "redis-server"));
    assert!(allows("redis*", "redis"));
    assert!(!allows("redis*", "predis"));
    assert!(allows("*a*b", "xaxxab"));
    assert!(!allows("*a*b", "xaxxabc"));
    assert!(!allows("?", ""));
    assert!(allows("*", ""));
}

#[test]
fn this_program_has_a_name() {
    assert!(program().starts_with(b"convoy_runtime"), "{:?}", String::from_utf8_lossy(program()));
}
