//! Memory of another process, or what a core file has of it. Nothing is written, and a process is not stopped for it.

use super::core::Core;
use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Most bytes that are read in all: garbage may point round in circles. A short piece counts as if it were longer.
const MOST_BYTES: u64 = 1 << 28;
const LEAST_COUNTED: u64 = 256;
/// Longest piece that is read at once.
const MOST_AT_ONCE: usize = 8 << 20;
/// Longest part of a mapped file that is searched for the anchor.
const MOST_SEARCHED: u64 = 64 << 20;

/// Where bytes come from.
enum Source {
    /// A process and its /proc/PID/mem and /proc/PID/maps.
    Process {
        pid: u32,
        memory: File,
        maps: String,
    },
    Core(Core),
}

/// A process's memory.
pub(crate) struct Memory {
    source: Source,
    left: Cell<u64>,
}

impl Memory {
    /// Of a process that runs.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked into (ptrace(2), access mode).
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        Ok(Self { source: Source::Process { pid, memory, maps }, left: Cell::new(MOST_BYTES) })
    }

    /// Of a core file.
    pub(crate) fn of_core(core: Core) -> Self {
        Self { source: Source::Core(core), left: Cell::new(MOST_BYTES) }
    }

    /// Where the anchor may lie: the most likely places first.
    pub(crate) fn places_for_anchor(&self) -> Vec<Range<u64>> {
        match &self.source {
            Source::Process { maps, .. } => places(maps),
            Source::Core(core) => core.places_for_anchor(),
        }
    }

    /// The file that a process has mapped there from its beginning: to read it by itself leaves the process's memory alone.
    pub(crate) fn file_at(&self, address: u64) -> Option<File> {
        let Source::Process { pid, maps, .. } = &self.source else { return None };
        let start = format!("{address:x}-");
        let line = maps.lines().find(|line| line.starts_with(&start))?;
        let path = line.split_ascii_whitespace().nth(5).filter(|path| path.starts_with('/'))?;
        File::open(format!("/proc/{pid}/root{path}")).ok()
    }

    /// Bytes at an address; nothing unless all of them are there.
    pub(crate) fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let left = self.left.get().checked_sub((length as u64).max(LEAST_COUNTED))?;
        if length > MOST_AT_ONCE || address.checked_add(length as u64).is_none() {
            return None;
        }
        self.left.set(left);
        let mut bytes = vec![0; length];
        match &self.source {
            Source::Process { memory, .. } => memory.read_exact_at(&mut bytes, address).ok()?,
            Source::Core(core) => core.read(address, &mut bytes)?,
        }
        Some(bytes)
    }

    /// A word of 8 bytes.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        word(&self.read(address, 8)?, 0)
    }
}

/// The word of 8 bytes at an offset.
pub(crate) fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

/// Bytes of one struct, from which fields are taken at published offsets.
pub(crate) struct Fields(Vec<u8>);

/// Larger structs than this are none of Convoy's.
const MOST_OF_A_STRUCT: u64 = 1 << 16;

impl Fields {
    /// Reads a struct of that size.
    pub(crate) fn read(memory: &Memory, address: u64, size: u64) -> Option<Self> {
        (size <= MOST_OF_A_STRUCT).then_some(())?;
        memory.read(address, size as usize).map(Self)
    }

    /// The field of 8 bytes there.
    pub(crate) fn u64(&self, offset: u64) -> Option<u64> {
        word(&self.0, usize::try_from(offset).ok()?)
    }

    /// The field of 4 bytes there.
    pub(crate) fn u32(&self, offset: u64) -> Option<u32> {
        let start = usize::try_from(offset).ok()?;
        Some(u32::from_ne_bytes(self.0.get(start..start.checked_add(4)?)?.try_into().ok()?))
    }

    /// The field of one byte there.
    pub(crate) fn u8(&self, offset: u64) -> Option<u8> {
        self.0.get(usize::try_from(offset).ok()?).copied()
    }

    /// The same as yes or no.
    pub(crate) fn flag(&self, offset: u64) -> Option<bool> {
        self.u8(offset).map(|byte| byte != 0)
    }
}

/// The data of mapped files in a text like /proc/PID/maps, those of libconvoy.so first.
fn places(maps: &str) -> Vec<Range<u64>> {
    let mut found: Vec<(bool, Range<u64>)> = maps.lines().filter_map(place).collect();
    found.sort_by_key(|(named, _)| !named);
    found.into_iter().map(|(_, range)| range).collect()
}

fn place(line: &str) -> Option<(bool, Range<u64>)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let modes = words.next()?;
    let path = words.nth(3).filter(|path| path.starts_with('/'))?;
    if !modes.starts_with('r') || !modes.ends_with('p') || modes.contains('x') {
        return None;
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    (range.end.saturating_sub(range.start) <= MOST_SEARCHED).then(|| (path.contains("convoy"), range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_the_library_comes_first() {
        let maps = "7f00-7f10 r--p 00000000 fd:00 5  /lib/x.so\n\
                    7f10-7f20 r-xp 00010000 fd:00 5  /lib/x.so\n\
                    8000-8010 rw-s 00000000 00:01 9  /dev/shm/a.registry\n\
                    9000-9010 rw-p 00000000 00:00 0  [heap]\n\
                    a000-a010 r--p 000e0000 fd:00 7  /opt/libconvoy.so (deleted)\n\
                    broken line\n";
        assert_eq!(places(maps), [0xa000..0xa010, 0x7f00..0x7f10]);
    }

    #[test]
    fn own_memory_is_read_and_nothing_else() {
        let memory = Memory::of_process(std::process::id()).unwrap();
        let number = Box::new(0x1234_5678_9abc_def0u64);
        assert_eq!(memory.word((&raw const *number) as u64), Some(*number));
        assert_eq!(memory.word(8), None);
        assert_eq!(memory.word(u64::MAX - 3), None);
        assert_eq!(memory.read((&raw const *number) as u64, usize::MAX), None);
    }

    #[test]
    fn reading_has_an_end() {
        let memory = Memory::of_process(std::process::id()).unwrap();
        let bytes = vec![0u8; MOST_AT_ONCE];
        let most = (MOST_BYTES / MOST_AT_ONCE as u64) as usize;
        let read =
            (0..most + 5).filter(|_| memory.read(bytes.as_ptr() as u64, bytes.len()).is_some()).count();
        assert_eq!(read, most);
    }
}
