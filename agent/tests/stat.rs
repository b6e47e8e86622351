//! `convoy stat` on pages of counters: those of this test, which is a living process, and of dead ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Scratch, convoy, text};
use convoy_runtime::stats;
use serde_json::Value;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Offsets in the page's header, as in `convoy_runtime::stats::Header`.
const PID: usize = 16;
const START_TIME: usize = 24;

/// A process has one page: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Meeting {
    base: Scratch,
    user: PathBuf,
    page: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Meeting {
    /// A directory in which this process has published its page.
    fn new(name: &str) -> Meeting {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let base = Scratch::new(name);
        let user = base.path(&format!("convoy-{}", base.owner()));
        fs::DirBuilder::new().mode(0o700).create(&user).unwrap();
        let page = user.join(format!("1.stats.{}", std::process::id()));
        stats::after_fork_in_child();
        stats::publish(&CString::new(page.to_str().unwrap()).unwrap()).unwrap();
        Meeting { base, user, page, _turn: turn }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = convoy();
        command.arg("stat").args(arguments).env("CONVOY_DIR", self.base.path(""));
        command
    }

    fn stat(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.stat(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        processes(&text(&output.stdout))
    }

    /// A copy of this process's page that says it is of another process.
    fn forge(&self, pid: u32, start_time: u64) -> PathBuf {
        let mut bytes = fs::read(&self.page).unwrap();
        bytes[PID..PID + 8].copy_from_slice(&u64::from(pid).to_ne_bytes());
        bytes[START_TIME..START_TIME + 8].copy_from_slice(&start_time.to_ne_bytes());
        let path = self.user.join(format!("1.stats.{pid}"));
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn processes(line: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(line).expect("JSON");
    document["processes"].as_array().unwrap().clone()
}

fn own_pid() -> String {
    std::process::id().to_string()
}

#[test]
fn counters_of_a_living_process_are_shown() {
    let meeting = Meeting::new("living");
    stats::process().streams_opened.add(5);
    stats::process().streams_closed.add(2);
    stats::process().bypasses_other_host.add(7);
    stats::process().demotions_exec.add(1);
    stats::lane(3).frames_sent.bump(100);
    stats::lane(3).frames_received.bump(90);
    stats::lane(4).frames_received.bump(10);
    stats::lane(4).batches_received.bump(40);

    let [process] = &meeting.json(&["--json"])[..] else { panic!("one process") };
    for (name, value) in [
        ("pid", u64::from(std::process::id())),
        ("streams_open", 3),
        ("streams_opened", 5),
        ("frames_sent", 100),
        ("frames_received", 100),
        ("batches_received", 40),
        ("bypasses_other_host", 7),
        ("bypasses", 7),
        ("demotions", 1),
    ] {
        assert_eq!(process[name], value, "{name}");
    }
    assert_eq!(process["messages_per_batch"], 2.5);
    assert!(process["program"].as_str().unwrap().starts_with("stat-"));

    let table = text(&meeting.stat(&[]).stdout);
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].starts_with(" ") || rows[0].starts_with("PID"), "{table}");
    assert!(rows[1].contains(&own_pid()) && rows[1].contains("2.5"), "{table}");
    assert!(table.contains("bypassed: other host 7; demoted: exec 1"), "{table}");

    let details = text(&meeting.stat(&[&own_pid()]).stdout);
    assert!(details.contains("3 connections accelerated now"), "{details}");
    assert!(details.contains("bypasses_other_host"), "{details}");
}

#[test]
fn pages_of_dead_processes_are_swept() {
    let meeting = Meeting::new("dead");
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let dead = meeting.forge(child.id(), 1);
    let own = own_pid();
    assert_eq!(meeting.json(&["--json"]).len(), 1);
    assert!(!dead.exists());
    assert!(meeting.page.exists());

    // The number of a living process, but of an earlier one that had it.
    meeting.forge(std::process::id(), 1);
    let output = meeting.stat(&[&own]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert!(!meeting.page.exists());
}

#[test]
fn foreign_files_are_left_alone() {
    let meeting = Meeting::new("foreign");
    let keep =
        [meeting.user.join("1.stats.77"), meeting.user.join("1.registry"), meeting.user.join("1.bell.3")];
    keep.iter().for_each(|path| fs::write(path, "x").unwrap());
    assert_eq!(meeting.json(&["--json"]).len(), 1);
    assert!(keep.iter().all(|path| path.exists()));
}

#[test]
fn nothing_to_show_is_no_error_unless_asked_for() {
    let scratch = Scratch::new("nothing");
    let stat = |arguments: &[&str]| {
        convoy().arg("stat").args(arguments).env("CONVOY_DIR", scratch.path("")).output().unwrap()
    };
    assert_eq!(stat(&[]).status.code(), Some(0));
    assert!(processes(&text(&stat(&["--json"]).stdout)).is_empty());
    assert_eq!(stat(&["1"]).status.code(), Some(1));
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let meeting = Meeting::new("open");
    fs::set_permissions(&meeting.user, fs::Permissions::from_mode(0o755)).unwrap();
    let output = meeting.stat(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("yours alone"));
}

#[test]
fn watching_goes_on_until_nobody_listens() {
    let meeting = Meeting::new("watch");
    let mut child = meeting.command(&["--json", "--watch", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for count in 1..4 {
        stats::process().sleeps.add(1);
        let seen = |line: String| processes(&line)[0]["sleeps"].as_u64().unwrap();
        assert!(lines.by_ref().map(|line| seen(line.unwrap())).any(|sleeps| sleeps == count));
    }
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watching_people_see_speeds() {
    let meeting = Meeting::new("speeds");
    let mut child = meeting.command(&["--watch", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("per second")));
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(Path::new(&meeting.page).exists());
}
