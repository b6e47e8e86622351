//! What `convoy trace` shows: events of this process's streams, written to a ring that a reader outside follows.
//!
//! Off, it costs a load and a branch where the event is counted anyway: the switch lies on the line of the lane's counters
//! ([`crate::stats::LaneCounters::is_traced`]). On, the process writes and never waits for the reader; what is overwritten before it
//! was read is lost, and the reader says how much. A reader that dies is noticed by the time it set.
//!
//! Lives here: one function per event. Not here: the ring (`trace::ring`), its layout (`trace::wire`).
//! May contain `unsafe`: it copies payload that its caller has checked.

mod ring;
pub mod wire;

use crate::channel::Channel;
use crate::socket::{self, Socket};
use crate::{log, stats, sys, table};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};
use ring::Ring;
use wire::{Detail, Event, MOST_PAYLOAD, NAME_BYTES, Place, WORDS};

/// The ring; null before the first trace.
static RING: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Its descriptor, for the reader; -1 = none.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
static MAKING: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const BEGUN: u8 = 1;
const FAILED: u8 = 2;

/// A frame, as the events have it.
pub struct Frame {
    pub kind: convoy_aggregator::wire::Kind,
    /// Bytes of the stream on the channel before it.
    pub position: u64,
    pub length: u32,
    /// Its bytes, readable for `length`.
    pub payload: *const u8,
}

/// An event on its way into the ring.
struct Entry {
    event: Event,
    place: Place,
    position: u64,
    detail: Detail,
    number: u64,
}

impl Channel {
    /// Whether somebody wants to know of events on this channel.
    #[inline]
    pub fn is_traced(&self) -> bool {
        stats::lane(self.index as usize).is_traced()
    }

    /// A frame was put into the lane (`sent`) or taken out of it.
    #[cold]
    pub fn trace_frame(&self, sent: bool, slot: u32, generation: u8, frame: &Frame) {
        let event = if sent { Event::Sent } else { Event::Received };
        let wanted = stats::control().payload.load(Ordering::Relaxed) as usize;
        let mut bytes = [0u8; MOST_PAYLOAD];
        let kept = wanted.min(MOST_PAYLOAD).min(frame.length as usize);
        // SAFETY: the payload is readable for its length, the array for MOST_PAYLOAD.
        unsafe { core::ptr::copy_nonoverlapping(frame.payload, bytes.as_mut_ptr(), kept) };
        let entry = self.entry(event, slot, generation).at(frame.position);
        let detail = Detail { length: frame.length, kind: frame.kind as u8, ..entry.detail };
        self.write(Entry { detail, ..entry }, bytes.get(..kept).unwrap_or_default());
    }

    /// This end has announced (`announced`) or followed a switch.
    #[cold]
    pub fn trace_switch(&self, announced: bool, slot: u32, generation: u8, number: u32, position: u64) {
        let event = if announced { Event::Switch } else { Event::Followed };
        let entry = self.entry(event, slot, generation).at(position);
        let detail = Detail { kind: (number & 1) as u8, ..entry.detail };
        self.write(Entry { detail, number: u64::from(number), ..entry }, &[]);
    }

    /// This end lets the other send up to `limit`.
    #[cold]
    pub fn trace_credit(&self, slot: u32, generation: u8, limit: u64) {
        self.write(self.entry(Event::Credit, slot, generation).at(limit), &[]);
    }

    /// So many bytes went through the kernel.
    #[cold]
    pub fn trace_kernel(&self, sent: bool, slot: u32, generation: u8, bytes: usize) {
        let entry =
            self.entry(if sent { Event::KernelSent } else { Event::KernelReceived }, slot, generation);
        let detail = Detail { length: u32::try_from(bytes).unwrap_or(u32::MAX), ..entry.detail };
        self.write(Entry { detail, ..entry }, &[]);
    }

    /// A stream begins.
    #[cold]
    pub fn trace_open(&self, slot: u32, generation: u8) {
        self.write(self.entry(Event::Open, slot, generation), &[]);
    }

    /// This end of a stream ends; `unread` when bytes were dropped.
    #[cold]
    pub fn trace_close(&self, slot: u32, generation: u8, unread: bool) {
        let entry = self.entry(Event::Close, slot, generation);
        let detail = Detail { kind: u8::from(unread), ..entry.detail };
        self.write(Entry { detail, ..entry }, &[]);
    }

    /// A stream returns to the kernel for good.
    #[cold]
    pub fn trace_demote(&self, slot: u32, generation: u8, why: &str) {
        self.write(self.entry(Event::Demote, slot, generation), why.as_bytes());
    }

