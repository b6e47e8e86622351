#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::ffi::CString;

fn path(name: &str) -> CString {
    let path = std::env::temp_dir().join(format!("convoy-{name}.stats.{}", std::process::id()));
    CString::new(path.to_str().unwrap()).unwrap()
}

#[test]
fn something_else_is_not_a_page() {
    let file = path("other");
    std::fs::write(file.to_str().unwrap(), "short").unwrap();
    assert_eq!(read(&file), Err(libc::EINVAL));
    std::fs::write(file.to_str().unwrap(), vec![0; 1 << 20]).unwrap();
    assert_eq!(read(&file), Err(libc::EINVAL));
    std::fs::remove_file(file.to_str().unwrap()).unwrap();
}

#[test]
fn processes_are_told_apart_by_their_start() {
    assert_eq!(start_time(std::process::id()), start_time(std::process::id()));
    assert!(start_time(std::process::id()).is_some());
    assert_eq!(start_time(u32::MAX), None);
    assert!(pid_namespace().is_some());
}

#[test]
fn every_counter_has_a_name_of_its_own_and_a_meaning() {
    let mut names: Vec<_> =
        Process::FIELDS.iter().chain(LaneCounters::FIELDS).map(|(name, _)| *name).collect();
    assert!(Process::FIELDS.iter().chain(LaneCounters::FIELDS).all(|(_, help)| !help.is_empty()));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn lanes_do_not_share_cache_lines() {
    assert_eq!(align_of::<LaneCounters>(), 64);
    assert_eq!(size_of::<LaneCounters>() % 64, 0);
}
