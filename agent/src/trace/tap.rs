//! Switches a process's events on and reads them: through its page of counters, which both map or write, and its ring, which is
//! opened through /proc/PID/fd for reading only (`convoy_runtime::trace`). What is in the ring was written by another program:
//! nothing there is trusted.

use super::{NONE, Record};
use crate::Failure;
use crate::inspect::memory::word;
use crate::stat::pages;
use convoy_runtime::stats::{Control, LANES, LaneCounters, Page, start_time};
use convoy_runtime::sys::now_ns;
use convoy_runtime::trace::wire::{
    Detail, Event, HEAD_BYTES, Head, MAGIC, MORE, MOST_PAYLOAD, NAME, Place, SLOT_BYTES, SLOTS, WORDS, tag,
};
use std::fs::{self, File, OpenOptions};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The process writes events for so long after the last word from here.
const LEASE: Duration = Duration::from_secs(3);
/// Slots read at once.
const BATCH: u64 = 4096;
/// How long a slot may be half written before it is given up: its writer may have died, or be stopped.
const PATIENCE: Duration = Duration::from_millis(200);

/// A process that is being traced.
pub(super) struct Tap {
    pid: u32,
    start: u64,
    page: File,
    ring: Option<File>,
    /// Number of the next slot to read.
    next: u64,
    renewed: Instant,
    stuck: Option<Instant>,
}

/// What was read.
#[derive(Default)]
pub(super) struct Batch {
    /// Times are those of CLOCK_MONOTONIC.
    pub(super) records: Vec<Record>,
    /// Slots that were overwritten or never finished.
    pub(super) lost: u64,
    /// There is more at once.
    pub(super) more: bool,
}

impl Tap {
    /// Begins to trace a process of this user, with so many bytes of payload.
    ///
    /// # Errors
    /// It does not run under Convoy, or somebody traces it already.
    pub(super) fn open(pid: u32, payload: u16) -> Result<Self, Failure> {
        let fail = |line: String| Failure::new(NONE, line);
        let found = pages::find_one(pid)?;
        let (path, start) = found.ok_or_else(|| {
            fail(format!("process {pid} does not run under Convoy, or has opened no TCP connection"))
        })?;
        let page = OpenOptions::new().read(true).write(true).open(&path);
        let page = page.map_err(|error| fail(format!("cannot open '{}': {error}", path.display())))?;
        let whole = page.metadata().is_ok_and(|meta| meta.len() == size_of::<Page>() as u64);
        if !whole {
            return Err(fail(format!(
                "process {pid} has another version of libconvoy.so, which cannot be traced"
            )));
        }
        // Before there is a tap, whose end would be the end of the other trace.
        let until = read_word(&page, (offset_of!(Page, control) + offset_of!(Control, until)) as u64);
        if until.unwrap_or(0) > now_ns() {
            return Err(fail(format!("process {pid} is being traced already")));
        }
        let renewed = Instant::now();
        let mut tap = Self { pid, start, page, ring: None, next: 0, renewed, stuck: None };
        tap.next = tap.head(offset_of!(Head, next)).unwrap_or(0);
        tap.begin(payload).map_err(|error| fail(format!("process {pid} cannot be traced: {error}")))?;
        Ok(tap)
    }

    fn begin(&mut self, payload: u16) -> std::io::Result<()> {
        // A number that the trace before did not have; its lower half must not be 0.
        self.set(offset_of!(Control, session), now_ns() | 1)?;
        self.set(offset_of!(Control, payload), u64::from(payload).min(MOST_PAYLOAD as u64))?;
        self.extend()?;
        self.switch_on()
    }

    fn extend(&mut self) -> std::io::Result<()> {
        self.renewed = Instant::now();
        self.set(offset_of!(Control, until), now_ns() + LEASE.as_nanos() as u64)
    }

    /// Puts the end of the trace off.
    pub(super) fn renew(&mut self) {
        if self.renewed.elapsed() > LEASE / 6 {
            // A page that is gone ends the trace by `lives`. A pause of this command may have outlasted the lease.
            let _ = self.extend().and_then(|()| self.switch_on());
        }
    }

    /// Whether the process has no memory for its events.
    pub(super) fn failed(&self) -> bool {
        self.control(offset_of!(Control, descriptor)) == Some(u64::MAX)
    }

