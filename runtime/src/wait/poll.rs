//! poll for many descriptors: promoted streams are judged here, the rest by the kernel, one sleep for both.

use super::spin;
use crate::api::Handled;
use crate::bell::{Bell, Borrowed};
use crate::channel::{Channel, Rest, hold};
use crate::inside::{Heap, Interruptions};
use crate::socket::{self, Socket, State};
use crate::table::{self, Entry};
use crate::{channel, epoll, position, promote, stats, sys};
use core::cell::Cell;
use core::sync::atomic::Ordering;
use smallvec::SmallVec;

/// Sets up to this size need no memory from the heap.
const FEW: usize = 16;

type KernelSet = SmallVec<[libc::pollfd; FEW + 1]>;

/// One entry of the set that is not the kernel's alone.
struct Member {
    index: usize,
    fd: i32,
    events: i16,
    kind: Kind,
    /// Whether the last judgement left news of a stream's lifeline that it knows of ([`super::judge`]).
    hinted: Cell<bool>,
}

enum Kind {
    Stream(&'static Socket, &'static Channel, u32),
    /// A candidate: the kernel serves it, but it must not be promoted under our feet.
    Candidate(&'static Socket, u64),
    Epoll,
}

/// See [`crate::api::poll`].
///
/// # Safety
/// As there.
pub unsafe fn poll(
    set: *mut libc::pollfd,
    count: usize,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Handled {
    if count == 0 || !crate::iov::plausible(set as usize, count.saturating_mul(size_of::<libc::pollfd>())) {
        return None;
    }
    // SAFETY: `count` entries, by the caller's promise.
    let set = unsafe { core::slice::from_raw_parts_mut(set, count) };
    let members = members(set);
    if members.is_empty() {
        return None;
    }
    // SAFETY: null or valid.
    let timeout = unsafe { timeout.as_ref() };
    let poll = Poll { members: &members, mask };
    let candidates = members.iter().filter_map(|member| match member.kind {
        Kind::Candidate(socket, uses) => Some((socket, uses)),
        _ => None,
    });
    let changed = candidates.clone().any(|(socket, _)| socket.state() != State::Candidate);
    let result = if changed { Ok(None) } else { poll.run(set, timeout) };
    candidates.for_each(|(socket, uses)| socket.leave_kernel(uses));
    match result {
        Ok(Some(ready)) => Some(Ok(ready)),
        // A candidate was promoted meanwhile: look again with it as a stream.
        Ok(None) => {
            sys::sched_yield();
            // SAFETY: the same arguments.
            unsafe { poll_again(set, timeout, mask) }
        }
        Err(errno) => Some(Err(errno)),
    }
}

/// # Safety
/// As for [`poll`].
unsafe fn poll_again(
    set: &mut [libc::pollfd],
    timeout: Option<&libc::timespec>,
    mask: *const libc::sigset_t,
) -> Handled {
    let timeout = timeout.map_or(core::ptr::null(), |time| time as *const libc::timespec);
    // SAFETY: the caller's promise.
    unsafe { poll(set.as_mut_ptr(), set.len(), timeout, mask) }
}

fn members(set: &[libc::pollfd]) -> Heap<SmallVec<[Member; FEW]>> {
    let member = |(index, entry): (usize, &libc::pollfd)| {
        let kind = match table::get(entry.fd) {
            Entry::Socket(number) => {
                let socket = socket::at(number)?;
                if socket.state() == State::Candidate && socket.is_offered() {
                    promote::consider(number, socket, entry.fd);
                }
                match socket.state() {
                    State::Promoted => {
                        let (channel, slot, _) = socket.stream_of(number, entry.fd)?;
                        Kind::Stream(socket, channel, slot)
                    }
                    State::Free => return None,
                    _ => Kind::Candidate(socket, socket.enter_kernel()),
                }
            }
            Entry::Epoll(_) => Kind::Epoll,
            _ => return None,
        };
        Some(Member { index, fd: entry.fd, events: entry.events, kind, hinted: Cell::new(false) })
    };
    Heap::new(|| set.iter().enumerate().filter_map(member).collect())
}

struct Poll<'a> {
    members: &'a [Member],
    mask: *const libc::sigset_t,
}

/// What a sleep has come to.
enum Slept {
    /// So many entries are ready, and all are the kernel's.
    Ready(usize),
    /// The kernel has told what it knows; the rest is to be judged.
    Asked,
    /// There was something already.
    Not,
}

impl Poll<'_> {
    /// The number of ready entries; nothing when a stream of the set is another one now.
    fn run(&self, set: &mut [libc::pollfd], timeout: Option<&libc::timespec>) -> Result<Option<usize>, i32> {
        let now_only = timeout.is_some_and(|time| time.tv_sec == 0 && time.tv_nsec == 0);
        let deadline = super::deadline_of(timeout);
        let before = Interruptions::so_far();
        // Whether a sleep has just told what the kernel says.
        let mut asked = false;
        loop {
            if self.any_moved() {
                return Ok(None);
            }
            self.judge(set, asked);
            let own = self.members.iter().any(|member| revents(set, member.index) != 0);
            if own && asked {
                return Ok(Some(count_ready(set)));
            }
            if own || now_only {
                if !own {
                    hold::release_all();
                }
                // A signal that only the mask lets through is delivered even where nothing is waited for.
                let ready = self.with_kernel(set, if own { core::ptr::null() } else { self.mask })?;
                // Meanwhile another thread may have read what was there, or its stream returns to the kernel.
                if ready > 0 || now_only {
                    return Ok(Some(ready));
                }
            }
            hold::release_all();
            if self.all_streams(set) && spin::until(|| self.something()) {
                asked = false;
                continue;
            }
            if before.any_since() {
                return Err(libc::EINTR);
            }
            asked = match self.sleep(set, deadline, before)? {
                Slept::Ready(ready) => return Ok(Some(ready)),
                Slept::Asked => true,
                Slept::Not => false,
            };
            if deadline.is_some_and(|deadline| sys::now_ns() >= deadline) {
                self.judge(set, false);
                return self.with_kernel(set, core::ptr::null()).map(Some);
            }
        }
    }

