//! What this process maps that others can write: found in /proc/self/maps, as any thread of a program can.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
}

/// The lines of /proc/self/maps: mapping, rights, what it maps. Parts of one file that the kernel lists apart, because core files leave
/// one of them out, are one mapping.
pub fn maps() -> Vec<(Mapping, String, String)> {
    let text = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let mut all: Vec<(Mapping, String, String)> = Vec::new();
    for next in text.lines().map(line) {
        match all.last_mut() {
            Some(last) if is_continued(last, &next) => last.0.end = next.0.end,
            _ => all.push(next),
        }
    }
    all
}

fn is_continued(last: &(Mapping, String, String), next: &(Mapping, String, String)) -> bool {
    last.0.end == next.0.start && last.1 == next.1 && last.2 == next.2 && !next.2.is_empty()
}

fn line(line: &str) -> (Mapping, String, String) {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
    let (start, end) = range.split_once('-').expect("a range");
    let number = |text| usize::from_str_radix(text, 16).expect("an address");
    let name = words.skip(3).collect::<Vec<_>>().join(" ");
    (Mapping { start: number(start), end: number(end) }, rights.to_owned(), name)
}

/// All segments that are mapped.
pub fn segments() -> Vec<Mapping> {
    named(|name| name.contains("convoy-segment"))
}

/// The registry, if there is one.
pub fn registry() -> Option<Mapping> {
    named(|name| name.ends_with(".registry")).first().copied()
}

fn named(is_such: impl Fn(&str) -> bool) -> Vec<Mapping> {
    let all = maps();
    all.iter()
        .filter(|(_, rights, name)| rights.starts_with("rw") && is_such(name))
        .map(|found| found.0)
        .collect()
}

impl Mapping {
    /// Its size.
    pub fn bytes(self) -> usize {
        self.end - self.start
    }

    /// The word at an offset, counted round and aligned.
    pub fn word(self, offset: u64) -> &'static AtomicU64 {
        let offset = (offset as usize % self.bytes()) & !7;
        // SAFETY: inside a mapping that the library keeps as long as there are streams, and for ten seconds after; a liar
        // lives shorter. Others use atomics there, or bytes that mean nothing.
        unsafe { &*((self.start + offset) as *const AtomicU64) }
    }

    /// What stands there.
    pub fn read(self, offset: u64) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }
}