    /// Whether the process still runs.
    pub(super) fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    fn switch_on(&self) -> std::io::Result<()> {
        (0..LANES).try_for_each(|lane| {
            let offset =
                offset_of!(Page, lanes) + lane * size_of::<LaneCounters>() + offset_of!(LaneCounters, traced);
            self.page.write_all_at(&1u64.to_ne_bytes(), offset as u64)
        })
    }

    fn set(&self, field: usize, value: u64) -> std::io::Result<()> {
        self.page.write_all_at(&value.to_ne_bytes(), (offset_of!(Page, control) + field) as u64)
    }

    fn control(&self, field: usize) -> Option<u64> {
        read_word(&self.page, (offset_of!(Page, control) + field) as u64)
    }

    /// A word of the ring's head; opens the ring when there is one.
    fn head(&mut self, field: usize) -> Option<u64> {
        if self.ring.is_none() {
            let descriptor = self.control(offset_of!(Control, descriptor))?.checked_sub(1)?;
            self.ring = open_ring(self.pid, descriptor);
        }
        read_word(self.ring.as_ref()?, field as u64)
    }

    /// What has come since the last time.
    pub(super) fn read(&mut self) -> Batch {
        let mut batch = Batch::default();
        let Some(written) = self.head(offset_of!(Head, next)) else { return batch };
        let oldest = written.saturating_sub(SLOTS as u64);
        if self.next < oldest {
            // Some room, or the next would be overwritten while this reads.
            let resume = (written - SLOTS as u64 / 2).max(oldest);
            batch.lost = resume - self.next;
            self.next = resume;
        }
        if self.next > written {
            self.next = written;
        }
        let end = written.min(self.next + BATCH);
        let (Some(tags), Some(slots)) = (self.slots(end), self.slots(end)) else { return batch };
        let after = self.head(offset_of!(Head, next)).unwrap_or(written);
        let kept = after.saturating_sub(SLOTS as u64);
        let view = Slots { first: self.next, tags, slots };
        while self.next < end {
            if self.next < kept {
                self.skip(&mut batch);
                continue;
            }
            match view.record(self.next, end) {
                Taken::Record(record, parts) => {
                    batch.records.push(*record);
                    self.next += parts;
                    self.stuck = None;
                }
                Taken::Cut if end < written => break,
                Taken::Garbage => self.skip(&mut batch),
                Taken::Cut | Taken::Unfinished => {
                    if self.stuck.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
                        return batch;
                    }
                    self.stuck = None;
                    self.skip(&mut batch);
                }
            }
        }
        batch.more = self.next < written;
        batch
    }

    fn skip(&mut self, batch: &mut Batch) {
        self.next += 1;
        batch.lost += 1;
    }

    /// Copies the slots up to `end`.
    fn slots(&self, end: u64) -> Option<Vec<u8>> {
        let ring = self.ring.as_ref()?;
        let mut bytes = vec![0; (end - self.next) as usize * SLOT_BYTES];
        let first = (self.next % SLOTS as u64) as usize;
        let front = (SLOTS - first).min((end - self.next) as usize) * SLOT_BYTES;
        let (one, two) = bytes.split_at_mut(front);
        ring.read_exact_at(one, (HEAD_BYTES + first * SLOT_BYTES) as u64).ok()?;
        ring.read_exact_at(two, HEAD_BYTES as u64).ok()?;
        Some(bytes)
    }
}

impl Drop for Tap {
    /// The process finds at its next event that the time is over: it switches the lanes off and gives the memory back.
    fn drop(&mut self) {
        let _ = self.set(offset_of!(Control, until), 0);
    }
}