    /// Whether a member has returned to the kernel and left it again meanwhile.
    fn any_moved(&self) -> bool {
        self.members.iter().any(|member| match member.kind {
            Kind::Stream(socket, channel, slot) => channel.leads_to_agent() && !socket.is_at(channel, slot),
            _ => false,
        })
    }

    /// Fills in what promoted streams and epoll instances are ready for; what the kernel has just said of candidates stays, if it has
    /// been `asked`.
    fn judge(&self, set: &mut [libc::pollfd], asked: bool) {
        epoll::sort_all();
        let now = position::ticks();
        for member in self.members {
            let ready = match member.kind {
                Kind::Stream(socket, channel, slot) => {
                    let (ready, hinted) = super::judge(member.fd, socket, channel, slot, member.events, now);
                    member.hinted.set(hinted);
                    ready
                }
                Kind::Epoll if epoll::ready(member.fd) => libc::POLLIN & member.events,
                Kind::Candidate(..) if asked => continue,
                _ => 0,
            };
            if let Some(entry) = set.get_mut(member.index) {
                entry.revents = ready;
            }
        }
    }

    /// Judged here, not by the kernel.
    fn is_ours(&self, index: usize) -> bool {
        let member = self.members.binary_search_by_key(&index, |member| member.index);
        member.is_ok_and(|at| !matches!(self.members[at].kind, Kind::Candidate(..)))
    }

    fn all_streams(&self, set: &[libc::pollfd]) -> bool {
        let own = self.members.iter().filter(|member| matches!(member.kind, Kind::Stream(..))).count();
        set.len() == own
    }

    /// Adds what the kernel says at this moment: about its own descriptors, and whether streams are over.
    fn with_kernel(&self, set: &mut [libc::pollfd], mask: *const libc::sigset_t) -> Result<usize, i32> {
        let mut kernel_set = self.kernel_set(set, None);
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is valid, a timeout, the mask null or valid.
        unsafe { sys::ppoll(kernel_set.as_mut_ptr(), kernel_set.len(), &mut now, mask) }?;
        self.take_hints(&kernel_set);
        self.judge(set, false);
        for (index, (entry, kernel)) in set.iter_mut().zip(kernel_set.iter()).enumerate() {
            if !self.is_ours(index) {
                entry.revents = kernel.revents;
            }
        }
        Ok(count_ready(set))
    }

    /// News of lifelines: the next judgement asks the kernel. True when there were any of streams or epolls.
    fn take_hints(&self, kernel_set: &[libc::pollfd]) -> bool {
        let mut news = false;
        for member in self.members {
            if kernel_set.get(member.index).is_some_and(|entry| entry.revents != 0) {
                match member.kind {
                    Kind::Stream(socket, ..) => {
                        socket.hint.store(true, Ordering::Relaxed);
                        news = true;
                    }
                    Kind::Epoll => news = true,
                    Kind::Candidate(..) => {}
                }
            }
        }
        news
    }

    fn something(&self) -> bool {
        channel::all().any(Channel::has_frames) || self.members.iter().any(|member| self.may_be_ready(member))
    }

    fn may_be_ready(&self, member: &Member) -> bool {
        match member.kind {
            Kind::Stream(socket, channel, slot) => {
                let reads_far = || {
                    let over =
                        socket.hint.load(Ordering::Relaxed) && channel.may_end(slot, socket.generation());
                    over || channel.reaches_kernel(slot, socket.generation(), member.fd)
                };
                if channel.leads_to_agent() && member.events & libc::POLLIN != 0 && reads_far() {
                    return true;
                }
                let reads = member.events & (libc::POLLIN | libc::POLLRDNORM) != 0
                    && channel.can_read(slot, socket.generation(), member.fd);
                let writes = member.events & (libc::POLLOUT | libc::POLLWRNORM) != 0;
                reads || !channel.usable() || writes && channel.sends_here(slot) && channel.is_writable(slot)
            }
            Kind::Epoll => epoll::ready(member.fd),
            Kind::Candidate(..) => false,
        }
    }

