//! A TCP connection of this process, from connect or accept on: not yet, or already, on a channel.
//!
//! ```text
//!   Candidate --some calls--> Offered --other end comes--> Promoted
//!       \-------------------- answered an offer ------------/
//!   (any) --rules, options, other host--> forgotten: the table entry goes, the kernel does everything
//! ```
//! Objects are reused, never freed; every use checks the state again under the channel's locks.

mod ends;
mod far;
mod modes;
mod place;

pub use ends::{SocketLayout, anchored};
pub use far::Far;
pub use place::stream_at;

use crate::lock::Mutex;
use crate::position::{self, Opener};
use crate::registry::OfferRef;
use crate::session::SLOW;
use crate::table::{self, Entry};
use crate::{inside, room, stats, sys};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use modes::Modes;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Free = 0,
    Candidate = 1,
    /// A thread is moving it; others wait for the outcome.
    Moving = 2,
    Promoted = 3,
}

/// One connection. All words are process-local; written by the threads of this process.
#[derive(Default)]
pub struct Socket {
    state: AtomicU32,
    /// Descriptors of this process that refer to it.
    pub references: AtomicU32,
    /// One of them.
    pub fd: AtomicI32,
    /// [`Opener`] of the connection.
    opener: AtomicU8,
    /// Calls so far, while a candidate.
    pub calls: AtomicU32,
    /// Threads inside a kernel call on it while it is a candidate, in the lower half; in the upper how often the object was
    /// used, so that a thread that was cancelled inside, or left by a jump, is forgotten with the connection.
    kernel_users: AtomicU64,
    /// Where its stream is: channel in the upper half, slot and generation in the lower. One word, because a stream that
    /// has returned from another host gets another place under the eyes of other threads.
    place: AtomicU64,
    /// The kernel side may have news (end of stream, error, bytes): look before answering "nothing".
    pub hint: AtomicBool,
    /// The peer's end is closed or reset: what is sent goes through the kernel, which knows what to answer.
    pub peer_gone: AtomicBool,
    /// Number of the way to the agent that the last offer went to.
    pub far_way: AtomicU32,
    /// The agent's policy has a limit, which was reached: not to be offered again soon.
    pub limited: AtomicBool,
    /// The agent was asked for a connection within this host.
    pub asked: AtomicBool,
    /// The candidate's options were looked at, because the program wants control data.
    pub options_seen: AtomicBool,
    /// The program has switched TCP_INQ on.
    pub counts_left: AtomicBool,
    /// Something was received since the last send: kept for streams to other hosts.
    pub answered: AtomicBool,
    /// The program has ended what this end sends (shutdown(2)). SeqCst, as is the state: either that thread finds the stream,
    /// or whoever promotes the socket finds this.
    pub shut: AtomicBool,
    /// The stream has returned to the kernel from another host; it may leave it again.
    pub returned: AtomicBool,
    /// The kernel has reported the end of the connection, or of its receiving half.
    pub over: AtomicBool,
    /// When the kernel side was last looked at, in ticks, with [`JUST_HEARD`] in the lowest bit.
    looked: AtomicU64,
    /// Registration in an epoll instance: (instance + 1) << 32 | fd; `MANY` for more than one; 0 none.
    pub watch: AtomicU64,
    /// A note that bytes have come lies in the inbox of the instance that watches it.
    pub told: AtomicBool,
    /// What its file description is set to.
    modes: Modes,
    /// Its two ends, for those who look from outside: see [`Self::note_ends`].
    ends: [AtomicU64; END_WORDS],
    /// The trace that knows its name.
    pub traced_by: AtomicU32,
    /// In how many processes the socket lives, as a forked candidate: index into the holders' page + 1.
    pub holders: AtomicU32,
    /// The offer in the registry, as [`OfferRef::to_word`]; 0 none.
    offer: AtomicU64,
    /// The offer to the agent, as [`Far`], with its number in the upper half. The number changes with each offer.
    far: AtomicU64,
}

/// Words of [`Socket::ends`].
const END_WORDS: usize = 5;

/// More than one epoll instance watches the socket.
pub const MANY: u64 = u64::MAX;

/// How long an answer of the kernel side may be used again: about 100 us.
const LOOK_TICKS: i64 = 250_000;
/// When this process last looked because it was due, in ticks, and how far such looks are apart at least: about 10 us. With hundreds
/// of busy sockets every call would look otherwise.
static LAST_LOOK: AtomicU64 = AtomicU64::new(0);
const LOOKS_APART: i64 = 25_000;
/// Nobody has asked since the peer was heard.
const JUST_HEARD: u64 = 1;
pub const CHUNK: usize = 256;
pub const CHUNKS: usize = 4096;

