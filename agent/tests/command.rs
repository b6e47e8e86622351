//! The command line as a user meets it: help, usage errors, and `convoy run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Scratch, convoy, library, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The one line of an error, after its status was checked.
fn failure(arguments: &[&str], status: i32) -> String {
    let output = convoy().args(arguments).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
    assert!(error.starts_with("convoy: "), "{error}");
    error
}

#[test]
fn help_is_on_standard_output() {
    for (arguments, word) in [
        (&["--help"][..], "doctor"),
        (&["run", "--help"], "CONVOY_SPIN_US"),
        (&["stat", "-h"], "--watch"),
        (&["doctor", "--help"], "PATH"),
    ] {
        let output = convoy().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains(word), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_one_line() {
    assert!(failure(&["statt"], 2).contains("statt"));
    assert!(failure(&["stat", "--jsn"], 2).contains("--jsn"));
    assert!(failure(&["stat", "x"], 2).contains("x"));
    assert!(failure(&["stat", "--watch", "0"], 2).contains("86400"));
    assert!(failure(&["doctor", "/nonexistent/program"], 2).contains("/nonexistent/program"));
    assert!(failure(&["run", "--bogus", "ls"], 125).contains("--bogus"));
    failure(&["run"], 125);
    assert!(failure(&["run", "--set", "SPINS=1", "ls"], 125).contains("CONVOY_SPIN_US"));
    assert!(failure(&["run", "--set", "RING_BYTES=3", "ls"], 125).contains("power of two"));
    assert!(failure(&["run", "--library", "/nonexistent.so", "ls"], 125).contains("/nonexistent.so"));
}

#[test]
fn the_program_takes_over_with_its_arguments_and_status() {
    let output = convoy()
        .args(["run", "--set", "SPIN_US=20", "--set", "convoy_log=off", "--library"])
        .arg(library())
        .args([
            "sh",
            "-c",
            "echo $$ \"$LD_PRELOAD\" $CONVOY_SPIN_US $CONVOY_LOG \"$@\"; exit 7",
            "sh",
            "--",
            "-x",
        ])
        .env("LD_PRELOAD", "other.so")
        .env("CONVOY_SPIN_US", "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = output.id();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let expected = format!("{pid} {}:other.so 20 off -- -x\n", library().display());
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn what_cannot_be_run_has_the_statuses_of_env() {
    let scratch = Scratch::new("cannot-run");
    let file = scratch.path("file");
    fs::write(&file, "nothing").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let library = library().to_str().unwrap();
    assert!(failure(&["run", "--library", library, "no-such-program"], 127).contains("no-such-program"));
    let line = failure(&["run", "--library", library, "--", file.to_str().unwrap()], 126);
    assert!(line.contains("Permission denied") && !line.contains("os error"), "{line}");
}

#[test]
fn a_library_that_cannot_be_preloaded_is_refused() {
    let scratch = Scratch::new("blank in path");
    let path = scratch.path("libconvoy.so");
    fs::copy(library(), &path).unwrap();
    assert!(failure(&["run", "--library", path.to_str().unwrap(), "true"], 125).contains("LD_PRELOAD"));
}

#[test]
fn the_library_is_found_where_it_is_installed() {
    let scratch = Scratch::new("installed");
    fs::create_dir_all(scratch.path("bin")).unwrap();
    fs::create_dir_all(scratch.path("lib/convoy")).unwrap();
    let command = scratch.path("bin/convoy");
    fs::copy(env!("CARGO_BIN_EXE_convoy"), &command).unwrap();
    let preloaded = || {
        let mut run = std::process::Command::new(&command);
        let output =
            run.args(["run", "sh", "-c", "echo $LD_PRELOAD"]).env_remove("CONVOY_LIBRARY").output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout))
    };
    assert_eq!(preloaded().0, 125);
    for place in ["lib/convoy/libconvoy.so", "bin/libconvoy.so"] {
        fs::copy(library(), scratch.path(place)).unwrap();
        let expected = scratch.path(place).canonicalize().unwrap();
        assert_eq!(preloaded(), (0, format!("{}\n", expected.display())));
    }
}
