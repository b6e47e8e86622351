//! How much memory is left for anybody: by the machine, and by the limits of the control groups that the process is in. Files of
//! /proc and /sys/fs/cgroup, read anew at each look; what cannot be read limits nothing.
#![forbid(unsafe_code)]

use crate::process::Text;
use crate::sys;
use core::ffi::CStr;
use core::fmt::Write as _;

/// More than any of the files has, as far as it is of interest. On the stack of a thread of the program's.
const MOST_TEXT: usize = 1536;

/// How the two kinds of control groups name what they know.
struct Files {
    root: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Of `memory.stat`: pages of files that would be given up first.
    inactive: &'static str,
}

const SECOND: Files =
    Files { root: "/sys/fs/cgroup", limit: "memory.max", usage: "memory.current", inactive: "inactive_file" };
const FIRST: Files = Files {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};

/// Bytes that could still be allocated; nothing where nobody says.
pub(super) fn free_bytes() -> Option<u64> {
    free_of_machine().into_iter().chain(free_of_groups()).min()
}

fn free_of_machine() -> Option<u64> {
    let mut room = [0; 256];
    number_behind(text(c"/proc/meminfo", &mut room)?, "MemAvailable:").map(|kib| kib << 10)
}

fn free_of_groups() -> Option<u64> {
    let mut room = [0; MOST_TEXT];
    text(c"/proc/self/cgroup", &mut room)?.lines().filter_map(free_of_line).min()
}

/// By a line of /proc/self/cgroup: `0::/path`, or `4:memory:/path`.
fn free_of_line(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, kinds, path) = (fields.next()?, fields.next()?, fields.next()?);
    let files = match kinds {
        "" => &SECOND,
        kinds if kinds.split(',').any(|kind| kind == "memory") => &FIRST,
        _ => return None,
    };
    free_up_to_root(files, path)
}

/// A group is bound by the limits of those that it is in as well. Seen from within a container, the path may not be there: then the
/// root is the container's own.
fn free_up_to_root(files: &Files, path: &str) -> Option<u64> {
    let mut path = path.trim_end_matches('/');
    let mut least = None;
    loop {
        least = least.into_iter().chain(free_of_group(files, path)).min();
        let Some(parent) = path.rfind('/') else { return least };
        path = &path[..parent];
    }
}

fn free_of_group(files: &Files, path: &str) -> Option<u64> {
    let mut room = [0; MOST_TEXT];
    let mut number = |file: &str| file_of(files, path, file, &mut room)?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(files.limit)?, number(files.usage)?);
    let inactive = number_behind(file_of(files, path, "memory.stat", &mut room)?, files.inactive);
    Some(limit.saturating_sub(usage.saturating_sub(inactive.unwrap_or(0))))
}

fn file_of<'a>(files: &Files, path: &str, file: &str, room: &'a mut [u8]) -> Option<&'a str> {
    let mut name = Text::<512>::new();
    write!(name, "{}{path}/{file}", files.root).ok()?;
    text(name.as_cstr(), room)
}

fn text<'a>(path: &CStr, room: &'a mut [u8]) -> Option<&'a str> {
    let length = sys::read_file(path, room).ok()?;
    let bytes = room.get(..length)?;
    // What was cut may end within a character.
    core::str::from_utf8(bytes).or_else(|error| core::str::from_utf8(&bytes[..error.valid_up_to()])).ok()
}

/// The number behind a word at the beginning of a line.
fn number_behind(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(word))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_whole_words() {
        let stat = "active_file 5\ninactive_file 70\ntotal_inactive_file 700\n";
        assert_eq!(number_behind(stat, "inactive_file"), Some(70));
        assert_eq!(number_behind(stat, "total_inactive_file"), Some(700));
        assert_eq!(number_behind(stat, "file"), None);
    }

    #[test]
    fn a_machine_has_some_memory_left() {
        assert!(free_bytes().is_some_and(|free| free > 1 << 20));
    }

    #[test]
    fn what_is_no_group_of_memory_limits_nothing() {
        assert_eq!(free_of_line("5:devices:/"), None);
        assert_eq!(free_of_line("garbage"), None);
    }
}
