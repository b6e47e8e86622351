//! An rsync daemon, to which trees are pushed and from which they are pulled, and compared.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};
use convoy_tests::kit::pattern;

/// Many small files, some of middle size, a few large ones; `seed` makes the contents.
fn tree(root: &Path, seed: u64) {
    for folder in 0..10 {
        let folder = root.join(format!("folder {folder}"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..60_usize {
            content(&folder.join(number.to_string()), seed + number as u64, number * 37 % 5000);
        }
        content(&folder.join("middle"), seed, 150_000);
    }
    for number in 0..3_u64 {
        content(&root.join(format!("large {number}")), seed + number, 4_000_000);
    }
}

fn content(path: &Path, seed: u64, size: usize) {
    let mut bytes = vec![0; size];
    pattern::fill(seed, 0, &mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A daemon of root changes its user for every connection, after which that stays with the kernel: here it has another
/// from the start.
fn nobody() -> Option<u32> {
    // SAFETY: no memory is involved.
    (unsafe { libc::geteuid() } == 0).then_some(65_534)
}

/// Every file below a directory with its content.
fn contents(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn same_trees(arena: &Arena, left: &str, right: &str) -> String {
    let (left, right) = (contents(&arena.path(left)), contents(&arena.path(right)));
    assert!(left == right, "{:?}: the trees differ", arena.mode());
    let bytes: usize = left.iter().map(|(_, content)| content.len()).sum();
    format!("{} files of {bytes} bytes\n", left.len())
}

fn exercise(arena: &Arena) -> String {
    let number = free_port();
    let port = number.to_string();
    for folder in ["here", "there", "back"] {
        fs::create_dir(arena.path(folder)).unwrap();
        if let Some(user) = nobody() {
            std::os::unix::fs::chown(arena.path(folder), Some(user), Some(user)).unwrap();
        }
    }
    let config =
        format!("use chroot = no\n[there]\npath = {}\nread only = no\n", arena.path("there").display());
    let config = arena.file("rsyncd.conf", config).display().to_string();
    let command = |arguments: &[&str]| {
        let mut command = arena.command(find("rsync", "rsync"), arguments);
        if let Some(user) = nobody() {
            command.uid(user).gid(user);
        }
        command
    };
    let arguments = ["--daemon", "--no-detach", "--address=127.0.0.1", "--port", &port, "--config", &config];
    let daemon = arena.start("rsync", command(&arguments));
    arena.listening(number);
    let remote = format!("rsync://127.0.0.1:{port}/there/");
    let rsync = |options: &[&str], from: &str, to: &str| {
        let all = [&["-a", "--timeout=60"], options, &[from, to]].concat();
        arena.run(command(&all)).stdout
    };
    let mut said = String::new();
    tree(&arena.path("here"), 1);
    rsync(&[], "here/", &remote);
    said += &same_trees(arena, "here", "there");
    rsync(&["--checksum"], &remote, "back/");
    said += &same_trees(arena, "there", "back");
    // Other contents under the same names: both ends compute differences.
    tree(&arena.path("here"), 2);
    rsync(&["--checksum", "--delete", "--no-whole-file"], "here/", &remote);
    said += &same_trees(arena, "here", "there");
    rsync(&["--checksum", "-z", "--no-whole-file"], &remote, "back/");
    said += &same_trees(arena, "there", "back");
    let changes = rsync(&["--checksum", "--dry-run", "--itemize-changes"], "here/", &remote);
    said += &format!("{} left to do\n", changes.lines().count());
    // Several at a time.
    let places: Vec<String> = (0..4).map(|number| format!("copy{number}/")).collect();
    let pulls: Vec<_> = places
        .iter()
        .map(|place| arena.start("pull", command(&["-a", "--timeout=60", &remote, place])))
        .collect();
    for (pull, place) in pulls.into_iter().zip(&places) {
        assert!(pull.ended().success(), "a pull to {place}");
        said += &same_trees(arena, "there", place);
    }
    daemon.end(libc::SIGTERM);
    said
}

#[test]
fn rsync_daemon() {
    both(true, exercise);
}
