//! Reading a page from outside, and what tells one process from a later one with the same number.

use super::layout::{Header, LaneCounters, MAGIC, Page, Process, VERSION};
use crate::sys;
use core::mem::offset_of;
use std::ffi::{CStr, CString};

/// The counters of one process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub pid: u32,
    /// Clock ticks since the machine started.
    pub start_time: u64,
    /// Inode number of the process's pid namespace.
    pub pid_namespace: u64,
    /// File name of the program, at most 31 bytes of it.
    pub program: String,
    /// In the order of [`Process::FIELDS`].
    process: Vec<u64>,
    /// Sums over all lanes, in the order of [`LaneCounters::FIELDS`].
    lanes: Vec<u64>,
}

impl Snapshot {
    /// Name and value of every counter: those of the process, then the sums of the lanes.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Process::FIELDS.iter().chain(LaneCounters::FIELDS);
        names.zip(self.process.iter().chain(&self.lanes)).map(|((name, _), value)| (*name, *value))
    }

    /// The value of one counter; 0 if there is none of this name.
    pub fn get(&self, name: &str) -> u64 {
        self.counters().find(|(known, _)| *known == name).map_or(0, |(_, value)| value)
    }

    /// Sum of the counters whose name begins with this.
    pub fn sum(&self, prefix: &str) -> u64 {
        self.counters()
            .filter(|(name, _)| name.starts_with(prefix))
            .fold(0, |sum, (_, value)| sum.wrapping_add(value))
    }

    /// False if the process is gone. True if that cannot be known from this pid namespace.
    pub fn alive(&self) -> bool {
        pid_namespace() != Some(self.pid_namespace) || start_time(self.pid) == Some(self.start_time)
    }
}

/// Reads the page in the file `path`.
///
/// # Errors
/// The errno of opening or reading; EINVAL for something that is not a page of this version.
pub fn read(path: &CStr) -> sys::Answer<Snapshot> {
    let mut bytes = vec![0; size_of::<Page>()];
    let length = sys::read_file(path, &mut bytes)?;
    if length != bytes.len()
        || word(&bytes, 0) != MAGIC
        || word(&bytes, offset_of!(Header, version)) != VERSION
    {
        return Err(libc::EINVAL);
    }
    Ok(Snapshot {
        pid: word(&bytes, offset_of!(Header, pid)) as u32,
        start_time: word(&bytes, offset_of!(Header, start_time)),
        pid_namespace: word(&bytes, offset_of!(Header, pid_namespace)),
        program: program(&bytes),
        process: words(&bytes, offset_of!(Page, process), Process::FIELDS.len()).collect(),
        lanes: lanes(&bytes),
    })
}

fn lanes(bytes: &[u8]) -> Vec<u64> {
    let mut sums = vec![0u64; LaneCounters::FIELDS.len()];
    for lane in 0..super::LANES {
        let at = offset_of!(Page, lanes) + lane * size_of::<LaneCounters>();
        for (sum, value) in sums.iter_mut().zip(words(bytes, at, LaneCounters::FIELDS.len())) {
            *sum = sum.wrapping_add(value);
        }
    }
    sums
}

fn program(bytes: &[u8]) -> String {
    let name = bytes.iter().skip(offset_of!(Header, program)).take(32).copied();
    String::from_utf8_lossy(&name.take_while(|byte| *byte != 0).collect::<Vec<u8>>()).into_owned()
}

fn words(bytes: &[u8], at: usize, count: usize) -> impl Iterator<Item = u64> + '_ {
    (0..count).map(move |index| word(bytes, at + 8 * index))
}

/// The word at this offset; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// When the process `pid` started, in clock ticks since the machine did; `None` if there is no such process or it has
/// ended and only waits for its parent.
pub fn start_time(pid: u32) -> Option<u64> {
    let path = CString::new(format!("/proc/{pid}/stat")).ok()?;
    let mut text = [0; 1024];
    let length = sys::read_file(&path, &mut text).ok()?;
    // Fields are counted from behind the program's name, which may contain anything.
    let behind = text.get(text[..length].iter().rposition(|byte| *byte == b')')? + 1..length)?;
    let mut fields = behind.split(|byte| *byte == b' ').skip(1);
    if matches!(fields.next()?, b"Z" | b"X") {
        return None;
    }
    std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()
}

/// Inode number of the pid namespace of this process.
pub fn pid_namespace() -> Option<u64> {
    let mut text = [0; 64];
    let length = sys::readlink(c"/proc/self/ns/pid", &mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}
