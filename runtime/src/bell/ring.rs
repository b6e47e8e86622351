//! Ringing bells, of other processes for the most part: the descriptors kept for it, and when they are closed.
//! May contain `unsafe`: a ring is a byte written from the stack.

use super::{Session, word};
use crate::inside::Section;
use crate::lock::{self, Mutex};
use crate::process::Identity;
use crate::registry::BELLS;
use crate::shm::waiters::Bells;
use crate::{session, stats, sys, table};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Descriptors to ring bells of other processes, with the owner they were opened for.
static RINGERS: [(AtomicU64, AtomicI32); BELLS] = [const { (AtomicU64::new(0), AtomicI32::new(-1)) }; BELLS];
/// Guards opening and closing of ringers.
static OPENING: Mutex<Opened> = Mutex::new(Opened { count: 0, most: FEW });
/// So many ringers are kept without a look whether their owners live.
const FEW: usize = 16;

/// Ringers that were opened since the last look for those of ended processes, and how many may be before the next. As many as
/// were left then, so that looking costs each ringer the same, however many there are.
struct Opened {
    count: usize,
    most: usize,
}

/// Wakes the sleepers among `bells`. The caller has published its change and passed a SeqCst fence.
#[inline]
pub fn ring_all(bells: Bells) {
    if !bells.is_empty() {
        ring_each(bells);
    }
}

fn ring_each(bells: Bells) {
    // Between the promise to ring and the ring no handler may leave by a jump.
    let _section = Section::new();
    let Some(session) = session::current() else { return };
    let own = session.identity.pid() as u32;
    for number in bells {
        if word(session, number).must_ring(own) {
            ring(session, number);
        }
    }
}

/// Rings without asking whether anybody sleeps.
pub fn ring_surely(number: u16) {
    let Some(session) = session::current() else { return };
    session.registry.bell(number).rung.store(session.identity.pid() as u32, Ordering::SeqCst);
    ring(session, number);
}

#[cold]
fn ring(session: &Session, number: u16) {
    stats::process().doorbells_rung.add(1);
    let owner = session.registry.bell(number).owner.load(Ordering::Relaxed);
    for _ in 0..2 {
        let _ringing = Ringing::begin();
        let Some(fd) = ringer(session, number, owner) else {
            return ring_briefly(session, number);
        };
        // SAFETY: one readable byte.
        match unsafe { sys::write(fd, [1u8].as_ptr(), 1) } {
            Err(libc::EBADF) => RINGERS[number as usize % RINGERS.len()].0.store(0, Ordering::Release),
            _ => break,
        }
    }
    if DUE.load(Ordering::Relaxed) {
        close_those_of_the_dead();
    }
}

/// Threads between looking a ringer up and writing to it: its number is not given away meanwhile.
static RINGING: AtomicU32 = AtomicU32::new(0);

pub(super) struct Ringing {
    /// Left after the count: fields are dropped last.
    _section: Section,
}

impl Ringing {
    pub(super) fn begin() -> Self {
        let section = Section::new();
        RINGING.fetch_add(1, Ordering::SeqCst);
        Self { _section: section }
    }
}

