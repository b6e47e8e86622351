//! A minimal ring in shared memory: one producer, one consumer, messages of 64 bytes. May contain `unsafe`: it maps a
//! file that two processes share.
//!
//! It knows nothing of waiting, of sockets or of a peer that lies; it is what two processes could do at best.

use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::hint::spin_loop;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Messages that a lane has room for: 256 KiB, as much as a lane of Convoy.
const PLACES: usize = 4096;
/// Looks in vain between two offers of the processor, for machines that have only one.
const LOOKS: u32 = 1 << 12;

/// One message: eight words, a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Message([u64; 8]);

impl Message {
    /// The message of that number, which is in all its words.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(std::array::from_fn(|word| number ^ word as u64))
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.0[0]
    }
}

/// A count of messages, alone on its cache line and on the one that is fetched with it.
#[repr(C, align(128))]
struct Cursor(AtomicU64);

/// One direction.
#[repr(C)]
struct Lane {
    /// Messages published; the producer's.
    tail: Cursor,
    /// Messages taken; the consumer's.
    head: Cursor,
    places: [UnsafeCell<Message>; PLACES],
}

/// Both directions, as they lie in the file.
#[repr(C)]
struct Lanes {
    to_server: Lane,
    to_client: Lane,
}

/// A mapped file with two lanes. It stays mapped as long as the process lives.
pub struct Rings(&'static Lanes);

// SAFETY: a place is written only by the one producer before it is published, and read only by the one consumer
// afterwards, until that has given it back; `server` and `client` consume `self`, so a process has one of each.
unsafe impl Sync for Lanes {}

impl Rings {
    /// Makes the file: empty lanes.
    ///
    /// # Errors
    /// What making, resizing or mapping gives.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(size_of::<Lanes>() as u64)?;
        Self::map(&file)
    }

    /// Opens what the other process has made.
    ///
    /// # Errors
    /// What opening or mapping gives.
    pub fn open(path: &Path) -> Result<Self> {
        Self::map(&OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn map(file: &File) -> Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping of a live descriptor, where the kernel likes it.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), size_of::<Lanes>(), access, flags, file.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // SAFETY: the mapping is page-aligned, as large as Lanes and never unmapped; zeroes are empty lanes, and the only
        // memory that changes under the reference is atomic or in an UnsafeCell.
        Ok(Self(unsafe { &*memory.cast::<Lanes>() }))
    }

    /// The server's ends.
    #[must_use]
    pub fn server(self) -> (Reader, Writer) {
        (Reader::of(&self.0.to_server), Writer::of(&self.0.to_client))
    }

    /// The client's ends.
    #[must_use]
    pub fn client(self) -> (Reader, Writer) {
        (Reader::of(&self.0.to_client), Writer::of(&self.0.to_server))
    }
}

/// The producer of a lane.
pub struct Writer {
    lane: &'static Lane,
    tail: u64,
    /// The consumer's cursor when it was last looked at, which is only done when the lane seems full.
    head_seen: u64,
}

impl Writer {
    fn of(lane: &'static Lane) -> Self {
        Self { lane, tail: 0, head_seen: 0 }
    }

    /// Writes and publishes one message, when there is room for it.
    pub fn put(&mut self, message: &Message) {
        if self.tail - self.head_seen == PLACES as u64 {
            self.head_seen = await_change(&self.lane.head, self.head_seen);
        }
        let place = &self.lane.places[self.tail as usize % PLACES];
        // SAFETY: the consumer has given this place back and does not look at it before it is published.
        unsafe { place.get().write(*message) };
        self.tail += 1;
        self.lane.tail.0.store(self.tail, Ordering::Release);
    }
}

/// The consumer of a lane.
pub struct Reader {
    lane: &'static Lane,
    head: u64,
}

impl Reader {
    fn of(lane: &'static Lane) -> Self {
        Self { lane, head: 0 }
    }

    /// Waits for the next message, takes it and gives its place back.
    pub fn take_one(&mut self) -> Message {
        await_change(&self.lane.tail, self.head);
        let message = self.message(self.head);
        self.give_back(self.head + 1);
        message
    }

    /// Waits for messages, hands all that are there to `each` until it gives true, and gives their places back at once.
    pub fn take_all(&mut self, mut each: impl FnMut(Message) -> bool) -> bool {
        let tail = await_change(&self.lane.tail, self.head);
        let over = (self.head..tail).any(|number| each(self.message(number)));
        self.give_back(tail);
        over
    }

    fn message(&self, number: u64) -> Message {
        // SAFETY: published, as await_change has seen, and not given back yet: the producer does not touch it.
        unsafe { self.lane.places[number as usize % PLACES].get().read() }
    }

    fn give_back(&mut self, head: u64) {
        self.head = head;
        self.lane.head.0.store(head, Ordering::Release);
    }
}

/// Looks until the other side's cursor is no longer `known`.
fn await_change(cursor: &Cursor, known: u64) -> u64 {
    let mut looks = 0_u32;
    loop {
        let now = cursor.0.load(Ordering::Acquire);
        if now != known {
            return now;
        }
        spin_loop();
        looks += 1;
        if looks.is_multiple_of(LOOKS) {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, PLACES, Rings};

    #[test]
    fn messages_come_in_order_around_the_ring() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let (mut reader, _) = Rings::create(&path).unwrap().server();
        let (_, mut writer) = Rings::open(&path).unwrap().client();
        let mut expected = 0;
        for _ in 0..3 {
            (0..PLACES as u64 - 1).for_each(|number| writer.put(&Message::new(expected + number)));
            assert_eq!(reader.take_one(), Message::new(expected));
            expected += 1;
            reader.take_all(|message| {
                assert_eq!(message, Message::new(expected));
                expected += 1;
                false
            });
        }
        assert_eq!(expected, 3 * (PLACES as u64 - 1));
    }
}
