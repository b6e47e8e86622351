//! What libraries in LD_PRELOAD are known to miss: functions found by name, forms made by the compiler, children of all kinds,
//! programs that close everything, the moments before main and after it. In C; one process unless it makes others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, Scratch, WARMTHS};
use std::path::{Path, PathBuf};
use std::process::Command;

fn compile(scratch: &Scratch, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let (program, programs) = (scratch.join(name), Path::new(env!("CARGO_MANIFEST_DIR")).join("programs"));
    let mut compiler = Command::new("cc");
    // Fortified, so that the compiler uses the checked forms.
    compiler.args(["-O1", "-D_FORTIFY_SOURCE=2", "-pthread", "-o"]).arg(&program).arg(programs.join(source));
    assert!(compiler.args(flags).status().expect("cc").success(), "{source} does not compile");
    program
}

fn compare(source: &str, case: &str) {
    let scratch = Scratch::new();
    let program = compile(&scratch, source, "traps", &[]);
    Check::new(program.to_str().unwrap(), case).variants(&WARMTHS[..1]).compare();
}

macro_rules! traps {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                compare("traps.c", stringify!($case));
            }
        )*
    };
}

traps! {
    names numbers everything_closed pipes stdio children asynchronous listener_after_exec images exit_among_threads idle
}

#[test]
fn other_names() {
    compare("aliases.c", "names");
}

#[test]
fn sockets_of_the_resolver() {
    compare("aliases.c", "resolver");
}

/// Processes that are busy with each other leave out what makes sleepers certain to be seen; whoever sleeps brings it back.
#[test]
fn wakes_between_sleep_and_haste() {
    for way in ["recv", "poll", "epoll", "epoll_edge"] {
        let scratch = Scratch::new();
        let program = compile(&scratch, "wakes.c", "wakes", &[]);
        let runs = Check::new(program.to_str().unwrap(), way).variants(&WARMTHS[..1]).compare();
        assert!(runs.iter().all(|run| run.counters.get("barriers") > 0), "{way}: {}", runs[0].report());
    }
}

#[test]
fn before_main_and_after() {
    let scratch = Scratch::new();
    let library = compile(&scratch, "early.c", "libearly.so", &["-shared", "-fPIC"]);
    let place = format!("-Wl,-rpath,{}", scratch.path().display());
    let flags = ["-DPROGRAM", library.to_str().unwrap(), place.as_str()];
    let program = compile(&scratch, "early.c", "early", &flags);
    Check::new(program.to_str().unwrap(), "").variants(&WARMTHS[..1]).compare();
}
