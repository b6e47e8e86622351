//! Every file, directory and socket that Convoy makes, with its mode and owner, against the table in docs/security.md. What is not
//! in the table must not be made, and what is in it must be.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use convoy_tests::Mode;
use convoy_tests::hosts::peers::Job;
use convoy_tests::hosts::{Plan, World};
use convoy_tests::user::become_user;

use crate::common::VICTIM;

const DOCUMENT: &str = include_str!("../../../docs/security.md");

/// `path | kind | mode | owner`, as in the table.
type Rows = BTreeSet<String>;

fn documented() -> Rows {
    let begin = DOCUMENT.find("<!-- files: begin -->").expect("a table of files");
    let end = DOCUMENT.find("<!-- files: end -->").expect("the end of the table");
    let lines = DOCUMENT[begin..end].lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).take(4).collect();
            cells.join(" | ").replace('`', "")
        })
        .collect()
}

fn row(name: &str, about: &Metadata) -> String {
    let kind = match about.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_socket() => "socket",
        kind if kind.is_fifo() => "FIFO",
        kind if kind.is_file() => "file",
        _ => "something else",
    };
    let owner = match about.uid() {
        0 => "root",
        VICTIM => "the user",
        _ => "somebody else",
    };
    format!("{name} | {kind} | {:04o} | {owner}", about.mode() & 0o7777)
}

/// A name in the registry's directory without what differs from run to run.
fn general(name: &str) -> String {
    let (scope, rest) = name.split_once('.').unwrap_or((name, ""));
    let kind = rest.split('.').next().unwrap_or_default();
    match (scope.split_once('-'), kind) {
        (Some(_), "stats") => "NS-LAYOUT.stats.PID".into(),
        (Some(_), "bell") => "NS-LAYOUT.bell.N".into(),
        (Some(_), kind) if rest == kind => format!("NS-LAYOUT.{kind}"),
        (None, kind) if scope.parse::<u64>().is_ok() => format!("NETWORK.{kind}"),
        _ => name.to_owned(),
    }
}

/// Everything in CONVOY_DIR.
fn in_directory(directory: &Path, rows: &mut Rows) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let about = fs::symlink_metadata(entry.path()).unwrap();
        let place = if name == format!("convoy-{VICTIM}") {
            "CONVOY_DIR/convoy-UID".to_owned()
        } else {
            format!("CONVOY_DIR/{name}")
        };
        // Root's own programs are no different from others.
        if name == "convoy-0" {
            continue;
        }
        rows.insert(row(&place, &about));
        for file in fs::read_dir(entry.path()).unwrap().flatten() {
            let name = general(&file.file_name().into_string().unwrap());
            // It may be gone already.
            rows.extend(
                fs::symlink_metadata(file.path()).map(|about| row(&format!("{place}/{name}"), &about)),
            );
        }
    }
}

/// Memory without a name that a process holds.
fn anonymous(pid: u32, rows: &mut Rows) {
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let name = link.to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix("/memfd:").and_then(|rest| rest.strip_suffix(" (deleted)")) {
            rows.extend(fs::metadata(entry.path()).map(|about| row(&format!("memfd:{name}"), &about)));
        }
    }
}

#[test]
fn every_file_is_as_documented() {
    let Some(world) = World::new(Mode::Preloaded, "tcp", &Plan::pair()) else { return };
    let (here, there) = (world.host(0), world.host(1));
    let mut rows = Rows::new();
    let as_victim = |program: &Path, words: &[&str]| {
        let mut command = here.command(program, words);
        command.env("CONVOY_LOG", format!("debug:{}", world.path("other/log").display()));
        become_user(&mut command, VICTIM, VICTIM);
        command
    };
    let plain = |words: &[&str]| {
        let mut command = as_victim(&world.path("convoy"), words);
        command.env_remove("LD_PRELOAD");
        command
    };
    // The machine's agent, and the same with metrics; a user's own.
    there.start_agent(&["--insecure", "--metrics", "127.0.0.1:0"]);
    in_directory(world.directory(), &mut rows);
    there.end_agent();
    there.start_agent(&["--insecure"]);
    let mut own = plain(&["agent", "--insecure"]);
    own.env("CONVOY_GATHER", "always").env("CONVOY_LOG", "info");
    let own = here.start("agent", own);
    world.eventually("an agent", || {
        format!("{}{}", own.output(), own.complaints()).contains("agent is ready")
    });
    let job = Job::new(convoy_tests::program!("host_stream"), "echo", 2, "--bytes 0 --pace 300");
    let mut pair = job.server_user(VICTIM).start(here, there);
    pair.connected();
    pair.accelerated();
    pair.go();
    let trace = world.path("other/trace.pcapng").display().to_string();
    here.run(plain(&["trace", &pair.server.pid().to_string(), "--write", &trace, "--seconds", "1"]));
    in_directory(world.directory(), &mut rows);
    anonymous(pair.server.pid(), &mut rows);
    pair.stop();
    pair.succeeds();
    let program = world.path("calls");
    crate::common::copied(convoy_tests::program!("calls"), program.clone());
    let mut complaining = as_victim(&program, &["calls_mixed", "thread-client-warm"]);
    here.run({
        complaining.env("CONVOY_DIR", "/nowhere");
        complaining
    });
    here.run(plain(&["agent", "--new-key", &world.path("other/key").display().to_string()]));
    for (name, file) in [
        ("convoy trace --write FILE", "other/trace.pcapng"),
        ("CONVOY_LOG=LEVEL:FILE", "other/log"),
        ("convoy agent --new-key FILE", "other/key"),
    ] {
        rows.insert(row(name, &fs::metadata(world.path(file)).unwrap()));
    }
    for entry in fs::read_dir(world.path("stats")).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        rows.extend((about.uid() == VICTIM).then(|| row("CONVOY_STATS=DIRECTORY/ PID.json", &about)));
    }
    own.end(libc::SIGTERM);
    let documented = documented();
    let unknown: Vec<_> = rows.difference(&documented).collect();
    let missing: Vec<_> = documented.difference(&rows).collect();
    world.check(
        unknown.is_empty() && missing.is_empty(),
        &format!("not in docs/security.md: {unknown:#?}\nnot found: {missing:#?}"),
    );
    world.finish();
}