static SOCKETS: [AtomicPtr<[Socket; CHUNK]>; CHUNKS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS];
/// Free indices and how many were ever made; guarded by [`SLOW`] through the callers.
static FREE: Mutex<(Vec<u32>, u32)> = Mutex::new((Vec::new(), 0));

/// The socket with this index.
#[inline]
pub fn at(index: u32) -> Option<&'static Socket> {
    let chunk = SOCKETS.get(index as usize / CHUNK)?.load(Ordering::Acquire);
    // SAFETY: chunks are leaked boxes or null.
    unsafe { chunk.as_ref() }?.get(index as usize % CHUNK)
}

/// The socket behind a descriptor, with its index.
#[inline]
pub fn of(fd: i32) -> Option<(u32, &'static Socket)> {
    let index = table::socket(fd)?;
    Some((index, at(index)?))
}

/// Begins to follow a connection behind `fd`.
pub fn follow(fd: i32, opener: Opener) -> Option<u32> {
    if inside::in_handler() {
        return None;
    }
    let _slow = SLOW.lock();
    crate::fork::mark_memory();
    stats::process().connections_seen.add(1);
    let index = allocate()?;
    let socket = at(index)?;
    socket.reset(fd);
    socket.set_opener(opener);
    socket.state.store(State::Candidate as u32, Ordering::Release);
    if table::set(fd, Entry::Socket(index)) {
        Some(index)
    } else {
        free(index, socket);
        None
    }
}

fn allocate() -> Option<u32> {
    let mut free = FREE.lock();
    if let Some(index) = free.0.pop() {
        return Some(index);
    }
    let index = free.1;
    let place = SOCKETS.get(index as usize / CHUNK)?;
    if place.load(Ordering::Relaxed).is_null() {
        let chunk: Box<[Socket; CHUNK]> = room::array(|| Some(Socket::default())).ok()?;
        place.store(Box::into_raw(chunk), Ordering::Release);
    }
    // A close, which may be in a signal handler, finds room.
    let (room, made) = (free.0.capacity(), free.1 as usize + 1);
    if room < made {
        free.0.try_reserve(made).ok()?;
    }
    free.1 += 1;
    Some(index)
}

fn free(index: u32, socket: &Socket) {
    if socket.state.swap(State::Free as u32, Ordering::AcqRel) != State::Free as u32 {
        FREE.lock().0.push(index);
    }
}

/// All sockets in use.
pub fn all() -> impl Iterator<Item = (u32, &'static Socket)> {
    let made = FREE.lock().1;
    (0..made)
        .filter_map(|index| at(index).map(|socket| (index, socket)))
        .filter(|(_, s)| s.state() != State::Free)
}

/// One descriptor of this process fewer refers to the socket; true when it was the last.
pub fn dereference(index: u32, socket: &Socket, fd: i32) -> bool {
    if socket.references.fetch_sub(1, Ordering::AcqRel) != 1 {
        if socket.fd.load(Ordering::Relaxed) == fd
            && let Some((other, _)) =
                table::tracked_in(0, u32::MAX).find(|(_, entry)| *entry == Entry::Socket(index))
        {
            socket.fd.store(other, Ordering::Relaxed);
        }
        return false;
    }
    true
}

/// The socket is used no more.
pub fn release(index: u32, socket: &Socket) {
    free(index, socket);
}

