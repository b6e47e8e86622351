//! Bells: how a sleeping thread is woken by another process.
//!
//! A bell is a FIFO in the user's directory with a record in the registry. Whoever sleeps puts the bell's number
//! where its wakers look (a stream's waiters) and sleeps in the kernel's poll with the FIFO in the set. When to ring
//! and when not is in `shm::bell_word`; a ring costs one write, and only the first waker after a look pays it. Here are the
//! bells of this process; ringing those of others is in `bell::ring`.
//! May contain `unsafe`: FIFOs are read into the stack.

mod ring;

use crate::lock::{Mutex, free_in_child};
use crate::process;
use crate::registry::BELLS;
use crate::session::{self, Session};
use crate::shm::bell_word::{self, BellWord};
use crate::{inside, sys, table};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering, fence};
use ring::Ringing;

pub use ring::{ring_all, ring_surely};

/// A bell of this process.
#[derive(Debug)]
pub struct Bell {
    pub number: u16,
}

/// The FIFOs of this process's bells by number, -1 for none. Written by whoever makes a bell, moves its descriptor or
/// ends it.
static FIFOS: [AtomicI32; BELLS] = [const { AtomicI32::new(-1) }; BELLS];

/// Rings taken as edges, by number of the bell.
static EDGES: [AtomicU32; BELLS] = [const { AtomicU32::new(0) }; BELLS];
/// After so many the FIFO is read, long before it is full.
const EDGES_PER_READ: u32 = 256;

/// Bells not in use at the moment.
static POOL: Mutex<Vec<Bell>> = Mutex::new(Vec::new());

impl Bell {
    /// A bell to keep, or nothing when descriptors or numbers run out.
    pub fn create() -> Option<Self> {
        let kept = POOL.lock().pop();
        // Without the lock: a number beyond the table of descriptors makes the kernel wait for all processors.
        kept.or_else(Self::make)
    }

    fn make() -> Option<Self> {
        let session = session::current()?;
        let number = session.registry.claim_bell(session.identity)?;
        match Self::open_fifo(session, number) {
            Ok(fd) => {
                fifo(number).store(fd, Ordering::Release);
                Some(Self { number })
            }
            Err(_) => {
                session.registry.bell(number).owner.store(0, Ordering::Release);
                None
            }
        }
    }

    fn open_fifo(session: &Session, number: u16) -> sys::Answer<i32> {
        let path = session.bell_path(number);
        let _ = sys::unlink(path.as_cstr());
        sys::mkfifo(path.as_cstr(), 0o600)?;
        table::make(|| sys::open(path.as_cstr(), libc::O_RDWR | libc::O_NONBLOCK, 0))
    }

    /// Whether the bell is of this process, not its parent's.
    pub fn is_ours(&self) -> bool {
        session::current().is_some_and(|session| {
            session.registry.bell(self.number).owner.load(Ordering::Relaxed) == session.identity.0
        })
    }

    /// The descriptor to be polled.
    pub fn fd(&self) -> i32 {
        fifo(self.number).load(Ordering::Acquire)
    }

    /// Counts this thread as asleep. What it looks at next is ordered after this.
    pub fn doze(&self) {
        if let Some(session) = session::current() {
            words(session, self.number).for_each(BellWord::doze);
        }
    }

    /// As many threads sleep by the bell as the owner of a kept bell has counted.
    pub fn set_sleepers(&self, count: u32) {
        if let Some(session) = session::current() {
            words(session, self.number).for_each(|word| word.sleepers.store(count, Ordering::SeqCst));
        }
    }

    /// Ends the sleep: no ring is owed any more, rings that came are taken. `readable` when poll said so.
    pub fn wake(&self, readable: bool) {
        if let Some(session) = session::current().filter(|_| self.is_ours()) {
            bell_word::wake(words(session, self.number), readable, || self.empty());
        }
    }

    /// The same for a bell that is watched edge-triggered, where a ring is news whether others are still in the FIFO or not: that is
    /// emptied now and then.
    pub fn wake_by_edge(&self) {
        if let Some(session) = session::current().filter(|_| self.is_ours()) {
            bell_word::wake(words(session, self.number), false, || self.empty_at_times());
        }
    }

    /// Whether a ring is on its way, or has come and was not taken.
    pub fn is_rung(&self) -> bool {
        let rung = |word: BellWord<'_>| word.rung.load(Ordering::SeqCst) != 0;
        session::current().is_some_and(|session| words(session, self.number).any(rung))
    }

    /// A ring has come, as an edge. To be followed by a look for work.
    pub fn take_edge(&self) {
        if let Some(session) = session::current() {
            bell_word::take_rings(words(session, self.number), true, || self.empty_at_times());
        }
    }

    fn empty_at_times(&self) {
        let count = EDGES[self.number as usize % BELLS].fetch_add(1, Ordering::Relaxed);
        if count % EDGES_PER_READ == EDGES_PER_READ - 1 {
            self.empty();
        }
    }

