//! epoll_wait: promoted streams first, the kernel's descriptors at least every few calls, then spin, then sleep.

use super::at;
use super::instance::{Instance, State};
use crate::api::Handled;
use crate::channel::{Rest, hold};
use crate::inside::{Heap, Interruptions};
use crate::table::{self, Entry};
use crate::wait::{self, kernel_state, spin};
use crate::{channel, stats, sys};

/// How deep instances may be nested (EP_MAX_NESTS of the kernel is 4).
const MOST_NESTED: u32 = 5;
const NOW: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

/// See [`crate::api::epoll_wait`].
///
/// # Safety
/// As there.
pub unsafe fn wait(
    epoll: i32,
    events: *mut libc::epoll_event,
    count: i32,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> Handled {
    let Entry::Epoll(number) = table::get(epoll) else {
        return None;
    };
    let instance = at(number)?;
    if count <= 0 {
        return None;
    }
    if !crate::iov::plausible(events as usize, count as usize * size_of::<libc::epoll_event>()) {
        // The kernel says so only when there is something to report.
        return ready(epoll).then_some(Err(libc::EFAULT));
    }
    // SAFETY: room for `count` events, by the caller's promise.
    let events = unsafe { core::slice::from_raw_parts_mut(events, count as usize) };
    // SAFETY: null or valid.
    let timeout = unsafe { timeout.as_ref() };
    Some(Waiter { epoll, instance, mask }.run(events, timeout))
}

struct Waiter<'a> {
    epoll: i32,
    instance: &'a Instance,
    mask: *const libc::sigset_t,
}

/// What a look at the promoted streams has found.
#[derive(Default)]
struct Side {
    /// Events.
    filled: usize,
    /// Not everything is the kernel's.
    has_own: bool,
    kernel_members: bool,
    others_sleep: bool,
}

impl Waiter<'_> {
    fn run(&self, events: &mut [libc::epoll_event], timeout: Option<&libc::timespec>) -> Result<usize, i32> {
        let now_only = timeout.is_some_and(|time| time.tv_sec == 0 && time.tv_nsec == 0);
        let before = Interruptions::so_far();
        let mut deadline = None;
        if let Some(result) = self.kernel_alone(events, timeout, before, &mut deadline) {
            return result;
        }
        loop {
            // The kernel's descriptors come first when it is their turn, so that neither side starves.
            let kernel_first = self.instance.kernel_due();
            let mut filled = if kernel_first { self.ask_kernel(events, Some(&NOW))? } else { 0 };
            let mut side = self.user_side(events.get_mut(filled..).unwrap_or_default());
            filled += side.filled;
            if !kernel_first && (now_only || filled > 0 && side.kernel_members) {
                filled += self.ask_kernel(events.get_mut(filled..).unwrap_or_default(), Some(&NOW))?;
                if filled == 0 {
                    side = self.user_side(events);
                    filled = side.filled;
                }
                // A ring for a thread that has gone to sleep since may be among what was taken.
                side.others_sleep = true;
            }
            if filled == 0 {
                hold::release_all();
            }
            if filled > 0 || now_only {
                if side.others_sleep {
                    self.pass_on();
                }
                return Ok(filled);
            }
            // The clock costs more than a look: only those who wait ask it.
            deadline = deadline.or_else(|| wait::deadline_of(timeout));
            if side.has_own && spin::until(|| self.something()) {
                continue;
            }
            if before.any_since() {
                return Err(libc::EINTR);
            }
            filled = self.sleep(events, deadline, before).inspect_err(|_| self.pass_on())?;
            if filled == 0 {
                filled = self.user_side(events).filled;
            }
            if filled > 0 || deadline.is_some_and(|deadline| sys::now_ns() >= deadline) {
                self.pass_on();
                return Ok(filled);
            }
        }
    }

    /// The whole wait where the kernel serves everything, unless a stream joins meanwhile.
    fn kernel_alone(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<&libc::timespec>,
        before: Interruptions,
        deadline: &mut Option<u64>,
    ) -> Option<Result<usize, i32>> {
        {
            let mut state = self.instance.lock();
            if !state.kernel_only() {
                return None;
            }
            state.sleepers += 1;
        }
        hold::release_all();
        *deadline = wait::deadline_of(timeout);
        let result = if before.any_since() { Err(libc::EINTR) } else { self.kernel_wait(events, timeout) };
        let mut state = self.instance.lock();
        state.rouse();
        if state.kernel_only() {
            return Some(result);
        }
        match result.map(|filled| state.without_own(events, filled)) {
            // Only what wakes for a stream, or nothing but the time that has passed.
            Ok(0) => None,
            result => Some(result),
        }
    }

    /// Sorts what has arrived and takes what is ready.
    fn user_side(&self, events: &mut [libc::epoll_event]) -> Side {
        {
            let mut state = self.instance.lock();
            if state.kernel_only() {
                return Side { others_sleep: state.sleepers > 0, ..Side::default() };
            }
            state.unseen = false;
        }
        sort_all();
        let mut state = self.instance.lock();
        self.instance.take_notes(&mut state);
        if channel::any_forked() {
            state.enqueue_with_bytes();
        }
        let side = Side {
            filled: state.collect(events),
            has_own: true,
            kernel_members: state.has_kernel_members(),
            others_sleep: state.sleepers > 0,
        };
        if state.nested.is_empty() {
            return side;
        }
        drop(state);
        look_at_nested(self.instance, MOST_NESTED);
        let rest = events.get_mut(side.filled..).unwrap_or_default();
        Side { filled: side.filled + self.instance.lock().collect_nested(rest), ..side }
    }

    /// This thread has taken rings or news of the kernel and returns without having looked at what they were about: one that
    /// sleeps here has to look.
    fn pass_on(&self) {
        let state = self.instance.lock();
        if state.unseen && state.sleepers > 0 {
            state.wake_sleeper();
        }
    }

    /// Cheap sign that the user side has work.
    fn something(&self) -> bool {
        self.instance.has_notes() || channel::all().any(channel::Channel::has_frames) || self.state_has_work()
    }

    fn state_has_work(&self) -> bool {
        let mut state = self.instance.lock();
        if channel::any_forked() {
            state.enqueue_with_bytes();
        }
        !state.is_idle()
    }

    fn sleep(
        &self,
        events: &mut [libc::epoll_event],
        deadline: Option<u64>,
        before: Interruptions,
    ) -> Result<usize, i32> {
        doze(self.epoll, true, MOST_NESTED);
        let rest = Rest::beside_all();
        // Frames are nothing to an instance whose members the kernel serves.
        let work = !self.instance.lock().kernel_only() && self.something();
        let result = if work || look_at_nested(self.instance, MOST_NESTED) || before.any_since() {
            Ok(0)
        } else {
            stats::process().sleeps.add(1);
            let tick = self.instance.lock().tick || !rest.is_sure();
            let filled = self.ask_kernel(events, Some(&wait::time_left(deadline, tick)));
            self.instance.note_asked();
            filled
        };
        drop(rest);
        doze(self.epoll, false, MOST_NESTED);
        result
    }

    /// The kernel's epoll_wait; events of the inner instance are taken out and acted upon.
    fn ask_kernel(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<&libc::timespec>,
    ) -> Result<usize, i32> {
        if events.is_empty() {
            return Ok(0);
        }
        let filled = self.kernel_wait(events, timeout)?;
        let mut state = self.instance.lock();
        Ok(if state.kernel_only() { filled } else { state.without_own(events, filled) })
    }

    fn kernel_wait(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<&libc::timespec>,
    ) -> Result<usize, i32> {
        stats::process().epoll_kernel_looks.add(1);
        let timeout = timeout.map_or(core::ptr::null(), |time| time as *const libc::timespec);
        // SAFETY: room for the given number of events; the others are null or valid.
        unsafe {
            let wait =
                || sys::epoll_wait(self.epoll, events.as_mut_ptr(), events.len() as i32, timeout, self.mask);
            sys::cancellable(wait)
        }
    }
}