impl Socket {
    fn reset(&self, fd: i32) {
        self.fd.store(fd, Ordering::Relaxed);
        self.references.store(1, Ordering::Relaxed);
        let uses = self.kernel_users.load(Ordering::Relaxed) >> 32;
        self.kernel_users.store(uses.wrapping_add(1) << 32, Ordering::SeqCst);
        for word in [&self.calls, &self.holders] {
            word.store(0, Ordering::Relaxed);
        }
        self.hint.store(false, Ordering::Relaxed);
        self.peer_gone.store(false, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
        self.shut.store(false, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
        self.options_seen.store(false, Ordering::Relaxed);
        self.counts_left.store(false, Ordering::Relaxed);
        self.limited.store(false, Ordering::Relaxed);
        self.returned.store(false, Ordering::Relaxed);
        self.looked.store(0, Ordering::Relaxed);
        self.watch.store(0, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        self.offer.store(0, Ordering::Relaxed);
        self.set_far(Far::None);
        for word in &self.ends {
            word.store(0, Ordering::Relaxed);
        }
        self.traced_by.store(0, Ordering::Relaxed);
        self.modes.reset();
    }

    /// Whether something was received since the last call.
    #[inline]
    pub fn take_answered(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        if answered {
            self.answered.store(false, Ordering::Relaxed);
        }
        answered
    }

    #[inline]
    pub fn note_answered(&self) {
        if !self.answered.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    pub fn opener(&self) -> Opener {
        Opener::from_word(self.opener.load(Ordering::Relaxed))
    }

    pub fn set_opener(&self, opener: Opener) {
        self.opener.store(opener as u8, Ordering::Relaxed);
    }

    #[inline]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::SeqCst) {
            1 => State::Candidate,
            2 => State::Moving,
            3 => State::Promoted,
            _ => State::Free,
        }
    }

    /// To Moving, unless another thread was faster.
    pub fn begin_move(&self, from: State) -> bool {
        let (from, to) = (from as u32, State::Moving as u32);
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// A thread goes into a kernel call on the candidate; what to give [`Self::leave_kernel`].
    #[inline]
    pub fn enter_kernel(&self) -> u64 {
        self.kernel_users.fetch_add(1, Ordering::SeqCst) >> 32
    }

    /// It has returned.
    #[inline]
    pub fn leave_kernel(&self, uses: u64) {
        let leave = |users: u64| (users >> 32 == uses).then(|| users - 1);
        let _ = self.kernel_users.fetch_update(Ordering::SeqCst, Ordering::Relaxed, leave);
    }

    /// Whether no thread is inside a kernel call.
    pub fn is_quiet(&self) -> bool {
        self.kernel_users.load(Ordering::SeqCst) as u32 == 0
    }

    /// Ends the move: back, or promoted.
    pub fn end_move(&self, to: State) {
        self.state.store(to as u32, Ordering::SeqCst);
    }

    /// Bytes came from the peer at that time, in ticks: it was there, and the next question whether to look need not read the clock.
    #[inline]
    pub fn note_peer(&self, now: u64) {
        self.looked.store(now | JUST_HEARD, Ordering::Relaxed);
    }

    /// Whether the kernel side was not looked at for a while (about 100 us); then it counts as looked at now.
    #[inline]
    pub fn look_due(&self) -> bool {
        let looked = self.looked.load(Ordering::Relaxed);
        if looked & JUST_HEARD != 0 {
            self.looked.store(looked & !JUST_HEARD, Ordering::Relaxed);
            return false;
        }
        self.look_due_at(position::ticks())
    }

    /// The same at that time, in ticks.
    #[inline]
    pub fn look_due_at(&self, now: u64) -> bool {
        // Another thread's look may be later than `now`.
        let since = |look: &AtomicU64| now.wrapping_sub(look.load(Ordering::Relaxed)) as i64;
        let due = since(&self.looked) > LOOK_TICKS && since(&LAST_LOOK) > LOOKS_APART;
        if due {
            self.looked.store(now, Ordering::Relaxed);
            LAST_LOOK.store(now, Ordering::Relaxed);
        }
        due
    }

    /// Promoted, and nothing else is to be done before a call on its stream.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.state() == State::Promoted && !self.returned.load(Ordering::Relaxed)
    }

    pub fn offer(&self) -> Option<OfferRef> {
        OfferRef::from_word(self.offer.load(Ordering::Acquire))
    }

    /// Whether an offer of the connection waits for its other end, or its answer to be acted upon.
    pub fn is_offered(&self) -> bool {
        self.offer().is_some() || self.far() != Far::None
    }

    pub fn set_offer(&self, offer: OfferRef) {
        self.offer.store(offer.to_word(), Ordering::Release);
    }

    /// In a forked child: the offer is the parent's.
    pub fn forget_offer(&self) {
        self.offer.store(0, Ordering::Release);
        self.set_far(Far::None);
    }

    /// Whether the offer was still there: one of several threads gets to act on its outcome.
    pub fn take_offer(&self, offer: OfferRef) -> bool {
        self.offer.compare_exchange(offer.to_word(), 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Whether a new descriptor is a TCP socket (SO_DOMAIN, SO_PROTOCOL of socket(7)).
pub fn is_tcp(fd: i32) -> bool {
    let option = |name: i32| sys::option(fd, libc::SOL_SOCKET, name);
    option(libc::SO_PROTOCOL) == Ok(libc::IPPROTO_TCP)
        && matches!(option(libc::SO_DOMAIN), Ok(libc::AF_INET | libc::AF_INET6))
}

/// In a forked child: nobody else is at it.
pub fn after_fork_in_child() {
    crate::lock::free_in_child(&FREE);
}
