//! epoll: the program's instance stays a real one and holds what the kernel serves; promoted streams live in a
//! list of this process with a ready queue.
//!
//! The kernel instance of the program contains one more descriptor, the *inner* instance, with the bell and the
//! idle kernel connections (lifelines) of the promoted streams. So a thread in the kernel's epoll_wait is woken
//! for everything, and programs that hand their epoll descriptor to poll or to another epoll keep working.
//!
//! `epoll::control` is epoll_ctl, `epoll::wait` is epoll_wait, `epoll::instance` the state.

mod control;
pub mod instance;
mod wait;

pub use control::control;
pub use wait::{doze_for_poll, ready, sort_all, wait};

use crate::channel::Channel;
use crate::lock::Mutex;
use crate::room;
use crate::socket::{self, MANY, Socket};
use crate::table::{self, Entry};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use instance::{Instance, Notes};

const MAX_INSTANCES: usize = 4096;
static INSTANCES: [AtomicPtr<Instance>; MAX_INSTANCES] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_INSTANCES];
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Indices of instances whose descriptor is closed.
static FREE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The instance with this index.
#[inline]
pub fn at(index: u32) -> Option<&'static Instance> {
    // SAFETY: leaked boxes or null.
    unsafe { INSTANCES.get(index as usize)?.load(Ordering::Acquire).as_ref() }
}

fn all() -> impl Iterator<Item = (u32, &'static Instance)> {
    let count = COUNT.load(Ordering::Acquire).min(MAX_INSTANCES as u32);
    (0..count).filter_map(|index| at(index).map(|instance| (index, instance)))
}

/// The kernel has made an epoll instance.
pub fn follow(fd: i32) {
    if let Some(index) = FREE.lock().pop()
        && let Some(instance) = at(index)
    {
        instance.lock().reset(fd);
        table::set(fd, Entry::Epoll(index));
        return;
    }
    // Without memory the kernel serves it.
    let Ok(instance) = room::boxed(Instance::new(fd)) else { return };
    let index = COUNT.fetch_add(1, Ordering::AcqRel);
    let Some(place) = INSTANCES.get(index as usize) else {
        COUNT.store(MAX_INSTANCES as u32, Ordering::Release);
        return;
    };
    place.store(Box::into_raw(instance), Ordering::Release);
    table::set(fd, Entry::Epoll(index));
}

/// A descriptor of the instance is closed; with the last one it ends.
pub fn close(index: u32, fd: i32) {
    let Some(instance) = at(index) else { return };
    all().for_each(|(_, other)| other.lock().nested.retain(|nested| nested.fd != fd));
    let mut state = instance.lock();
    if let Some((other, _)) = table::tracked_in(0, u32::MAX).find(|(_, entry)| *entry == Entry::Epoll(index))
    {
        if state.fd == fd {
            state.fd = other;
        }
        return;
    }
    for (fd, socket) in state.promoted_sockets() {
        unwatch(socket, fd, index);
    }
    state.end();
    drop(state);
    FREE.lock().push(index);
}

