//! What the tests of web servers and proxies share: files to serve, bodies compared with them, load without errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use convoy_tests::Arena;
use convoy_tests::arena::find;
use convoy_tests::kit::pattern;

/// The files that are served, by name and size.
const FILES: &[(&str, usize)] = &[("empty", 0), ("small", 1024), ("middle", 100_000), ("large", 5_000_000)];

/// Makes the files, and gives their directory.
pub fn files(arena: &Arena) -> PathBuf {
    let root = arena.path("www");
    fs::create_dir_all(&root).unwrap();
    for (number, (name, size)) in FILES.iter().enumerate() {
        let mut bytes = vec![0; *size];
        pattern::fill(number as u64, 0, &mut bytes);
        fs::write(root.join(name), bytes).unwrap();
    }
    root
}

/// Panics unless two files have the same content.
pub fn same_content(what: &str, left: &Path, right: &Path) {
    let (left, right) = (fs::read(left).unwrap_or_default(), fs::read(right).unwrap());
    let first = left.iter().zip(&right).position(|(left, right)| left != right);
    let lengths = (left.len(), right.len());
    assert!(left == right, "{what}: lengths {lengths:?}, first difference in common at {first:?}");
}

/// Runs curl with options of its own.
pub fn curl(arena: &Arena, arguments: &[&str]) -> String {
    let command = arena.command(find("curl", "curl"), &[&["-sS", "--fail"], arguments].concat());
    arena.run(command).stdout
}

/// Fetches every file by a connection of its own and compares the bodies with the files.
pub fn bodies(arena: &Arena, base: &str, options: &[&str]) -> String {
    let mut said = Vec::new();
    for (name, _) in FILES {
        let body = arena.path("body.bin");
        let address = format!("{base}{name}");
        let arguments =
            ["-o", body.to_str().unwrap(), "-w", "%{http_code} %{size_download}", address.as_str()];
        said.push(format!("{name} {}", curl(arena, &[options, &arguments].concat())));
        same_content(&address, &body, &arena.path("www").join(name));
        let _ = fs::remove_file(&body);
    }
    said.join("\n")
}

/// Fetches all files several times over one connection that stays open, and compares them.
pub fn bodies_in_a_row(arena: &Arena, base: &str, options: &[&str]) -> String {
    let fetched = arena.path("fetched");
    fs::create_dir_all(&fetched).unwrap();
    let mut arguments: Vec<String> = Vec::new();
    let mut expected = Vec::new();
    for round in 0..5 {
        for (name, _) in FILES {
            let body = fetched.join(format!("{round}-{name}"));
            arguments.extend(["-o".into(), body.display().to_string(), format!("{base}{name}")]);
            expected.push((body, arena.path("www").join(name)));
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = curl(arena, &[options, &["-w", "%{http_code} %{size_download} "], &arguments].concat());
    for (body, file) in expected {
        same_content(&body.display().to_string(), &body, &file);
    }
    fs::remove_dir_all(fetched).unwrap();
    said
}

/// Uploads files to a server that takes them below /up/, and compares what has arrived.
pub fn uploads(arena: &Arena, base: &str) -> String {
    let root = arena.path("www");
    let mut said = String::new();
    for name in ["small", "middle", "large"] {
        let file = root.join(name);
        let target = format!("{base}up/{name}");
        said += &curl(arena, &["-T", file.to_str().unwrap(), "-w", "%{http_code} ", &target]);
        let arrived = root.join("up").join(name);
        same_content(&target, &arrived, &file);
        fs::remove_file(arrived).unwrap();
    }
    said
}

/// wrk for some seconds, with many connections.
pub fn wrk(arena: &Arena, address: &str, seconds: &str) -> Command {
    arena.command(find("wrk", "wrk"), &["-t", "2", "-c", "50", "-d", seconds, address])
}

/// Puts an address under load, and wants answers without any error.
pub fn load(arena: &Arena, address: &str) {
    no_errors(&arena.run(wrk(arena, address, "1")).stdout);
}

/// Checks what wrk has said.
pub fn no_errors(output: &str) {
    let count = output.lines().find_map(|line| line.trim().split_once(" requests in "));
    let count: u64 = count.expect("wrk's number of requests").0.parse().unwrap();
    assert!(count > 20, "{output}");
    assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
}
