//! One epoll instance: its locks, the notes left for it, what is registered.
//!
//! `instance::adoption` takes registrations over from the kernel, `instance::ready` says what is ready, `instance::inner` keeps what
//! stands in the kernel for it.

mod adoption;
mod inner;
mod notes;
mod ready;

pub use notes::Notes;

use crate::bell::Bell;
use crate::channel::Channel;
use crate::lock::{Mutex, MutexGuard};
use crate::{position, sys, table};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::collections::VecDeque;

const IN_SIDE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLRDNORM) as u32
    | (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const OUT_SIDE: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32;
/// Readable or writable.
pub const BOTH: u32 = BYTES | OUT_SIDE;
/// What the kernel reports when bytes come.
const BYTES: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONESHOT: u32 = libc::EPOLLONESHOT as u32;

/// The kernel's descriptors are looked at no later than at every so many busy calls or ticks.
const CALLS_PER_KERNEL_LOOK: u32 = 16;
const TICKS_PER_KERNEL_LOOK: u64 = 65_000;

/// An instance and its lock.
pub struct Instance {
    state: Mutex<State>,
    /// Sockets for which bytes have come, noted under a channel's lock; nothing else is locked meanwhile.
    inbox: Mutex<Vec<u32>>,
    /// Both are held by a thread that forks.
    forking: AtomicBool,
    /// The inbox is not empty.
    noted: AtomicBool,
    /// Calls so far, and when the kernel was last asked (ticks): hints.
    calls: AtomicU32,
    asked: AtomicU64,
}

/// A registration.
#[derive(Clone, Copy)]
pub struct Item {
    pub data: u64,
    pub events: u32,
    /// Socket index of a promoted stream, or [`KERNEL`].
    socket: u32,
    queued: bool,
    /// EPOLLONESHOT: may fire.
    armed: bool,
    /// EPOLLET: may report that the stream is writable.
    out_edge: bool,
    /// EPOLLET: may report that the stream is readable.
    in_edge: bool,
    /// Bytes that had come through the channel at the last look, where a process of the family may have sorted them: only more
    /// than these are news.
    heard: u64,
    present: bool,
    /// Deleted by the program; the lifeline stays in the inner instance, because programs that delete and add a
    /// descriptor for each message are common.
    parked: bool,
}

/// The item's descriptor is served by the kernel.
pub const KERNEL: u32 = u32::MAX;
const ABSENT: Item = Item {
    data: 0,
    events: 0,
    socket: KERNEL,
    queued: false,
    armed: false,
    out_edge: false,
    in_edge: false,
    heard: 0,
    present: false,
    parked: false,
};

/// An epoll instance registered in this one: watched through the inner instance, judged here.
#[derive(Clone, Copy)]
pub struct Nested {
    pub fd: i32,
    pub events: u32,
    pub data: u64,
    /// Whether it is ready, and its count of news, when it was last looked at.
    ready: bool,
    heard: u64,
    /// EPOLLET: whether it was ready when it was last asked for, and whether something has happened since.
    was_ready: bool,
    edge: bool,
}

impl Nested {
    /// Whether it is to be reported: it is ready, and an edge is told once.
    fn reports(&self) -> bool {
        self.ready && self.events & IN_SIDE != 0 && (self.events & EDGE == 0 || self.edge || !self.was_ready)
    }
}

/// Guarded by the instance's lock.
pub struct State {
    pub fd: i32,
    /// The inner instance, -1 before the first promotion.
    pub inner: i32,
    pub bell: Option<Bell>,
    /// The bell is a member of the program's own instance, edge-triggered, which spares two system calls per ring. Not where that
    /// instance is watched by others or shared with another process, nor with streams to other hosts: then it is a member of the inner one.
    direct: bool,
    /// Others watch the instance, or did.
    watched: bool,
    /// By descriptor number.
    items: Vec<Item>,
    ready: VecDeque<i32>,
    /// How often something has happened that a registration here waits for: news for an instance in which this one is nested.
    pub news_count: u64,
    /// Epoll instances registered here.
    pub nested: Vec<Nested>,
    /// Threads in the kernel's epoll_wait on this instance.
    pub sleepers: u32,
    /// Rings or news of the inner instance were taken since the last look at the streams.
    pub unseen: bool,
    /// A waiters word was full: sleep in short pieces.
    pub tick: bool,
    /// Data under which Convoy's own registrations stand in the program's instance: the inner instance has
    /// this number, nested instances the following ones by their descriptor. 0 = not drawn yet.
    mark: u64,
    promoted: u32,
    /// Descriptors that the kernel serves.
    kernel_members: u32,
}

impl Instance {
    pub fn new(fd: i32) -> Self {
        let state = State {
            fd,
            inner: -1,
            bell: None,
            direct: false,
            watched: false,
            items: Vec::new(),
            ready: VecDeque::new(),
            news_count: 0,
            nested: Vec::new(),
            sleepers: 0,
            unseen: false,
            tick: false,
            mark: 0,
            promoted: 0,
            kernel_members: 0,
        };
        Self {
            state: Mutex::new(state),
            inbox: Mutex::new(Vec::new()),
            forking: AtomicBool::new(false),
            noted: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            asked: AtomicU64::new(0),
        }
    }

    /// Whether the kernel's descriptors have waited long enough: some calls, or about 25 us.
    #[inline]
    pub fn kernel_due(&self) -> bool {
        let now = position::ticks();
        let due = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS_PER_KERNEL_LOOK)
            || now.wrapping_sub(self.asked.load(Ordering::Relaxed)) > TICKS_PER_KERNEL_LOOK;
        if due {
            self.asked.store(now, Ordering::Relaxed);
        }
        due
    }

    /// The kernel was asked at this moment.
    pub fn note_asked(&self) {
        self.asked.store(position::ticks(), Ordering::Relaxed);
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    /// Both locks, for fork.
    pub fn lock_for_fork(&self) {
        let mut state = self.lock();
        state.note_heard();
        state.expect_watchers();
        core::mem::forget((state, self.inbox.lock()));
        self.forking.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Undoes [`Self::lock_for_fork`]; nothing for an instance that was made since.
    ///
    /// # Safety
    /// Called by the thread that forks, or the one that goes on in the child.
    pub unsafe fn unlock_after_fork(&self) {
        if !self.forking.swap(false, Ordering::Relaxed) {
            return;
        }
        // SAFETY: held by this thread, says the flag.
        unsafe {
            self.inbox.force_unlock();
            self.state.force_unlock();
        }
    }
}

impl State {
    /// Whether the program's instance holds nothing but what the program has put there.
    pub fn is_kernels(&self) -> bool {
        self.inner == -1 && self.nested.is_empty()
    }

    pub fn reset(&mut self, fd: i32) {
        self.fd = fd;
    }

    /// The instance is closed.
    pub fn end(&mut self) {
        let sockets: Vec<u32> =
            self.items.iter().map(|item| item.socket).filter(|socket| *socket != KERNEL).collect();
        sockets.into_iter().for_each(|socket| self.unplace_bell(socket));
        if self.inner >= 0 {
            table::abandon(self.inner);
            self.inner = -1;
        }
        if let Some(bell) = self.bell.take() {
            bell.destroy();
        }
        self.items.clear();
        self.ready.clear();
        self.nested.clear();
        (self.tick, self.direct, self.watched) = (false, false, false);
        (self.promoted, self.kernel_members, self.mark) = (0, 0, 0);
        self.fd = -1;
    }

    pub fn promoted_sockets(&self) -> Vec<(i32, u32)> {
        let promoted = |(fd, item): (usize, &Item)| {
            (item.present && item.socket != KERNEL).then_some((fd as i32, item.socket))
        };
        self.items.iter().enumerate().filter_map(promoted).collect()
    }

    pub fn descriptors_of(&self, socket: u32) -> Vec<i32> {
        self.promoted_sockets()
            .into_iter()
            .filter_map(|(fd, owner)| (owner == socket).then_some(fd))
            .collect()
    }

    pub fn item(&self, fd: i32) -> Option<&Item> {
        self.items.get(fd as u32 as usize).filter(|item| item.present)
    }

    /// Whether `fd` is served from here, not by the kernel.
    pub fn is_promoted(&self, fd: i32) -> bool {
        self.item(fd).is_some_and(|item| item.socket != KERNEL)
    }

    /// Remembers a registration the kernel has accepted.
    pub fn remember(&mut self, fd: i32, event: &libc::epoll_event) {
        let index = fd as u32 as usize;
        if self.items.len() <= index {
            self.items.resize(index + 1, ABSENT);
        }
        if let Some(item) = self.items.get_mut(index) {
            if !item.present {
                self.kernel_members += 1;
            }
            let queued = item.queued;
            *item =
                Item { data: event.u64, events: event.events, armed: true, present: true, queued, ..ABSENT };
        }
    }

    /// Enters a promoted stream.
    pub fn enter(
        &mut self,
        fd: i32,
        socket: u32,
        channel: &Channel,
        slot: u32,
        event: &libc::epoll_event,
    ) -> sys::Answer<()> {
        let parked =
            self.items.get(fd as u32 as usize).is_some_and(|item| item.parked && item.socket == socket);
        if !parked {
            self.open_inner()?;
            self.add_lifeline(fd)?;
            self.place_bell(channel, slot);
        }
        self.remember(fd, event);
        if let Some(item) = self.items.get_mut(fd as u32 as usize) {
            item.socket = socket;
            (item.in_edge, item.out_edge) = (true, true);
        }
        self.promoted += 1;
        self.kernel_members -= 1;
        self.enqueue(fd);
        self.wake_sleeper();
        Ok(())
    }

    /// Whether the kernel serves any descriptor of the program here.
    pub fn has_kernel_members(&self) -> bool {
        self.kernel_members > 0
    }

    /// EPOLL_CTL_MOD of a promoted stream.
    pub fn modify(&mut self, fd: i32, event: &libc::epoll_event) {
        if let Some(item) = self.items.get_mut(fd as u32 as usize) {
            item.events = event.events;
            item.data = event.u64;
            item.armed = true;
            (item.in_edge, item.out_edge) = (true, true);
        }
        self.enqueue(fd);
        self.count_if_ready(fd);
        self.wake_sleeper();
    }

    /// EPOLL_CTL_DEL of a promoted stream.
    pub fn park(&mut self, fd: i32) {
        if let Some(item) = self.items.get_mut(fd as u32 as usize)
            && item.present
        {
            self.promoted -= 1;
            *item = Item { socket: item.socket, queued: item.queued, parked: true, ..ABSENT };
        }
    }

    /// A descriptor of a socket is closed.
    pub fn remove_socket(&mut self, fd: i32, socket: u32) {
        if self.items.get(fd as u32 as usize).is_some_and(|item| item.socket == socket) {
            self.remove_item(fd);
        }
    }

    /// The kernel does not look after connections under that number any more.
    pub fn drop_registrations(&mut self, fd: i32) {
        let known = self.item(fd).is_some_and(|item| item.socket == KERNEL);
        if known {
            self.remove_item(fd);
        }
        for epoll in [known.then_some(self.fd), (self.inner >= 0).then_some(self.inner)].into_iter().flatten()
        {
            // SAFETY: no event is needed.
            let _ = unsafe { sys::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, core::ptr::null_mut()) };
        }
    }

    /// The registration is gone (EPOLL_CTL_DEL, close).
    pub fn remove_item(&mut self, fd: i32) {
        if let Some(item) = self.items.get_mut(fd as u32 as usize) {
            match (item.present, item.socket) {
                (true, KERNEL) => self.kernel_members -= 1,
                (true, _) => self.promoted -= 1,
                _ => {}
            }
            let (queued, socket) = (item.queued, item.socket);
            *item = ABSENT;
            if socket != KERNEL {
                self.unplace_bell(socket);
            }
            if queued {
                self.ready.retain(|waiting| *waiting != fd);
            }
        }
    }
}