/// A socket's registration in an instance is gone.
fn unwatch(socket: u32, fd: i32, instance: u32) {
    if let Some(socket) = socket::at(socket) {
        let mark = mark(instance, fd);
        let _ = socket.watch.compare_exchange(mark, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn mark(instance: u32, fd: i32) -> u64 {
    u64::from(instance + 1) << 32 | u64::from(fd as u32)
}

fn watch(socket: &Socket, instance: u32, fd: i32) {
    let mark = mark(instance, fd);
    let known = socket.watch.load(Ordering::Relaxed);
    if known != mark {
        socket.watch.store(if known == 0 { mark } else { MANY }, Ordering::Relaxed);
    }
    // A note left for an instance that is gone must not hold back the next.
    socket.told.store(false, Ordering::Release);
}

/// Bytes have come for sockets, by their indices plus 1 (0 = none). Called under a channel's lock, so it only leaves notes: an
/// instance's own lock is taken before a channel's, never after.
pub fn readable(sockets: impl Iterator<Item = u32>) {
    let mut open: Option<(u64, Notes<'_>)> = None;
    for index in sockets.filter_map(|index| index.checked_sub(1)) {
        let Some(socket) = socket::at(index) else { continue };
        let number = match socket.watch.load(Ordering::Relaxed) {
            0 => continue,
            MANY => {
                open = None;
                all().for_each(|(_, instance)| instance.notes().leave_once(index));
                continue;
            }
            mark => mark >> 32,
        };
        if open.as_ref().is_none_or(|(known, _)| *known != number) {
            // One at a time.
            drop(open.take());
            open = at(number as u32 - 1).map(|instance| (number, instance.notes()));
        }
        if let Some((_, notes)) = &mut open {
            notes.leave(index, socket);
        }
    }
}

/// A socket may be writable again, and readable: [`readable`], with the room told too. No lock of a channel is held.
pub fn writable(socket_plus_one: u32) {
    let Some(index) = socket_plus_one.checked_sub(1) else { return };
    for (_, instance) in all() {
        let mut state = instance.lock();
        let descriptors = state.descriptors_of(index);
        descriptors.iter().for_each(|fd| state.news(*fd, instance::BOTH));
        if !descriptors.is_empty() {
            state.wake_sleeper();
        }
    }
}

/// A candidate is being promoted: its registrations move from the kernel's instances to the inner ones.
pub fn adopt(index: u32, socket: &Socket, channel: &Channel, slot: u32) {
    let several = socket.references.load(Ordering::Relaxed) > 1;
    let fd = socket.fd.load(Ordering::Relaxed);
    for (number, instance) in all() {
        let mut state = instance.lock();
        if several {
            let fds = table::tracked_in(0, u32::MAX).filter(|(_, entry)| *entry == Entry::Socket(index));
            for (fd, _) in fds {
                if state.adopt(fd, index, channel, slot) {
                    watch(socket, number, fd);
                }
            }
        } else if state.adopt(fd, index, channel, slot) {
            watch(socket, number, fd);
        }
    }
}

/// A promoted socket has another stream than before: its registrations wait for that one.
pub fn follow_stream(index: u32, old: &Channel, old_slot: u32, channel: &Channel, slot: u32) {
    for (_, instance) in all() {
        instance.lock().follow_stream(index, old, old_slot, channel, slot);
    }
}

/// Whether a one-shot registration of this descriptor may or may not have fired, so that it cannot be taken over
/// from the kernel now.
pub fn unsure(fd: i32) -> bool {
    // A held lock may be this very thread's, interrupted by a signal: better not now than for ever.
    all().any(|(_, instance)| instance.try_lock().is_none_or(|state| state.unsure(fd)))
}

/// The program closes a descriptor: its registrations go, also those that are only parked.
pub fn forget(index: u32, socket: &Socket, fd: i32) {
    match socket.watch.load(Ordering::Relaxed) {
        0 => {}
        MANY => all().for_each(|(_, instance)| instance.lock().remove_socket(fd, index)),
        mark => {
            let number = (mark >> 32) as u32 - 1;
            if let Some(instance) = at(number).filter(|_| mark as u32 as i32 == fd) {
                instance.lock().remove_socket(fd, index);
                unwatch(index, fd, number);
            }
        }
    }
}

/// The program closes a descriptor whose connection stays open a little longer: the kernel would go on to report for it.
pub fn drop_registrations(fd: i32) {
    all().for_each(|(_, instance)| instance.lock().drop_registrations(fd));
}

/// fork: no other thread is inside an instance when the memory is copied.
pub fn lock_all() {
    all().for_each(|(_, instance)| instance.lock_for_fork());
}

pub fn unlock_all() {
    // SAFETY: taken in `lock_all` by this thread (or the thread the child continues) and forgotten.
    all().for_each(|(_, instance)| unsafe { instance.unlock_after_fork() });
}

/// At exit: the bells' files go.
pub fn at_exit() {
    for (_, instance) in all() {
        if let Some(mut state) = instance.try_lock()
            && let Some(bell) = state.bell.take()
        {
            bell.destroy();
        }
    }
}

/// A descriptor of an instance is wanted by the program: it moves elsewhere.
pub fn moved(fd: i32) -> bool {
    all().any(|(_, instance)| instance.lock().move_own(fd))
}

/// In a forked child: nobody else is at it.
pub fn after_fork_in_child() {
    crate::lock::free_in_child(&FREE);
}