    /// Empties the FIFO and lets the next waker ring again. To be followed by a look for work.
    pub fn take_rings(&self, rung: bool) {
        if let Some(session) = session::current() {
            bell_word::take_rings(words(session, self.number), rung, || self.empty());
        }
    }

    fn empty(&self) {
        let _ringing = Ringing::begin();
        let mut bytes = [0u8; EDGES_PER_READ as usize * 2];
        // SAFETY: the buffer is writable.
        while unsafe { sys::read(self.fd(), bytes.as_mut_ptr(), bytes.len()) } == Ok(bytes.len()) {}
    }

    /// Ends the use of a kept bell. The bell itself goes on: wakers keep its FIFO open, and would ring that one
    /// if this process made another under the same number.
    pub fn destroy(self) {
        if self.is_ours() {
            self.set_sleepers(0);
            POOL.lock().push(self);
        } else {
            // Inherited through fork: it is the parent's.
            self.abandon();
        }
    }

    fn remove(self, session: &Session) {
        let _ = sys::unlink(session.bell_path(self.number).as_cstr());
        session.registry.bell(self.number).owner.store(0, Ordering::Release);
        self.abandon();
    }

    fn abandon(&self) {
        table::abandon(fifo(self.number).swap(-1, Ordering::AcqRel));
    }
}

/// A bell borrowed for one sleep. A thread borrows one at a time: a sleep in a signal handler shares that of the sleep
/// it interrupts, and after a sleep that a handler has left by siglongjmp the thread keeps its bell.
pub struct Borrowed {
    bell: Bell,
    shared: bool,
}

impl Borrowed {
    /// Nothing when descriptors or numbers run out.
    pub fn new() -> Option<Self> {
        let own = inside::bell();
        let noted = own.load(Ordering::Relaxed);
        if noted != 0 {
            return Some(Self { bell: Bell { number: noted as u16 }, shared: true });
        }
        let bell = Bell::create()?;
        sys::leaves();
        own.store(u64::from(bell.number), Ordering::Relaxed);
        Some(Self { bell, shared: false })
    }

    pub fn give_back(self) {
        if !self.is_ours() {
            // A fork in a handler: the sleep goes on in the child, the bell is the parent's.
            return;
        }
        if self.shared {
            // The sleep below may have lost its rings to this one.
            ring_surely(self.number);
        } else {
            inside::bell().store(0, Ordering::Relaxed);
            POOL.lock().push(self.bell);
        }
    }
}

/// A thread ends that was cancelled, or jumped away, out of a sleep: others may have its bell.
pub extern "C" fn at_thread_end(_: *mut core::ffi::c_void) {
    let noted = inside::bell().swap(0, Ordering::Relaxed);
    if noted != 0 {
        POOL.lock().push(Bell { number: noted as u16 });
    }
}

impl core::ops::Deref for Borrowed {
    type Target = Bell;

    fn deref(&self) -> &Bell {
        &self.bell
    }
}

fn fifo(number: u16) -> &'static AtomicI32 {
    &FIFOS[number as usize % BELLS]
}

fn word(session: &Session, number: u16) -> BellWord<'_> {
    let record = session.registry.bell(number);
    BellWord { sleepers: &record.sleepers, rung: &record.rung }
}

/// The bell of this process for those who find it in the registry, and for its agent.
fn words(session: &Session, number: u16) -> impl Iterator<Item = BellWord<'_>> + Clone {
    let for_agent = session.bells.map(|(page, _)| page.word(number));
    core::iter::once(word(session, number)).chain(for_agent)
}

/// The child's bells are its own: those of the parent stay with the parent.
pub fn after_fork_in_child() {
    inside::bell().store(0, Ordering::Relaxed);
    free_in_child(&POOL);
    ring::after_fork_in_child();
    for bell in core::mem::take(&mut *POOL.lock()) {
        bell.abandon();
    }
}

/// Removes the files of this process's idle bells at exit.
pub fn at_exit() {
    if process::own() == process::Identity::NOBODY {
        return;
    }
    let Some(session) = session::current() else { return };
    for bell in core::mem::take(&mut *POOL.lock()) {
        bell.remove(session);
    }
}

/// A descriptor of this module is wanted by the program: ringers are closed and opened again when needed, bells move.
pub fn moved(fd: i32) -> bool {
    ring::close_ringer(fd) || move_fifo(fd)
}

/// The FIFO stays the same. Whoever sleeps on it is woken to learn its new number: the kernel's poll looks the number up
/// again at each of its own wake-ups.
fn move_fifo(fd: i32) -> bool {
    let Some((number, fifo)) = FIFOS.iter().enumerate().find(|(_, fifo)| fifo.load(Ordering::Relaxed) == fd)
    else {
        return false;
    };
    let Ok(moved) = table::copy_behind(fd) else { return false };
    fifo.store(moved, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    if let Some(session) = session::current()
        && session.registry.bell(number as u16).sleepers.load(Ordering::SeqCst) != 0
    {
        ring_surely(number as u16);
        ring::await_that(|| session.registry.bell(number as u16).rung.load(Ordering::SeqCst) == 0);
    }
    ring::await_ringing();
    true
}
