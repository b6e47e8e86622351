//! Somebody was there first: what programs and agents would make has been made by another user, as a trap.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use convoy_tests::{Arena, library};

use crate::common::{STRANGER, VICTIM, arena, as_user, copied, plain};

/// Everybody may make files in the directory, and remove only his own, as in /dev/shm.
fn sticky(arena: &Arena) {
    fs::set_permissions(arena.directory(), fs::Permissions::from_mode(0o1777)).unwrap();
}

fn give(path: &Path, user: u32, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chown(path, Some(user), Some(user)).unwrap();
}

/// A program that talks over loopback works by TCP, with one line about it, and leaves the trap alone.
fn a_program_stays_out(lay: impl Fn(&Path, &Arena)) {
    let Some(arena) = arena() else { return };
    sticky(&arena);
    let trap = arena.directory().join(format!("convoy-{VICTIM}"));
    lay(&trap, &arena);
    let before = contents(&arena);
    let program = copied(convoy_tests::program!("calls"), arena.path("calls"));
    let command = arena.command(program, &["calls_mixed", "thread-client-warm"]);
    let output = arena.run(as_user(command, VICTIM));
    assert_eq!(output.stderr.lines().count(), 1, "one line: {output:?}");
    assert!(
        output.stderr.contains("cannot use") && output.stderr.contains("stay with the kernel"),
        "{output:?}"
    );
    assert_eq!(contents(&arena), before, "the trap was touched");
    arena.finish(false);
}

/// Everything below the directory and the trap's other end: path, owner, mode, length.
fn contents(arena: &Arena) -> Vec<String> {
    let mut found = Vec::new();
    let mut places = vec![arena.directory().to_owned(), arena.path("elsewhere")];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let about = fs::symlink_metadata(entry.path()).unwrap();
            found.push(format!(
                "{} {} {:o} {}",
                entry.path().display(),
                about.uid(),
                about.mode(),
                about.len()
            ));
            places.extend(about.is_dir().then(|| entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_of_another_user() {
    for mode in [0o777, 0o700] {
        a_program_stays_out(|trap, _| {
            fs::create_dir(trap).unwrap();
            give(trap, STRANGER, mode);
        });
    }
}

#[test]
fn an_own_directory_that_is_open_to_others() {
    for mode in [0o777, 0o750, 0o701] {
        a_program_stays_out(|trap, _| {
            fs::create_dir(trap).unwrap();
            give(trap, VICTIM, mode);
        });
    }
}

/// Into a directory of the victim's own, and to nowhere.
#[test]
fn a_link() {
    for there in [true, false] {
        a_program_stays_out(|trap, arena| {
            let elsewhere = arena.path("elsewhere");
            if there {
                fs::create_dir(&elsewhere).unwrap();
                give(&elsewhere, VICTIM, 0o700);
            }
            symlink(&elsewhere, trap).unwrap();
            std::os::unix::fs::lchown(trap, Some(STRANGER), Some(STRANGER)).unwrap();
        });
    }
}

#[test]
fn a_file() {
    a_program_stays_out(|trap, _| {
        fs::write(trap, "something").unwrap();
        give(trap, STRANGER, 0o666);
    });
}

/// Counters at the end go into no file that a link leads to, and to no file of somebody else's.
#[test]
fn a_link_where_counters_are_written() {
    let Some(arena) = arena() else { return };
    let (program, stats) =
        (copied(convoy_tests::program!("calls"), arena.path("calls")), arena.path("stats"));
    fs::set_permissions(&stats, fs::Permissions::from_mode(0o1777)).unwrap();
    let precious = arena.file("precious", "precious");
    give(&precious, VICTIM, 0o600);
    // The shell's number is the program's.
    let script = format!(
        "ln -s {} {}/$$.json; exec {} calls_mixed thread-client-warm",
        precious.display(),
        stats.display(),
        program.display()
    );
    arena.run(as_user(arena.command("sh", &["-c", &script]), VICTIM));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    let written: Vec<PathBuf> = fs::read_dir(&stats).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(!written.is_empty());
    for path in written {
        let about = fs::symlink_metadata(&path).unwrap();
        assert!(
            about.is_file() && about.mode() & 0o777 == 0o600 && about.uid() == VICTIM,
            "{path:?}: {about:?}"
        );
    }
    arena.finish(true);
}

/// The machine's agent does not begin where another user could have put a socket, or will.
fn an_agent_does_not_start(lay: impl Fn(&Path, &Arena)) {
    let Some(arena) = arena() else { return };
    sticky(&arena);
    let trap = arena.directory().join("convoy-agent");
    lay(&trap, &arena);
    let before = contents(&arena);
    let mut command = plain(&arena, library::command(), &["agent", "--insecure", "--port", "0"]);
    command.env("CONVOY_FABRIC", "tcp");
    let output = arena.try_run(command, Duration::from_secs(60));
    if output.stderr.contains("no device for fabric") || output.stdout.contains("no device for fabric") {
        return convoy_tests::hosts::skip("libfabric.so.1 is not installed");
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = output.stderr.lines().filter(|line| line.contains("convoy-agent")).count();
    assert_eq!(said, 1, "{output:?}");
    assert_eq!(contents(&arena), before, "the trap was touched");
    arena.finish(false);
}

#[test]
fn an_agents_directory_of_another_user() {
    an_agent_does_not_start(|trap, _| {
        fs::create_dir(trap).unwrap();
        give(trap, STRANGER, 0o755);
    });
}

#[test]
fn an_agents_directory_that_others_can_write() {
    an_agent_does_not_start(|trap, _| {
        fs::create_dir(trap).unwrap();
        fs::set_permissions(trap, fs::Permissions::from_mode(0o777)).unwrap();
    });
}

#[test]
fn an_agents_directory_that_is_a_link() {
    an_agent_does_not_start(|trap, arena| {
        fs::create_dir(arena.path("elsewhere")).unwrap();
        symlink(arena.path("elsewhere"), trap).unwrap();
    });
}
