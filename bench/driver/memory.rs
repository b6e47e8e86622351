//! Memory of a group of processes, as seen from outside.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

/// How the links of `/proc/PID/fd` and `map_files` to shared memory begin: memfds, files, and mappings without a file.
const SHARED: [&str; 3] = ["/memfd:", "/dev/shm/", "/dev/zero (deleted)"];

/// Bytes that the processes hold together: their anonymous memory, and every piece of shared memory that any of
/// them has open or mapped, counted once and with all its blocks, touched by a process or only reserved.
pub(crate) fn held_by(pids: &[u32]) -> Result<u64> {
    let mut files = HashMap::new();
    let mut anonymous = 0;
    for pid in pids {
        anonymous += anonymous_of(*pid)?;
        for folder in ["fd", "map_files"] {
            shared_files(&format!("/proc/{pid}/{folder}"), &mut files)?;
        }
    }
    Ok(anonymous + files.values().sum::<u64>())
}

fn anonymous_of(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Ok(kibibytes.context("no Pss_Anon in smaps_rollup")? * 1024)
}

/// Adds the shared memory among the links of `folder`, by device and inode.
fn shared_files(folder: &str, into: &mut HashMap<(u64, u64), u64>) -> Result<()> {
    for link in fs::read_dir(folder)? {
        let path = link?.path();
        let Ok(name) = fs::read_link(&path) else {
            continue;
        };
        if !SHARED.iter().any(|begin| name.to_string_lossy().starts_with(begin)) {
            continue;
        }
        // Following the link also works for what has no name (any more).
        let about = fs::metadata(&path).context("looking at shared memory, which may need root")?;
        if about.is_file() {
            into.insert((about.dev(), about.ino()), about.blocks() * 512);
        }
    }
    Ok(())
}