fn read_word(file: &File, offset: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// Opens a descriptor of the process if it is a ring.
fn open_ring(pid: u32, descriptor: u64) -> Option<File> {
    let path = PathBuf::from(format!("/proc/{pid}/fd/{descriptor}"));
    let target = fs::read_link(&path).ok()?;
    let named = target.to_str()?.strip_prefix("/memfd:")?.starts_with(NAME.to_str().ok()?);
    let ring = named.then(|| File::open(&path).ok()).flatten()?;
    let whole = ring.metadata().ok()?.len() == (HEAD_BYTES + SLOTS * SLOT_BYTES) as u64;
    (whole && read_word(&ring, 0) == Some(MAGIC)).then_some(ring)
}

/// Slots that were copied twice: tags are believed as they were at first, words as they were then, so that a tag that says
/// "written" is older than the words.
struct Slots {
    first: u64,
    tags: Vec<u8>,
    slots: Vec<u8>,
}

enum Taken {
    /// An event, and how many slots it takes.
    Record(Box<Record>, u64),
    /// Its end is beyond what was copied.
    Cut,
    Unfinished,
    Garbage,
}

impl Slots {
    fn word(&self, slot: u64, index: usize) -> Option<u64> {
        word(&self.slots, (slot - self.first) as usize * SLOT_BYTES + 8 * (1 + index))
    }

    /// What a slot says that it is.
    fn tag(&self, slot: u64) -> Option<u8> {
        let found = word(&self.tags, (slot - self.first) as usize * SLOT_BYTES)?;
        (found & !0xff == tag(slot, 0)).then_some(found as u8)
    }

    fn record(&self, at: u64, end: u64) -> Taken {
        let Some(kind) = self.tag(at) else { return Taken::Unfinished };
        let Some(event) = Event::from_byte(kind) else { return Taken::Garbage };
        let words: Vec<u64> = (0..WORDS).map_while(|index| self.word(at, index)).collect();
        let [time, place, position, detail, number, who, _] = words[..] else { return Taken::Garbage };
        let length = (who >> 32) as usize;
        if length > MOST_PAYLOAD {
            return Taken::Garbage;
        }
        let parts = 1 + length.div_ceil(WORDS * 8) as u64;
        if at + parts > end {
            return Taken::Cut;
        }
        if !(at + 1..at + parts).all(|slot| self.tag(slot) == Some(MORE)) {
            return Taken::Garbage;
        }
        let behind = (at + 1..at + parts).flat_map(|slot| (0..WORDS).map(move |index| (slot, index)));
        let mut bytes: Vec<u8> =
            behind.filter_map(|(slot, index)| self.word(slot, index)).flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        let record = Record {
            time: Duration::from_nanos(time),
            event,
            place: Place::from_word(place),
            position,
            detail: Detail::from_word(detail),
            number,
            thread: who as u32,
            bytes,
        };
        Taken::Record(Box::new(record), parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots from number 5 on.
    fn slots(list: &[(u8, [u64; WORDS])]) -> Slots {
        let slot = |(number, (event, words)): (u64, &(u8, [u64; WORDS]))| {
            let words = words.iter().flat_map(|word| word.to_ne_bytes());
            tag(number, *event).to_ne_bytes().into_iter().chain(words).collect::<Vec<u8>>()
        };
        let bytes: Vec<u8> = (5..).zip(list).flat_map(slot).collect();
        Slots { first: 5, tags: bytes.clone(), slots: bytes }
    }

    fn place() -> Place {
        Place { channel: 2, slot: 7, generation: 1 }
    }

    #[test]
    fn an_event_is_put_together_from_its_slots() {
        let text = *b"why it is so, in more words than fit into one slot of the ring";
        let part = |from: usize| {
            let mut words = [0u64; WORDS];
            for (word, bytes) in words.iter_mut().zip(text[from..].chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
            words
        };
        let first = [9, place().to_word(), 100, 0, 0, 44 | (text.len() as u64) << 32, 0];
        let found = slots(&[(Event::Reset as u8, first), (MORE, part(0)), (MORE, part(56))]);
        let Taken::Record(record, parts) = found.record(5, 8) else { panic!("no record") };
        assert_eq!((parts, record.place, record.thread, record.position), (3, place(), 44, 100));
        assert_eq!(record.bytes, text);
        assert!(matches!(found.record(5, 7), Taken::Cut));
        assert!(matches!(found.record(6, 8), Taken::Garbage), "a part is no event");
    }

    #[test]
    fn garbage_is_none() {
        let huge = [0, 0, 0, 0, 0, u64::MAX, 0];
        assert!(matches!(slots(&[(Event::Sent as u8, huge)]).record(5, 6), Taken::Garbage));
        assert!(matches!(slots(&[(99, [0; WORDS])]).record(5, 6), Taken::Garbage));
        let mut old = slots(&[(Event::Sent as u8, [0; WORDS])]);
        old.tags[1] = 77;
        assert!(matches!(old.record(5, 6), Taken::Unfinished), "of a round before");
    }
}
