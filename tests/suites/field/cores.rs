//! Core files: what `convoy dump --core` finds in them, their size, and Convoy's frames in a backtrace.

use super::dump::{dump, of, stream};
use super::talk::{Pair, Talker, arena, convoy};
use convoy_tests::Arena;
use convoy_tests::arena::find;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// gdb writes the file as the kernel would, and obeys the same filter.
fn core_of(arena: &Arena, talker: &Talker) -> PathBuf {
    let path = arena.path(format!("core.{}", talker.pid()));
    let mut gdb = Command::new(find("gdb", "gdb"));
    let write = format!("generate-core-file {}", path.display());
    gdb.args(["-nx", "-batch", "-p", &talker.pid().to_string(), "-ex", &write]);
    let output = gdb.output().unwrap();
    assert!(path.is_file(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

#[test]
fn a_core_file_tells_what_the_process_told() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 500");
    let path = core_of(&arena, &pair.server);
    let bytes = fs::metadata(&path).unwrap().len();
    // Without blocks (8 MiB) and chunks (half a gigabyte) of payload.
    assert!(bytes < 48 << 20, "{bytes} bytes");
    let living = of(&arena, pair.server.pid());
    let dead = dump(&arena, &["--core", path.to_str().unwrap()]);
    assert_eq!(dead["source"], "core");
    assert_eq!(dead["pid"], living["pid"]);
    assert_eq!(dead["program"], "talker");
    let (mut here, mut there) = (stream(&living), stream(&dead));
    assert_eq!(there["receiving"]["in_lane"]["bytes"], 500);
    // Whose bells they are stands in the registry, which is not in the file.
    for bells in ["waiters", "peer_waiters"] {
        here[bells] = serde_json::Value::Null;
        there[bells] = serde_json::Value::Null;
    }
    assert_eq!(here, there);
    assert!(dead["unseen"].to_string().contains("registry"), "{dead}");
}

#[test]
fn a_backtrace_names_convoys_frames() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[("CONVOY_SPIN_US", "0")]);
    pair.server.begin("take 1");
    arena.eventually("a thread that sleeps", || {
        let there = stream(&of(&arena, pair.client.pid()));
        there["peer_waiters"].as_array().unwrap().iter().any(|bell| bell["sleepers"] != 0)
    });
    let path = core_of(&arena, &pair.server);
    let mut gdb = Command::new(find("gdb", "gdb"));
    gdb.args(["-nx", "-batch", "-ex", "bt", convoy_tests::program!("talker")]).arg(&path);
    let said = String::from_utf8_lossy(&gdb.output().unwrap().stdout).into_owned();
    assert!(said.contains("runtime/src/wait"), "{said}");
    assert!(said.contains("talker::"), "the program's own frames behind them: {said}");
}

/// Changed anywhere and cut anywhere, a core file is said to be none, or shown as far as it makes sense.
#[test]
fn damaged_core_files_are_no_danger() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    pair.client.tell("send 500");
    let whole = fs::read(core_of(&arena, &pair.server)).unwrap();
    let used: Vec<usize> = (0..whole.len() / 8)
        .map(|index| index * 8)
        .filter(|at| whole[*at..*at + 8].iter().any(|byte| *byte != 0))
        .collect();
    let anchor = whole.windows(8).position(|bytes| bytes == b"convoyA1").expect("the anchor");
    let mut random = Random::new(11);
    let path = arena.path("damaged");
    fs::write(&path, &whole).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let word = |at: usize| <[u8; 8]>::try_from(&whole[at..at + 8]).unwrap();
    for round in 0..40 {
        let mut changed = Vec::new();
        for _ in 0..1 + random.below(400) {
            // Some of the changes where the way begins.
            let near = anchor + 32 + 8 * random.below(230) as usize;
            let any = used[random.below(used.len() as u64) as usize];
            let at = if random.below(8) == 0 && round % 2 == 0 { near } else { any };
            let value = match random.below(4) {
                0 => u64::MAX,
                1 => random.below(1 << 20),
                // Somewhere else in the memory.
                2 => u64::from_ne_bytes(word(any)),
                _ => random.next(),
            };
            file.write_all_at(&value.to_ne_bytes(), at as u64).unwrap();
            changed.push(at);
        }
        if round % 5 == 4 {
            file.set_len(random.below(whole.len() as u64)).unwrap();
        }
        let output = convoy(&arena, &["dump", "--core", path.to_str().unwrap()]);
        let status = output.status.code().unwrap();
        assert!(status == 0 || status == 1, "round {round}: {status}\n{}", output.stderr);
        assert_eq!(output.stderr.lines().count() as i32, status, "round {round}: {}", output.stderr);
        if round % 5 == 4 {
            fs::write(&path, &whole).unwrap();
        }
        changed.into_iter().for_each(|at| file.write_all_at(&word(at), at as u64).unwrap());
    }
}

#[test]
fn what_is_no_core_file_is_refused_by_one_line() {
    let arena = arena();
    for path in ["/nonexistent", "/etc/passwd", convoy_tests::program!("talker")] {
        let output = convoy(&arena, &["dump", "--core", path]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
}

/// Numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