    /// Sleeps, unless there is something already.
    fn sleep(
        &self,
        set: &mut [libc::pollfd],
        deadline: Option<u64>,
        before: Interruptions,
    ) -> Result<Slept, i32> {
        let bell = Borrowed::new();
        let placed = bell.as_ref().is_some_and(|bell| self.place(bell));
        if let Some(bell) = &bell {
            bell.doze();
        }
        self.doze_epolls(true);
        let rest = Rest::beside_all();
        let placed = placed && rest.is_sure();
        let mut kernel_set = self.kernel_set(set, bell.as_deref());
        let awake = self.something() || self.any_moved() || before.any_since();
        let result = if awake {
            Ok(0)
        } else {
            stats::process().sleeps.add(1);
            let mut limit = super::time_left(deadline, !placed);
            // SAFETY: the set and the limit are valid, the mask null or valid.
            unsafe {
                sys::cancellable(|| {
                    sys::ppoll(kernel_set.as_mut_ptr(), kernel_set.len(), &mut limit, self.mask)
                })
            }
        };
        drop(rest);
        self.doze_epolls(false);
        if let Some(bell) = bell {
            bell.wake(kernel_set.last().is_some_and(|entry| entry.revents != 0));
            self.unplace(&bell);
            bell.give_back();
        }
        result?;
        if awake {
            return Ok(Slept::Not);
        }
        Ok(self.take_kernel(set, &kernel_set).map_or(Slept::Asked, Slept::Ready))
    }

    /// The set for the kernel: streams by their lifelines, and the bell at the end.
    fn kernel_set(&self, set: &[libc::pollfd], bell: Option<&Bell>) -> Heap<KernelSet> {
        let fd = bell.map_or(-1, |bell| bell.fd());
        let bell = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let asked = set.iter().map(|entry| libc::pollfd { revents: 0, ..*entry });
        let mut kernel_set: Heap<KernelSet> = Heap::new(|| asked.chain([bell]).collect());
        for member in self.members {
            if let (Kind::Stream(socket, channel, slot), Some(entry)) =
                (&member.kind, kernel_set.get_mut(member.index))
            {
                // Whether another host's end has sent urgent data the agent's channel does not tell from a return.
                let urgent = if channel.leads_to_agent() { 0 } else { member.events & libc::POLLPRI };
                let mut events = libc::POLLRDHUP | urgent;
                if member.hinted.get() {
                    events = member.events & libc::POLLRDHUP | urgent;
                } else if member.events & libc::POLLIN != 0 {
                    events |= libc::POLLIN;
                }
                if member.events & libc::POLLOUT != 0 && !channel.sends_here(*slot) {
                    events |= libc::POLLOUT;
                }
                let over = socket.over.load(Ordering::Relaxed);
                let watched = channel.watches_kernel(*slot, socket.generation(), over, events);
                let asked = events & (libc::POLLOUT | libc::POLLPRI) != 0;
                match watched {
                    _ if asked => entry.events = events,
                    Some(watched) => entry.events = watched,
                    None => entry.fd = -1,
                }
            }
        }
        kernel_set
    }

    /// Takes over what woke the sleeper: news of lifelines become hints, the rest are answers, if there is nothing else to judge.
    fn take_kernel(&self, set: &mut [libc::pollfd], kernel_set: &[libc::pollfd]) -> Option<usize> {
        let own_news = self.take_hints(kernel_set);
        let rung = kernel_set.last().is_some_and(|entry| entry.revents != 0);
        for index in 0..set.len() {
            set[index].revents = if self.is_ours(index) { 0 } else { kernel_set[index].revents };
        }
        let ready = count_ready(set);
        (ready > 0 && !own_news && !rung).then_some(ready)
    }

    fn readers(&self) -> impl Iterator<Item = (&'static Channel, u32)> {
        self.members.iter().filter_map(|member| match member.kind {
            // Of another host's end everything is heard from the agent, also that it is closed.
            Kind::Stream(_, channel, slot)
                if member.events & libc::POLLIN != 0 || channel.leads_to_agent() =>
            {
                Some((channel, slot))
            }
            _ => None,
        })
    }

    fn place(&self, bell: &Bell) -> bool {
        self.readers().fold(true, |all, (channel, slot)| {
            let introduced = channel.introduce(bell.number, bell.fd());
            channel.own_line(slot).receive_waiters.add_once(bell.number) && introduced && all
        })
    }

    fn unplace(&self, bell: &Bell) {
        if !bell.is_ours() {
            return;
        }
        self.readers().for_each(|(channel, slot)| channel.own_line(slot).receive_waiters.remove(bell.number));
    }

    fn doze_epolls(&self, asleep: bool) {
        for member in self.members {
            if matches!(member.kind, Kind::Epoll) {
                epoll::doze_for_poll(member.fd, asleep);
            }
        }
    }
}

fn count_ready(set: &[libc::pollfd]) -> usize {
    set.iter().filter(|entry| entry.revents != 0).count()
}

fn revents(set: &[libc::pollfd], index: usize) -> i16 {
    set.get(index).map_or(0, |entry| entry.revents)
}
