//! No memory left: a full file system, a limit on the address space, a control group. Programs then go on, on the kernel's TCP if
//! need be, and end as they do natively.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use convoy_tests::{Mode, Run, Task};

const READERS: &str = convoy_tests::program!("readers");
const EXHAUSTED: &str = convoy_tests::program!("exhausted");
const PROCESSES: &str = convoy_tests::program!("processes");

/// Runs the readers below a shell that arranges something first.
fn below(shell: &str, mode: Mode, slow: u64) -> Run {
    let script = format!("{shell} && exec \"$0\" both --slow {slow} --fast 20000000");
    let task = Task::new("/bin/sh").arg("-c").arg(script).arg(READERS).mode(mode);
    task.limit(Duration::from_secs(240)).run()
}

fn comes_through(run: &Run) {
    assert!(run.status.success() && run.stdout.contains("sender: exit 0"), "{}", run.report());
}

/// Nothing at the end of such a run but the descriptors tells whether namespaces can be made here.
fn may_mount() -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn a_full_file_system_leaves_connections_on_the_kernel() {
    if !may_mount() {
        return eprintln!("skipped: mounting needs root");
    }
    let run = |options: &str| {
        let mount = format!("mount -t tmpfs -o {options} none \"$CONVOY_DIR\"");
        let script = format!("{mount} && exec \"$0\" both --slow 20 --fast 20000000");
        let task = Task::new("/usr/bin/unshare").arg("--mount").arg("sh").arg("-c").arg(script).arg(READERS);
        let run = task.mode(Mode::Preloaded).run();
        comes_through(&run);
        run.counters.get("streams_opened")
    };
    assert_eq!(run("size=16k"), 0, "no place for a registry");
    assert_eq!(run("size=1m"), 0, "nor here");
    // A registry and no counters, no bells.
    for pages in [325, 330, 335, 340] {
        run(&format!("size={}k", 4 * pages));
    }
    for inodes in 2..8 {
        run(&format!("size=8m,nr_inodes={inodes}"));
    }
    assert_eq!(run("size=8m"), 42, "there is enough of it");
}

#[test]
fn a_limit_on_the_address_space_leaves_some_to_the_program() {
    for kib in [40_000, 100_000, 400_000, 1_000_000] {
        let limit = format!("ulimit -v {kib}");
        comes_through(&below(&limit, Mode::Native, 20));
        let run = below(&limit, Mode::Preloaded, 20);
        comes_through(&run);
        assert!(run.counters.get("streams_opened") > 0, "not one has left the kernel\n{}", run.report());
    }
}

#[test]
fn an_allocator_without_memory_ends_no_program() {
    let native = Task::new(EXHAUSTED).run();
    assert!(native.status.success() && native.stdout.contains("96 of 96"), "{}", native.report());
    let run = Task::new(EXHAUSTED).mode(Mode::Preloaded).run();
    assert!(run.status.success() && run.stdout.contains("96 of 96"), "{}", run.report());
    assert!(run.counters.get("streams_opened") > 0, "not one has left the kernel\n{}", run.report());
}

#[test]
fn a_connection_that_a_child_goes_on_with_takes_nothing_of_the_parent() {
    for variant in ["process-client-warm", "process-server-warm"] {
        let task = Task::new(PROCESSES).arg("many_children_serve").arg(variant).mode(Mode::Preloaded);
        let run = task.set("CONVOY_MEMORY_LIMIT", "1M").run();
        assert!(run.status.success(), "{}", run.report());
        assert_eq!(run.counters.get("promotions_refused"), 0, "no memory for later ones\n{}", run.report());
        let counted = ["streams_opened", "streams_closed", "memory_bytes"].map(|name| run.counters.get(name));
        assert_eq!(counted, [400, 400, 0], "{}", run.report());
    }
}

/// A control group for memory below the one of this process.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let of = |kind: &str| {
            groups.lines().find_map(|line| line.split_once(kind)).map(|(_, path)| path.to_owned())
        };
        let (root, limit) = match of(":memory:") {
            Some(path) => (format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"),
            None => (format!("/sys/fs/cgroup{}", of("0::")?), "memory.max"),
        };
        let place = PathBuf::from(root).join(format!("convoy-test-{}", std::process::id()));
        fs::create_dir(&place).ok()?;
        let group = Self(place);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    /// How many processes were ended for want of memory.
    fn kills(&self) -> u64 {
        let known = ["memory.oom_control", "memory.events"].map(|name| fs::read_to_string(self.0.join(name)));
        let text: String = known.into_iter().flatten().collect();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or("0");
        line.trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may be busy for a moment after its last process.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{} is left behind", self.0.display());
    }
}

/// On 1,000 connections 64 KiB each are sent that nobody reads: more than twice what the group may have.
#[test]
fn in_a_small_control_group_nobody_is_killed() {
    let Some(group) = Group::new(24 << 20) else {
        return eprintln!("skipped: no control group for memory can be made here");
    };
    let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
    comes_through(&below(&enter, Mode::Native, 1000));
    let run = below(&enter, Mode::Preloaded, 1000);
    comes_through(&run);
    assert_eq!(group.kills(), 0, "{}", run.report());
    assert!(run.counters.get("streams_opened") > 100, "{}", run.report());
}
