//! The agent's sandbox, as the kernel sees it. What the filter refuses is tested where it is made (agent/src/daemon/sandbox).

use std::fs;

use convoy_tests::Mode;
use convoy_tests::hosts::{Plan, World};

/// CAP_IPC_LOCK and CAP_SYS_PTRACE, as docs/security.md says.
const KEPT: &str = "0000000000084000";
const NONE: &str = "0000000000000000";

/// A line of every thread's status.
fn of_threads(pid: u32, name: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let line = |text: String| {
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t")).map(str::to_owned))
    };
    let mut found: Vec<_> =
        threads.filter_map(|thread| line(fs::read_to_string(thread.path().join("status")).ok()?)).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_thread_of_an_agent_is_in_it() {
    let Some(world) = World::new(Mode::Preloaded, "tcp", &Plan::pair()) else { return };
    world.host(0).start_agent(&["--insecure"]);
    let (pid, log) = (world.host(0).agent_pid(), world.host(0).agent_log());
    assert!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() > 2, "threads from before");
    let expected = [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", KEPT),
        ("CapPrm", KEPT),
        ("CapBnd", KEPT),
        ("CapInh", NONE),
        ("CapAmb", NONE),
    ];
    for (name, value) in expected {
        assert_eq!(of_threads(pid, name), [value], "{name}");
    }
    let lines: Vec<_> = log.lines().filter(|line| line.contains("sandbox")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("sandbox is on") && lines[0].contains("SYS_PTRACE"),
        "{log}"
    );
    world.finish();
}

#[test]
fn it_can_be_switched_off() {
    let Some(world) = World::new(Mode::Preloaded, "tcp", &Plan::pair()) else { return };
    world.host(0).start_agent(&["--insecure", "--no-sandbox"]);
    let pid = world.host(0).agent_pid();
    assert_eq!(of_threads(pid, "Seccomp"), ["0"]);
    assert!(world.host(0).agent_log().contains("sandbox is off"));
    world.finish();
}
