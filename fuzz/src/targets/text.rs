//! What people write: settings in the environment and in a file, policies of the agent.

use crate::input::Input;
use crate::memory;
use convoy_control::policy::{Policy, Request};
use convoy_runtime::config::{self, LogLevel, VARIABLES};
use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

/// The first line names variables, the rest is their values and the file.
pub(super) fn settings(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut environment = Vec::new();
    for _ in 0..input.byte() % 4 {
        let variable = VARIABLES[usize::from(input.byte()) % VARIABLES.len()].name;
        let count = usize::from(input.byte() % 80);
        let value = OsString::from_vec(input.bytes(count).to_vec());
        environment.push((OsString::from(variable), value));
    }
    // A path that nobody reads from, so that only the file below is one.
    environment.retain(|(name, _)| name != "CONVOY_CONFIG");
    let mut file = memory::file(0, false);
    file.write_all(input.rest()).expect("room");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    environment.push(("CONVOY_CONFIG".into(), path.into()));
    let (settings, complaints) = config::read(environment.clone());
    assert!((64..=1 << 20).contains(&settings.batch_bytes) && (1..=65536).contains(&settings.batch_frames));
    assert!(settings.batch_delay_us <= 1_000_000 && (64..=32 << 10).contains(&settings.coalesce_max));
    assert!(settings.ring_bytes.is_power_of_two() && (64 << 10..=64 << 20).contains(&settings.ring_bytes));
    assert!((4 << 10..=1 << 30).contains(&settings.window_bytes) && settings.promote_after <= 1_000_000);
    assert!((1 << 20..=1 << 40).contains(&settings.memory_limit));
    assert!(settings.directory.to_bytes().len() <= 180 && settings.directory.to_bytes().starts_with(b"/"));
    for complaint in &complaints {
        assert!(complaint.level == LogLevel::Error || complaint.level == LogLevel::Warn);
        assert!(!complaint.text.contains(['\n', '\0', '\x1b']), "not one plain line: {:?}", complaint.text);
        assert!(complaint.text.len() < 2000, "too long: {:?}", complaint.text);
    }
    let ends = [("10.0.0.1", 6379), ("fe80::7", 22)].map(|(ip, port)| (ip.parse::<IpAddr>().unwrap(), port));
    let allows = |one, two| settings.rules.allows(b"redis-server", one, two);
    assert_eq!(allows(ends[0], ends[1]), allows(ends[1], ends[0]), "both ends decide alike");
    // Nothing depends on anything but what was given.
    assert_eq!(config::read(environment), (settings, complaints));
}

/// A policy file.
pub(super) fn policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let policy = match Policy::parse(&text, "policy.toml") {
        Ok(policy) => policy,
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("policy"), "whose error: {line:?}");
            assert!(!line.contains(['\n', '\0', '\x1b']), "not one plain line: {line:?}");
            assert!(line.len() < 2000, "too long: {line:?}");
            return;
        }
    };
    for (uid, program) in [(0, "/usr/sbin/redis-server"), (1000, "nginx"), (u32::MAX, "")] {
        for (local, remote) in [("10.0.0.1:8000", "10.1.2.3:22"), ("[fd00::1]:1", "[::ffff:10.0.0.1]:65535")]
        {
            let ends: [SocketAddr; 2] = [local, remote].map(|end| end.parse().unwrap());
            let decision = policy.decide(&Request { uid, program, local: ends[0], remote: ends[1] });
            assert!(decision.allow || !decision.join_users && decision.rail.is_none(), "{decision:?}");
        }
        let _ = policy.limits(uid);
    }
    let _ = policy.spread();
    assert_eq!(Policy::parse(&text, "policy.toml"), Ok(policy));
}