impl Drop for Ringing {
    fn drop(&mut self) {
        RINGING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Without a descriptor to keep: one for a moment, at the cost of a kept one if need be. Should that fail too, the
/// next waker tries again.
fn ring_briefly(session: &Session, number: u16) {
    let path = session.bell_path(number);
    let ring = || {
        sys::with_open(path.as_cstr(), libc::O_RDWR | libc::O_NONBLOCK, 0, |fd| {
            // SAFETY: one readable byte.
            let _ = unsafe { sys::write(fd, [1u8].as_ptr(), 1) };
        })
    };
    let rung = match ring() {
        Err(libc::EMFILE | libc::ENFILE) if drop_ringer() => ring(),
        other => other,
    };
    if rung.is_err() {
        session.registry.bell(number).rung.store(0, Ordering::SeqCst);
    }
}

/// Closes one kept descriptor; false when there is none.
fn drop_ringer() -> bool {
    let guard = OPENING.lock();
    let Some((owner, fd)) = RINGERS.iter().find(|(_, fd)| fd.load(Ordering::Relaxed) >= 0) else {
        return false;
    };
    let dropped = take(owner, fd);
    drop(guard);
    // The caller itself is ringing.
    await_that(|| RINGING.load(Ordering::SeqCst) <= 1);
    table::abandon(dropped);
    true
}

fn ringer(session: &Session, number: u16, owner: u64) -> Option<i32> {
    let (known, fd) = &RINGERS[number as usize % RINGERS.len()];
    if known.load(Ordering::Acquire) == owner {
        return Some(fd.load(Ordering::Relaxed));
    }
    // Read-write, so that a bell without a reader raises no SIGPIPE.
    let path = session.bell_path(number);
    // Before the lock: a number beyond the table makes the kernel wait for all processors.
    let opened = table::make(|| sys::open(path.as_cstr(), libc::O_RDWR | libc::O_NONBLOCK, 0)).ok()?;
    let mut kept = OPENING.lock();
    let old = fd.load(Ordering::Relaxed);
    if old >= 0 && known.load(Ordering::Relaxed) == owner {
        // Another thread has opened it meanwhile.
        table::abandon(opened);
        return Some(old);
    }
    if old >= 0 {
        // The same number: another thread may be about to write to it.
        let moved = sys::dup3(opened, old, libc::O_CLOEXEC);
        table::abandon(opened);
        moved.ok()?;
        known.store(owner, Ordering::Release);
        return Some(old);
    }
    fd.store(opened, Ordering::Relaxed);
    known.store(owner, Ordering::Release);
    kept.count += 1;
    DUE.fetch_or(kept.count >= kept.most, Ordering::Relaxed);
    Some(opened)
}

/// Many ringers were opened since the last look for those of ended processes.
static DUE: AtomicBool = AtomicBool::new(false);

/// Closes ringers whose bells have lost their owners: a process that deals with ever new ones keeps none of them.
fn close_those_of_the_dead() {
    let mut closed = [-1; 4 * FEW];
    let mut kept = OPENING.lock();
    DUE.store(false, Ordering::Relaxed);
    let mut places = closed.iter_mut();
    let mut left = 0;
    for (owner, fd) in RINGERS.iter().filter(|(_, fd)| fd.load(Ordering::Relaxed) >= 0) {
        if Identity(owner.load(Ordering::Relaxed)).alive() {
            left += 1;
        } else if let Some(place) = places.next() {
            *place = take(owner, fd);
        }
    }
    *kept = Opened { count: 0, most: left.max(FEW) };
    drop(kept);
    await_ringing();
    closed.into_iter().filter(|fd| *fd >= 0).for_each(table::abandon);
}

/// Takes a ringer away; its descriptor may be closed once nobody rings who may have looked it up before.
fn take(owner: &AtomicU64, fd: &AtomicI32) -> i32 {
    owner.store(0, Ordering::Release);
    fd.swap(-1, Ordering::SeqCst)
}

pub(super) fn close_ringer(fd: i32) -> bool {
    let guard = OPENING.lock();
    let Some((owner, known)) = RINGERS.iter().find(|(_, known)| known.load(Ordering::Relaxed) == fd) else {
        return false;
    };
    take(owner, known);
    drop(guard);
    await_ringing();
    let _ = sys::close(fd);
    true
}

/// Waits until nobody rings who may have looked a descriptor up before.
pub(super) fn await_ringing() {
    await_that(|| RINGING.load(Ordering::SeqCst) == 0);
}

/// Waits for something that takes other threads microseconds; not for long, should one of them be stopped.
pub(super) fn await_that(done: impl Fn() -> bool) {
    const TURNS: u32 = 2000;
    const NAP_NS: u64 = 50_000;
    for _ in 0..TURNS {
        if done() {
            break;
        }
        sys::sleep_ns(NAP_NS);
    }
}

/// The child has none of the threads that may have held it.
pub(super) fn after_fork_in_child() {
    lock::free_in_child(&OPENING);
}
