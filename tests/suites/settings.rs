//! Settings: what is wrong gives one line and the default; what is right changes speed, never bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_tests::{Check, Mode, Run, Task};

const CALLS: &str = convoy_tests::program!("calls");
const PRESSURE: &str = convoy_tests::program!("pressure");
const EPOLL: &str = convoy_tests::program!("epoll_groups");
const THREADS: &str = convoy_tests::program!("threads");

/// Runs one case in one process with a setting, and compares it with the native run.
fn with(name: &str, value: &str) -> Run {
    let check = Check::new(CALLS, "calls_mixed").variants(&["thread-client-warm"]).plain().noisy();
    check.set(name, value).compare().remove(0)
}

/// A wrong value is one line that names the variable, and the program works, accelerated.
fn wrong(name: &str, values: &[&str]) {
    for value in values {
        let run = with(name, value);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one line for {name}={value}\n{}", run.report());
        assert!(lines[0].contains(name), "the line for {name}={value} names it\n{}", run.report());
        if name != "CONVOY_STATS" {
            run.assert_accelerated();
        }
    }
}

/// A setting that keeps the program on the kernel, without a word.
fn plain(name: &str, value: &str) {
    let run = with(name, value);
    assert_eq!(run.stderr, "", "{name}={value} is right\n{}", run.report());
    assert_eq!(run.counters.get("bytes_sent"), 0, "{name}={value} leaves it to the kernel\n{}", run.report());
}

mod wrong_values {
    use super::wrong;

    macro_rules! wrong_values {
        ($($test:ident: $name:literal = [$($value:literal),*];)*) => {
            $(
                #[test]
                fn $test() {
                    wrong($name, &[$($value),*]);
                }
            )*
        };
    }

    wrong_values! {
        switch: "CONVOY" = ["maybe", "2"];
        batch_bytes: "CONVOY_BATCH_BYTES" = ["many", "-1", "16k?", "99999999999999999999"];
        batch_frames: "CONVOY_BATCH_FRAMES" = ["x", "0"];
        batch_delay: "CONVOY_BATCH_DELAY_US" = ["soon", "-5"];
        coalesce: "CONVOY_COALESCE_MAX" = ["big", "1.5"];
        ring: "CONVOY_RING_BYTES" = ["none", "1", "100000"];
        window: "CONVOY_WINDOW_BYTES" = ["none", "-4096"];
        memory: "CONVOY_MEMORY_LIMIT" = ["all", "12"];
        user_memory: "CONVOY_USER_MEMORY_LIMIT" = ["half", "1K"];
        agent_memory: "CONVOY_AGENT_MEMORY_LIMIT" = ["-1", "2000G"];
        spin: "CONVOY_SPIN_US" = ["fast", "-1"];
        fabric: "CONVOY_FABRIC" = ["!!"];
        rules: "CONVOY_RULES" = ["port", "+10.0.0.0/99", "-port:abc"];
        log: "CONVOY_LOG" = ["louder"];
        promote: "CONVOY_PROMOTE_AFTER" = ["later"];
        io_uring: "CONVOY_IO_URING" = ["perhaps"];
        directory: "CONVOY_DIR" = ["relative/path"];
        config: "CONVOY_CONFIG" = ["/does/not/exist.toml"];
        stats: "CONVOY_STATS" = ["/does/not/exist/"];
    }
}

#[test]
fn several_wrong_values_give_a_line_each() {
    let check = Check::new(CALLS, "calls_mixed").variants(&["thread-client-warm"]).noisy();
    let run = check.set("CONVOY_SPIN_US", "x").set("CONVOY_BATCH_BYTES", "y").compare().remove(0);
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.report());
}

#[test]
fn off_leaves_everything_to_the_kernel() {
    plain("CONVOY", "off");
    plain("CONVOY_FABRIC", "off");
    plain("CONVOY_RULES", "-127.0.0.0/8");
    plain("CONVOY_RULES", "+port:1");
    plain("CONVOY_RULES", "-prog:call*");
    plain("CONVOY_PROMOTE_AFTER", "1000000");
}