/// The instances nested in one.
fn descriptors(state: &State) -> Heap<Vec<i32>> {
    Heap::new(|| state.nested.iter().map(|nested| nested.fd).collect())
}

/// Counts this thread among the sleepers of an instance and of those nested in it, or out again.
fn doze(fd: i32, asleep: bool, depth: u32) {
    let Entry::Epoll(number) = table::get(fd) else { return };
    let Some(instance) = at(number) else { return };
    let mut state = instance.lock();
    if asleep {
        state.sleepers += 1;
        if let Some(bell) = &state.bell {
            bell.doze();
        }
        state.take_lost_ring();
    } else {
        state.rouse();
    }
    if depth > 0 && !state.nested.is_empty() {
        let nested = descriptors(&state);
        drop(state);
        nested.iter().for_each(|fd| doze(*fd, asleep, depth - 1));
    }
}

/// For poll on an epoll descriptor: while asleep, its bell may be rung.
pub fn doze_for_poll(fd: i32, asleep: bool) {
    doze(fd, asleep, MOST_NESTED);
}

/// Whether a wait on this epoll descriptor would report something at once.
pub fn ready(fd: i32) -> bool {
    look(fd, MOST_NESTED).0
}

/// Whether a wait on this instance would report something at once, and its count of news.
fn look(fd: i32, depth: u32) -> (bool, u64) {
    let Entry::Epoll(number) = table::get(fd) else { return (false, 0) };
    let Some(instance) = at(number) else { return (false, 0) };
    let mut ready = false;
    let mut state = instance.lock();
    state.expect_watchers();
    if !state.kernel_only() {
        // Rings first: what they were about is looked at afterwards.
        if state.inner >= 0 {
            state.take_inner();
        }
        drop(state);
        sort_all();
        state = instance.lock();
        instance.take_notes(&mut state);
        ready = state.any_ready();
        if ready && core::mem::take(&mut state.unseen) && state.sleepers > 0 {
            state.wake_sleeper();
        }
    }
    drop(state);
    // Before the kernel is asked: a ring that nobody has taken there would be news of this one to it.
    ready |= depth > 0 && look_at_nested(instance, depth - 1);
    ready = ready || kernel_state(fd, libc::POLLIN) & libc::POLLIN != 0;
    (ready, instance.lock().news_count)
}

/// Looks at all instances that are nested in one; whether one is to be reported.
fn look_at_nested(instance: &Instance, depth: u32) -> bool {
    let nested = descriptors(&instance.lock());
    if nested.is_empty() {
        return false;
    }
    let look = |fd: &i32| {
        let (ready, news) = look(*fd, depth);
        (*fd, ready, news)
    };
    let looks = Heap::new(|| nested.iter().map(look).collect::<Vec<_>>());
    instance.lock().hear_nested(&looks)
}

/// Sorts the frames of all channels.
pub fn sort_all() {
    for channel in channel::all() {
        let _ = channel.sort();
    }
}
