//! Other libraries in LD_PRELOAD, in front of Convoy's and behind it: allocators, libfaketime, libeatmydata; and programs that
//! a sanitizer watches. Natively the other library is there too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::arena::{find, free_port};
use convoy_tests::compare::difference;
use convoy_tests::{Arena, Mode, Run, Scratch, Task, library};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PRELOAD: &str = "LD_PRELOAD";

/// A library of a Debian package, by its path below the directory of libraries.
fn other(name: &str, package: &str) -> String {
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(name);
    assert!(path.is_file(), "{name} is not installed: ./dev test installs it, or apt-get install {package}");
    path.to_str().unwrap().to_owned()
}

/// The other library alone, and in both orders with Convoy's.
fn orders(other: &str, convoy: &Path) -> [(Mode, String); 3] {
    let convoy = convoy.display();
    [
        (Mode::Native, other.to_owned()),
        (Mode::Preloaded, format!("{other}:{convoy}")),
        (Mode::Preloaded, format!("{convoy}:{other}")),
    ]
}

/// Redis under load, with values that must be there in the end.
fn redis(arena: &Arena, preload: &str) -> String {
    let number = free_port();
    let port = number.to_string();
    let command = |program: &str, package: &str, arguments: &[&str]| {
        let mut command = arena.command(find(program, package), arguments);
        command.env(PRELOAD, preload);
        command
    };
    let directory = arena.path("");
    let server = command(
        "redis-server",
        "redis-server",
        &["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", directory.to_str().unwrap()],
    );
    let server = arena.start("redis", server);
    arena.listening(number);
    let load = ["-p", &port, "-c", "20", "-n", "10000", "-d", "500", "-t", "set,get,incr,lpush", "-q"];
    arena.run(command("redis-benchmark", "redis-tools", &load));
    let cli = |arguments: &[&str]| {
        let all = [&["-p", &port], arguments].concat();
        arena.run(command("redis-cli", "redis-tools", &all)).stdout
    };
    let said = cli(&["get", "counter:__rand_int__"]) + &cli(&["llen", "mylist"]);
    cli(&["shutdown", "nosave"]);
    said + &server.ended().to_string()
}

/// Runs a case with the other library, natively and in both orders; what it says must be the same.
fn case(other: &str, program: &str, case: &str, settings: &[(&str, &str)]) -> Vec<Run> {
    let run = |(mode, preload): (Mode, String)| {
        let task = Task::new(program).arg(case).arg("process-server-warm").mode(mode).set(PRELOAD, preload);
        settings.iter().fold(task, |task, (name, value)| task.set(name, value)).run()
    };
    let runs: Vec<Run> = orders(other, library::path()).into_iter().map(run).collect();
    assert!(runs[0].status.success(), "the case does not work natively\n{}", runs[0].report());
    for run in &runs[1..] {
        assert_eq!(difference(&runs[0], run), None, "{}", run.report());
        run.assert_accelerated();
    }
    runs
}

/// Threads and forks of programs of our own.
fn cases(other: &str) {
    case(other, convoy_tests::program!("threads"), "threads_against_puppet", &[]);
    case(other, convoy_tests::program!("pressure"), "both_ways_threads", &[]);
    case(other, convoy_tests::program!("processes"), "fork_among_threads", &[]);
    case(other, convoy_tests::program!("processes"), "system_and_popen", &[]);
}

/// Redis, and programs of our own.
fn beside(name: &str, package: &str) {
    let other = other(name, package);
    let mut said = Vec::new();
    for order in 0..3 {
        let arena = Arena::new(if order == 0 { Mode::Native } else { Mode::Preloaded });
        // The arena's own copy: Redis's files are the arena's too.
        let (_, preload) = &orders(&other, &arena.path("libconvoy.so"))[order];
        said.push(redis(&arena, preload));
        arena.finish(true);
    }
    assert!(said[0] == said[1] && said[0] == said[2], "natively, behind it, in front of it: {said:#?}");
    cases(&other);
}

#[test]
fn jemalloc() {
    beside("libjemalloc.so.2", "libjemalloc2");
}

#[test]
fn tcmalloc() {
    beside("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4");
}

