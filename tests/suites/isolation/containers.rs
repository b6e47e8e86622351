//! Containers without rights on the host: namespaces of users, processes, mounts, networks and IPC, made by ordinary users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use convoy_tests::hosts::skip;
use convoy_tests::{Arena, Counters, Service};

use crate::common::{STRANGER, VICTIM, arena, as_user, copied, got, plain, said};

/// A shell in a container of a user's own. `hidden`: with a /proc of its own; without, it sees the host's processes.
fn container(arena: &Arena, user: u32, hidden: bool, script: &str) -> Command {
    let mut words = vec!["-U", "-r", "-p", "-f", "--kill-child", "-n", "-m", "-i"];
    words.extend(hidden.then_some("--mount-proc"));
    words.extend(["sh", "-ec", script]);
    as_user(plain(arena, "unshare", &words), user)
}

/// Two programs in a container, with a stream between them, until `stop` is there.
struct Inside<'a> {
    arena: &'a Arena,
    container: Service<'a>,
}

impl<'a> Inside<'a> {
    fn start(arena: &'a Arena) -> Self {
        let program = copied(convoy_tests::program!("host_stream"), arena.path("host_stream"));
        fs::create_dir(arena.path("inside")).unwrap();
        fs::set_permissions(arena.path("inside"), fs::Permissions::from_mode(0o777)).unwrap();
        let base = arena.path("").display().to_string();
        let run = format!(
            "LD_PRELOAD={base}/libconvoy.so CONVOY_DIR=/dev/shm CONVOY_STATS={base}/inside/ CONVOY_PROMOTE_AFTER=1 {} echo",
            program.display()
        );
        let options = "--connections 2 --bytes 0 --pace 200";
        let script = format!(
            "mount -t tmpfs tmpfs /dev/shm; ip link set lo up; \
             {run} --listen 127.0.0.1:7000 {options} > {base}/server.out & \
             until grep -q listening {base}/server.out; do sleep 0.01; done; \
             {run} --connect 127.0.0.1:7000 {options} --go /dev/null --stop {base}/stop; wait"
        );
        let container = arena.start("client", container(arena, VICTIM, true, &script));
        let inside = Self { arena, container };
        inside.goes_on();
        inside
    }

    fn goes_on(&self) {
        let lines = || said(self.arena, "client").matches("progress ").count();
        let before = lines();
        self.arena.eventually("progress in the container", || lines() > before + 1);
    }

    /// Its programs, by their numbers on the host.
    fn pids(&self) -> Vec<u32> {
        let program = self.arena.path("host_stream");
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program)).collect()
    }

    fn end(self) {
        self.goes_on();
        fs::write(self.arena.path("stop"), "").unwrap();
        assert!(self.container.ended().success());
        let counters = Counters::read(&self.arena.path("inside"));
        assert!(counters.get("bytes_sent") > 0, "nothing was accelerated in the container: {counters}");
    }
}

/// Whether users may make containers here.
fn possible(arena: &Arena) -> bool {
    let works = container(arena, VICTIM, true, "mount -t tmpfs tmpfs /dev/shm && ip link set lo up").status();
    let works = works.is_ok_and(|status| status.success());
    if !works {
        skip("users cannot make namespaces here");
    }
    works
}

/// From a container of another user, and from another container of the same user: with the host's /proc before its eyes or
/// with its own, it gets nothing of the programs in the first.
#[test]
fn a_container_cannot_reach_another() {
    let Some(arena) = arena() else { return };
    if !possible(&arena) {
        return;
    }
    let intruder = copied(convoy_tests::program!("intruder"), arena.path("intruder"));
    let inside = Inside::start(&arena);
    let pids = inside.pids();
    assert_eq!(pids.len(), 2, "{pids:?}");
    let pids = pids.iter().map(|pid| format!(" {pid}")).collect::<String>();
    let look = format!("{} look /dev/shm {pids}", intruder.display());
    for user in [STRANGER, VICTIM] {
        for hidden in [false, true] {
            let script = format!("mount -t tmpfs tmpfs /dev/shm; ip link set lo up; exec {look}");
            let mut found = got(&arena.run(container(&arena, user, hidden, &script)).stdout);
            // How many descriptors it has is told to its user, wherever that is.
            found.retain(|line| user != VICTIM || !line.starts_with("names /proc/"));
            assert_eq!(found, Vec::<String>::new(), "user {user}, own /proc: {hidden}");
        }
    }
    inside.goes_on();
    // Whoever is in the container itself gets at it.
    let first = inside.pids()[0].to_string();
    let script = format!("{} look /dev/shm $(pidof host_stream)", intruder.display());
    let own = plain(&arena, "nsenter", &["-t", &first, "-U", "-p", "-m", "-n", "-i", "sh", "-c", &script]);
    let found = got(&arena.run(own).stdout);
    for what in ["registry", "bell", "fd/", "process_vm_readv"] {
        assert!(found.iter().any(|line| line.contains(what)), "{what} is not found from inside\n{found:#?}");
    }
    inside.end();
    arena.finish(false);
}

/// A container that sees the host's /dev/shm, as with `--ipc=host`, is another user there as everywhere.
#[test]
fn a_container_with_the_hosts_memory_cannot_reach_its_streams() {
    let Some(arena) = arena() else { return };
    if !possible(&arena) {
        return;
    }
    let intruder = copied(convoy_tests::program!("intruder"), arena.path("intruder"));
    let victims = crate::common::Victims::start(&arena, VICTIM);
    let pids = victims.pids().map(|pid| pid.to_string()).join(" ");
    let script = format!("exec {} look {} {pids}", intruder.display(), arena.directory().display());
    for hidden in [false, true] {
        let found = got(&arena.run(container(&arena, STRANGER, hidden, &script)).stdout);
        assert_eq!(found, Vec::<String>::new(), "own /proc: {hidden}");
    }
    victims.end();
    arena.finish(true);
}
