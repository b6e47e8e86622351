//! fork: what the child shares with its parent, and what it must forget.
//!
//! Promoted streams live in shared memory with their locks, so both sides simply go on. A connection that is not
//! promoted yet may only be promoted by a process that holds it alone: a shared count per such socket says in
//! how many processes it lives. A holder that is killed is never subtracted; the connection then stays with the
//! kernel, which is always right.

use crate::session::{self, SLOW};
use crate::shm::lock;
use crate::socket::{self, Socket, State};
use crate::{agent, bell, channel, confine, epoll, flusher, memory, process, stats, sys, trace};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

const HOLDERS: usize = 1 << 16;

/// Counts of processes, in memory shared by the family; null before the first fork that needs it.
static PAGE: AtomicPtr<[AtomicU32; HOLDERS]> = AtomicPtr::new(core::ptr::null_mut());

fn page() -> Option<&'static [AtomicU32; HOLDERS]> {
    // SAFETY: null or a shared mapping that is never removed.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// Whether another process may hold this candidate.
pub fn held_elsewhere(socket: &Socket) -> bool {
    match (socket.holders.load(Ordering::Relaxed), page()) {
        (0, _) | (_, None) => false,
        (index, Some(page)) => page[index as usize - 1].load(Ordering::Acquire) > 1,
    }
}

/// This process gives the socket up.
pub fn drop_holder(socket: &Socket) {
    if let (index @ 1.., Some(page)) = (socket.holders.swap(0, Ordering::Relaxed), page()) {
        page[index as usize - 1].fetch_sub(1, Ordering::Release);
    }
}

/// Takes the locks that the child must find free, and counts the child as a holder.
pub fn before() {
    channel::hold::release_all();
    core::mem::forget(SLOW.lock());
    flusher::THREAD.pause();
    agent::listener::THREAD.pause();
    agent::failover::end_all();
    epoll::lock_all();
    for (index, socket) in socket::all() {
        match socket.state() {
            State::Promoted => {
                if let Some((channel, slot)) = socket.stream() {
                    channel::note_fork();
                    channel.party.stream(slot).holders.fetch_add(1, Ordering::AcqRel);
                    socket.forget_modes();
                    socket.leave_cork(socket.fd.load(Ordering::Relaxed));
                }
            }
            _ => add_holder(index, socket),
        }
    }
}

fn add_holder(index: u32, socket: &Socket) {
    if page().is_none()
        && let Ok(base) = sys::map_shared(-1, HOLDERS * size_of::<AtomicU32>())
    {
        PAGE.store(base.cast(), Ordering::Release);
    }
    let Some(page) = page() else { return };
    match socket.holders.load(Ordering::Relaxed) {
        0 => {
            let Some(free) = page
                .iter()
                .position(|count| count.compare_exchange(0, 2, Ordering::AcqRel, Ordering::Relaxed).is_ok())
            else {
                // No place: it stays with the kernel for good.
                socket.calls.store(0, Ordering::Relaxed);
                return;
            };
            socket.holders.store(free as u32 + 1, Ordering::Relaxed);
        }
        held => {
            page[held as usize - 1].fetch_add(1, Ordering::AcqRel);
        }
    }
    let _ = index;
}

/// In the parent, also when fork failed.
pub fn after_in_parent() {
    flusher::THREAD.go_on();
    agent::listener::THREAD.go_on();
    epoll::unlock_all();
    // SAFETY: taken in `before` by this thread and forgotten.
    unsafe { SLOW.force_unlock() };
}

/// There is no child after all.
pub fn failed() {
    let _slow = SLOW.lock();
    socket::all().for_each(|(_, socket)| change_holders(socket, false));
}

/// One process more or less holds a socket that was there before a fork.
pub fn change_holders(socket: &Socket, more: bool) {
    let count = match (socket.state(), socket.stream(), socket.holders.load(Ordering::Relaxed), page()) {
        (State::Promoted, Some((channel, slot)), ..) => &channel.party.stream(slot).holders,
        (_, _, index @ 1.., Some(page)) => &page[index as usize - 1],
        _ => return,
    };
    let changed = |holders: u32| if more { holders.checked_add(1) } else { holders.checked_sub(1) };
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, changed);
}

/// In the child: its own identity, bells and counters; the parent's offers are not its own.
pub fn after_in_child() {
    flusher::THREAD.go_on();
    agent::listener::THREAD.go_on();
    epoll::unlock_all();
    // SAFETY: taken in `before` by the thread this one continues.
    unsafe { SLOW.force_unlock() };
    become_child();
}

fn become_child() {
    sys::empty_hand_in_child();
    lock::after_fork_in_child();
    socket::after_fork_in_child();
    channel::after_fork_in_child();
    epoll::after_fork_in_child();
    KNOWN_PID.store(sys::getpid(), Ordering::Relaxed);
    flusher::after_fork_in_child();
    agent::after_fork_in_child();
    let mark = MARK.load(Ordering::Acquire);
    if !mark.is_null() {
        // SAFETY: a private page of this process, never unmapped.
        unsafe { mark.write_volatile(1) };
    }
    stats::after_fork_in_child();
    memory::after_fork_in_child();
    trace::after_fork_in_child();
    if process::own() == process::Identity::NOBODY {
        return;
    }
    for (_, socket) in socket::all() {
        socket.forget_offer();
    }
    let network = session::current().map_or(0, |session| session.network);
    bell::after_fork_in_child();
    session::after_fork_in_child();
    let _slow = SLOW.lock();
    if channel::all().any(|channel| channel.streams.load(Ordering::Relaxed) > 0) {
        session::join(network);
    }
}

/// At exit: candidates are given up, which those who inherited them may then promote.
pub fn at_exit() {
    for (_, socket) in socket::all() {
        drop_holder(socket);
    }
}

/// Process id at load or since the last fork that was seen; 0 before.
static KNOWN_PID: AtomicI32 = AtomicI32::new(0);
/// A page that a forked child sees as zeros while a vfork child sees its parent's; null when there is none.
static MARK: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// At load. fork's own handlers are used, so that handlers that others register find no lock held: those that were
/// registered first come last before the fork, and first after it (pthread_atfork(3)).
pub fn start() {
    KNOWN_PID.store(sys::getpid(), Ordering::Relaxed);
    // SAFETY: functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// [`before`] was called by the thread that forks.
static PREPARED: AtomicBool = AtomicBool::new(false);

extern "C" fn prepare() {
    if !confine::confined() && !in_vfork_child() {
        before();
        PREPARED.store(true, Ordering::Relaxed);
    }
}

extern "C" fn parent() {
    if PREPARED.swap(false, Ordering::Relaxed) {
        after_in_parent();
    }
}

extern "C" fn child() {
    if PREPARED.swap(false, Ordering::Relaxed) {
        after_in_child();
    }
}

/// Marks this memory as this process's own; with the first socket.
pub fn mark_memory() {
    if MARK.load(Ordering::Relaxed).is_null()
        && let Ok(page) = sys::wipe_on_fork_page()
    {
        // SAFETY: a new private page.
        unsafe { page.write_volatile(1) };
        MARK.store(page, Ordering::Release);
    }
}

/// True in a child that shares its parent's memory (vfork, posix_spawn's helper): nothing may be changed there.
pub fn in_vfork_child() -> bool {
    let pid = sys::getpid();
    if pid == KNOWN_PID.load(Ordering::Relaxed) {
        return false;
    }
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return true;
    }
    // SAFETY: the page is never unmapped.
    if unsafe { mark.read_volatile() } == 1 {
        return true;
    }
    // A fork that no hook saw: this memory is a copy.
    become_child();
    false
}