#[test]
fn mimalloc() {
    beside("libmimalloc.so.2", "libmimalloc2.0");
}

#[test]
fn eatmydata() {
    beside("libeatmydata.so", "libeatmydata1");
}

// Redis itself does not start with libfaketime, whose start it disturbs by jemalloc's.

#[test]
fn faketime() {
    cases(&other("faketime/libfaketime.so.1", "libfaketime"));
}

#[test]
fn faketime_for_threads() {
    cases(&other("faketime/libfaketimeMT.so.1", "libfaketime"));
}

/// A clock that is behind, and one that stands still: a wait with a limit ends after that time. How long a wait took the
/// program does not know; that it ends, with the same answers, is what is compared. (Not select: libfaketime's does not tell
/// how much time is left.)
#[test]
fn faked_time_limits() {
    let faketime = other("faketime/libfaketime.so.1", "libfaketime");
    let (flags, readiness) = (convoy_tests::program!("flags"), convoy_tests::program!("readiness"));
    for time in ["-3d", "@2030-01-01 00:00:00", "2020-01-01 00:00:00"] {
        let settings = [("FAKETIME", time)];
        for name in ["receive_time_limit", "send_time_limit", "low_water_mark"] {
            case(&faketime, flags, name, &settings);
        }
        case(&faketime, readiness, "poll_time_limits", &settings);
        case(&faketime, convoy_tests::program!("epoll"), "time_limits", &settings);
    }
}

/// Compiles the C program with a sanitizer.
fn sanitized(scratch: &Scratch, sanitizer: &str) -> PathBuf {
    let program = scratch.join("sanitized");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/sanitized.c");
    let flag = format!("-fsanitize={sanitizer}");
    let status = Command::new("cc").args(["-g", "-pthread", &flag, "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("cc").success(), "the program does not compile");
    program
}

/// Runs a sanitized program natively and with each list of preloaded libraries: the sanitizer must be silent.
fn watched(program: &Path, preloads: &[String], setting: (&str, &str)) {
    let native = Task::new(program).run();
    assert!(native.status.success(), "it does not work natively\n{}", native.report());
    for preload in preloads {
        let task = Task::new(program).mode(Mode::Preloaded).set(PRELOAD, preload).set(setting.0, setting.1);
        let run = task.limit(Duration::from_secs(100)).run();
        assert_eq!(difference(&native, &run), None, "{preload}: {}", run.report());
        assert_eq!(run.stderr, "", "{preload}: {}", run.report());
        run.assert_accelerated();
    }
}

#[test]
fn address_sanitizer() {
    let scratch = Scratch::new();
    let program = sanitized(&scratch, "address");
    let convoy = library::path().display().to_string();
    let runtime = Command::new("cc").arg("-print-file-name=libasan.so").output().expect("cc").stdout;
    let runtime = String::from_utf8(runtime).unwrap();
    watched(&program, std::slice::from_ref(&convoy), ("ASAN_OPTIONS", "verify_asan_link_order=0"));
    watched(&program, &[format!("{}:{convoy}", runtime.trim())], ("ASAN_OPTIONS", ""));
}

/// As a user starts it.
#[test]
fn address_sanitizer_by_convoy_run() {
    let scratch = Scratch::new();
    let program = sanitized(&scratch, "address");
    let arena = Arena::new(Mode::Preloaded);
    let mut command = arena.command(library::command(), &["run", "--library"]);
    command.arg(arena.path("libconvoy.so")).arg(&program).env_remove(PRELOAD);
    let output = arena.run(command);
    assert_eq!(output.stderr, "");
    arena.finish(true);
}

#[test]
fn thread_sanitizer() {
    let scratch = Scratch::new();
    let program = sanitized(&scratch, "thread");
    let options = ("TSAN_OPTIONS", "ignore_noninstrumented_modules=1");
    watched(&program, &[library::path().display().to_string()], options);
}

#[test]
fn leak_and_undefined_behaviour_sanitizers() {
    let scratch = Scratch::new();
    for sanitizer in ["leak", "undefined"] {
        let program = sanitized(&scratch, sanitizer);
        watched(&program, &[library::path().display().to_string()], ("LSAN_OPTIONS", ""));
    }
}
