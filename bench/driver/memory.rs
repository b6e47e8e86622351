//! Memory of a group of processes, as seen from outside.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Bytes that the processes hold together: their anonymous memory, and every shared-memory file that any of
/// them has open or mapped, counted once and with all its blocks, touched by a process or only reserved.
pub(crate) fn held_by(pids: &[u32]) -> u64 {
    let mut files = HashMap::new();
    let mut anonymous = 0;
    for pid in pids {
        anonymous += anonymous_of(*pid);
        for folder in ["fd", "map_files"] {
            shared_files(&format!("/proc/{pid}/{folder}"), &mut files);
        }
    }
    anonymous + files.values().sum::<u64>()
}

fn anonymous_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Adds the memory files among the links of `folder`, by device and inode.
fn shared_files(folder: &str, into: &mut HashMap<(u64, u64), u64>) {
    for link in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = fs::read_link(link.path()) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with("/memfd:") && !name.starts_with("/dev/shm/") {
            continue;
        }
        // Following the link also works for a file that has no name any more.
        if let Ok(about) = fs::metadata(link.path())
            && about.is_file()
        {
            into.insert((about.dev(), about.ino()), about.blocks() * 512);
        }
    }
}