#[test]
fn off_on_one_side_only() {
    for mode in [Mode::SubjectOnly, Mode::PeerOnly] {
        let check = Check::new(CALLS, "calls_mixed").variants(&["process-client-warm"]);
        check.modes(&[mode]).set("CONVOY", "off").compare();
    }
}

#[test]
fn a_directory_that_cannot_be_used() {
    let scratch = convoy_tests::Scratch::new();
    let file = scratch.join("a-file");
    std::fs::write(&file, "").unwrap();
    for directory in [scratch.join("not/yet/there"), file] {
        let check = Check::new(CALLS, "calls_mixed").variants(&["thread-client-warm"]).plain().noisy();
        check.set("CONVOY_DIR", directory.to_str().unwrap()).compare();
    }
}

#[test]
fn a_settings_file_counts() {
    let scratch = convoy_tests::Scratch::new();
    let file = scratch.join("convoy.toml");
    std::fs::write(&file, "CONVOY = \"off\"\n").unwrap();
    plain("CONVOY_CONFIG", file.to_str().unwrap());
    std::fs::write(&file, "CONVOY_SPIN_US = \"fast\"\n").unwrap();
    let run = with("CONVOY_CONFIG", file.to_str().unwrap());
    assert!(run.stderr.contains("CONVOY_SPIN_US"), "{}", run.report());
    run.assert_accelerated();
}

/// A program that opens no socket pays nothing and says nothing.
#[test]
fn programs_without_sockets() {
    for program in ["true", "ls", "cat"] {
        let task = Task::new(format!("/bin/{program}")).set("CONVOY_STATS", "off");
        let (native, preloaded) = (task.clone().run(), task.mode(Mode::Preloaded).run());
        assert_eq!((native.stdout, native.stderr), (preloaded.stdout, preloaded.stderr));
        assert_eq!(native.status, preloaded.status);
    }
}

/// The values at the ends of what is allowed, under everything that moves bytes.
mod extremes {
    use super::{Check, EPOLL, PRESSURE, THREADS};

    fn all(name: &str, value: &str) {
        let cases = [
            (PRESSURE, "both_ways_threads"),
            (PRESSURE, "sizes_at_borders"),
            (PRESSURE, "one_slow_among_many"),
            (EPOLL, "many_level"),
            (THREADS, "echo_pairs"),
        ];
        for (program, case) in cases {
            Check::new(program, case).variants(&["process-client-warm"]).plain().set(name, value).compare();
        }
    }

    macro_rules! extremes {
        ($($test:ident: $name:literal = $value:literal;)*) => {
            $(
                #[test]
                fn $test() {
                    all($name, $value);
                }
            )*
        };
    }

    extremes! {
        no_spinning: "CONVOY_SPIN_US" = "0";
        much_spinning: "CONVOY_SPIN_US" = "500";
        tiny_batches: "CONVOY_BATCH_FRAMES" = "1";
        small_batches: "CONVOY_BATCH_BYTES" = "64";
        held_batches: "CONVOY_BATCH_DELAY_US" = "50";
        few_blocks: "CONVOY_COALESCE_MAX" = "32K";
        small_blocks: "CONVOY_COALESCE_MAX" = "64";
        small_ring: "CONVOY_RING_BYTES" = "64K";
        small_window: "CONVOY_WINDOW_BYTES" = "4K";
        large_window: "CONVOY_WINDOW_BYTES" = "64M";
        little_memory: "CONVOY_MEMORY_LIMIT" = "1M";
        little_memory_of_the_user: "CONVOY_USER_MEMORY_LIMIT" = "1M";
        late_promotion: "CONVOY_PROMOTE_AFTER" = "10";
    }
}
