//! A process's page of counters, from its first count to its removal. A program of its own, because the page
//! belongs to the process and other tests would count in it.
#![allow(clippy::unwrap_used)]

use convoy_runtime::stats::{LANES, after_fork_in_child, lane, process, publish, read, withdraw};
use std::ffi::CString;

fn path(name: &str) -> CString {
    let path = std::env::temp_dir().join(format!("convoy-{name}.stats.{}", std::process::id()));
    CString::new(path.to_str().unwrap()).unwrap()
}

#[test]
fn a_page_is_counted_published_read_and_withdrawn() {
    process().sleeps.add(3);
    let file = path("page");
    publish(&file).unwrap();
    publish(&path("second")).unwrap();
    assert_eq!(read(&path("second")), Err(libc::ENOENT), "only the first publication counts");
    process().sleeps.add(4);
    process().memory_bytes.add(100);
    process().memory_bytes.subtract(60);
    lane(1).frames_sent.bump(10);
    lane(1 + LANES).frames_sent.bump(1);
    lane(255).bytes_received.bump(5);
    process().bypasses_rules.add(1);
    process().bypasses_memory.add(2);

    let snapshot = read(&file).unwrap();
    assert_eq!(snapshot.pid, std::process::id());
    assert!(snapshot.program.starts_with("stats_page"));
    assert!(snapshot.get("sleeps") >= 7, "what was counted before is there, too");
    assert_eq!(snapshot.get("frames_sent"), 11);
    assert_eq!(snapshot.get("bytes_received"), 5);
    assert_eq!(snapshot.get("memory_bytes"), 40);
    assert_eq!(snapshot.sum("bypasses_"), 3);
    assert_eq!(snapshot.get("no such counter"), 0);
    assert!(snapshot.alive());
    let mut later = snapshot.clone();
    later.start_time += 1;
    assert!(!later.alive(), "the number belongs to another process now");
    later.pid_namespace = 1;
    assert!(later.alive(), "nobody here can tell");

    withdraw();
    assert_eq!(read(&file), Err(libc::ENOENT));
    process().sleeps.add(1);
    after_fork_in_child();
    assert_eq!(lane(1).frames_sent.get(), 0);
    assert_eq!(process().bypasses_rules.get(), 0);
    publish(&file).unwrap();
    assert_eq!(read(&file).unwrap().get("frames_sent"), 0);
    withdraw();
}