    /// A stream is reset; with [`Place::NO_SLOT`] all streams of the channel.
    #[cold]
    pub fn trace_reset(&self, slot: u32, generation: u8, why: &str) {
        self.write(self.entry(Event::Reset, slot, generation), why.as_bytes());
    }

    fn entry(&self, event: Event, slot: u32, generation: u8) -> Entry {
        let place = Place { channel: self.index, slot, generation };
        let descriptor = self.socket(slot).map_or(0, |socket| socket.fd.load(Ordering::Relaxed) as u16);
        let detail = Detail { descriptor, ..Detail::default() };
        Entry { event, place, position: 0, detail, number: 0 }
    }

    fn socket(&self, slot: u32) -> Option<&'static Socket> {
        self.socket_of(slot).checked_sub(1).and_then(socket::at)
    }

    fn write(&self, entry: Entry, bytes: &[u8]) {
        let control = stats::control();
        let now = sys::now_ns();
        if now >= control.until.load(Ordering::Relaxed) {
            return end();
        }
        let Some(ring) = ring() else { return };
        let session = control.session.load(Ordering::Relaxed) as u32;
        if let Some(socket) = self.socket(entry.place.slot)
            && socket.traced_by.swap(session, Ordering::Relaxed) != session
        {
            let Place { slot, generation, .. } = entry.place;
            let name = self.entry(Event::Name, slot, generation);
            let name = Entry { number: self.peer.pid() as u64, ..name };
            put(ring, now, &name, &socket.ends_bytes());
        }
        put(ring, now, &entry, bytes);
    }
}

impl Entry {
    fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }
}

fn put(ring: Ring, now: u64, entry: &Entry, bytes: &[u8]) {
    let thread = sys::gettid() as u32;
    let words: [u64; WORDS] = [
        now,
        entry.place.to_word(),
        entry.position,
        entry.detail.to_word(),
        entry.number,
        u64::from(thread) | (bytes.len() as u64) << 32,
        0,
    ];
    ring.put(entry.event as u8, words, bytes);
}

/// The ring, made for the first event.
fn ring() -> Option<Ring> {
    let base = RING.load(Ordering::Acquire);
    if !base.is_null() {
        let control = stats::control();
        if control.descriptor.load(Ordering::Relaxed) == 0 {
            control.descriptor.store(DESCRIPTOR.load(Ordering::Relaxed) as u64 + 1, Ordering::Release);
        }
        return Some(Ring::at(base));
    }
    if MAKING.compare_exchange(NONE, BEGUN, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return None;
    }
    let hand = sys::hand();
    let made = Ring::create().and_then(|(ring, fd)| Ok((ring, table::adopt(fd)?)));
    drop(hand);
    match made {
        Ok((ring, fd)) => {
            DESCRIPTOR.store(fd, Ordering::Relaxed);
            stats::control().descriptor.store(fd as u64 + 1, Ordering::Release);
            RING.store(ring.base().cast_mut(), Ordering::Release);
            Some(ring)
        }
        Err(errno) => {
            MAKING.store(FAILED, Ordering::Relaxed);
            stats::control().descriptor.store(u64::MAX, Ordering::Relaxed);
            crate::log_warn!("no memory for the events of a trace: {}", log::Reason(errno));
            end();
            None
        }
    }
}

/// The reader's time is over.
fn end() {
    stats::traced().for_each(|lane| lane.traced.store(0, Ordering::Relaxed));
    let base = RING.load(Ordering::Acquire);
    if !base.is_null() {
        Ring::at(base).give_back();
    }
}

/// The program wants the number of the ring's descriptor.
pub fn moved(fd: i32) -> bool {
    if DESCRIPTOR.load(Ordering::Relaxed) != fd {
        return false;
    }
    let Ok(moved) = table::copy_behind(fd) else { return false };
    DESCRIPTOR.store(moved, Ordering::Relaxed);
    stats::control().descriptor.store(moved as u64 + 1, Ordering::Release);
    sys::close(fd).is_ok()
}

/// The ring is the parent's: the child makes its own when somebody wants its events.
pub fn after_fork_in_child() {
    RING.store(core::ptr::null_mut(), Ordering::Relaxed);
    let fd = DESCRIPTOR.swap(-1, Ordering::Relaxed);
    if fd >= 0 {
        table::abandon(fd);
    }
    MAKING.store(NONE, Ordering::Relaxed);
}

const _: () = assert!(NAME_BYTES <= MOST_PAYLOAD);
