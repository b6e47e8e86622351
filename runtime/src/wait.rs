//! Waiting: spin as long as that is likely to pay, then sleep in the kernel with a bell beside the descriptors.
//!
//! Here: what a stream is ready for, and waiting for one stream. `wait::poll` waits for many, `epoll` has its own.

pub mod poll;
pub mod spin;

use crate::agent::failover;
use crate::bell::Borrowed;
use crate::channel::{Channel, Rest, hold};
use crate::config::settings;
use crate::inside::Interruptions;
use crate::naps::Naps;
use crate::shm::party::Recovery;
use crate::socket::Socket;
use crate::{position, stats, sys};
use convoy_aggregator::path::Path;
use core::sync::atomic::Ordering;

const OVER: i16 = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;

/// A time span in nanoseconds; the longest stand for ever.
pub fn nanoseconds(time: &libc::timespec) -> u64 {
    (time.tv_sec.max(0) as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.max(0) as u64)
}

/// When a wait with that limit ends, in nanoseconds of the monotonic clock.
pub fn deadline_of(timeout: Option<&libc::timespec>) -> Option<u64> {
    timeout.map(|time| sys::now_ns().saturating_add(nanoseconds(time)))
}

/// Between two looks of a sleeper that no bell can wake.
const TICK_NS: u64 = 1_000_000;

/// The longest sleep before the next look, in nanoseconds, for a ring that never comes: another process of the user may have
/// scribbled over the words by which wakers know who sleeps.
fn longest_sleep() -> u64 {
    match settings().look_seconds {
        0 => u64::MAX,
        seconds => u64::from(seconds) * 1_000_000_000,
    }
}

/// How long to sleep until then, before the next look; with `tick` no longer than a sleeper that no bell can wake may.
pub fn time_left(deadline: Option<u64>, tick: bool) -> libc::timespec {
    let left = deadline.map_or(u64::MAX, |deadline| deadline.saturating_sub(sys::now_ns()));
    let left = left.min(if tick { TICK_NS } else { longest_sleep() });
    libc::timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 }
}

/// Looks again and again until `done`, for at most so many nanoseconds: for what takes an answer of the agent and has no
/// bell. The last look's answer.
pub fn patiently(limit_ns: u64, mut done: impl FnMut() -> bool) -> bool {
    let (start, mut naps) = (sys::now_ns(), Naps::new());
    loop {
        if done() {
            return true;
        }
        if sys::now_ns() - start >= limit_ns {
            return false;
        }
        naps.nap();
    }
}

/// What the kernel says about a descriptor at this moment.
pub fn kernel_state(fd: i32, events: i16) -> i16 {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry, a timeout, no mask.
    let _ = unsafe { sys::ppoll(&mut entry, 1, &mut now, core::ptr::null()) };
    entry.revents
}

/// What a promoted stream is ready for, of `wanted` (POLL* bits), at this moment in ticks; frames were sorted before.
pub fn readiness(fd: i32, socket: &Socket, channel: &Channel, slot: u32, wanted: i16, now: u64) -> i16 {
    judge(fd, socket, channel, slot, wanted, now).0
}

/// The same, and whether it left news of the lifeline that it knows of: until something else happens, these say nothing new. What
/// another thread finds meanwhile does not count.
fn judge(fd: i32, socket: &Socket, channel: &Channel, slot: u32, wanted: i16, now: u64) -> (i16, bool) {
    const IN: i16 = libc::POLLIN | libc::POLLRDNORM;
    const OUT: i16 = libc::POLLOUT | libc::POLLWRNORM;
    // Asked once, because it counts as a look.
    let mut hinted = socket.hint.load(Ordering::Relaxed);
    let due = socket.look_due_at(now) || hinted;
    if !due
        && let Some(has_bytes) = channel.glance(slot)
        && (wanted & OUT == 0 || channel.sends_here(slot))
    {
        // What is sent on a channel between two processes can always leave.
        return ((if has_bytes { IN | OUT } else { OUT }) & wanted, hinted);
    }
    if channel.recovery(slot) == Recovery::Running {
        return (0, hinted);
    }
    if !channel.usable() {
        return ((IN | OUT | libc::POLLHUP) & (wanted | libc::POLLHUP), hinted);
    }
    let reads_kernel =
        channel.receive_path(slot, socket.generation(), fd).is_ok_and(|path| path == Path::Kernel);
    let mut ready = if !reads_kernel && channel.has_bytes(slot) { IN } else { 0 };
    let mut kernel_wanted = libc::POLLRDHUP | libc::POLLPRI & wanted;
    // Bytes beneath a stream on the channel are somebody's who is not under Convoy.
    if reads_kernel || ready & IN == 0 && !channel.leads_to_agent() {
        kernel_wanted |= IN;
    }
    let mut ask = reads_kernel || due;
    if wanted & OUT != 0 {
        if channel.sends_here(slot) {
            ready |= if channel.is_writable(slot) { OUT } else { 0 };
        } else {
            kernel_wanted |= OUT;
            ask = true;
        }
    }
    if ask {
        let part;
        (part, hinted) = kernel_part(fd, socket, channel, slot, kernel_wanted);
        let beneath = !reads_kernel && part & IN != 0 && part & OVER == 0;
        ready |= if beneath { part & !IN | readable_beneath(fd, socket, channel, slot) } else { part };
    }
    (ready & (wanted | libc::POLLHUP | libc::POLLERR), hinted)
}

/// Whether bytes in the kernel are the next ones although the stream is on the channel.
#[cold]
fn readable_beneath(fd: i32, socket: &Socket, channel: &Channel, slot: u32) -> i16 {
    let beneath = channel.read_beneath(slot, socket.generation(), fd, |_| ());
    // The look may have sorted some that came meanwhile.
    let ready = matches!(beneath, Ok(Some(()))) || channel.has_bytes(slot);
    if ready { libc::POLLIN | libc::POLLRDNORM } else { 0 }
}

/// What the kernel says of a stream; and whether news of the lifeline are left (see [`judge`]).
fn kernel_part(fd: i32, socket: &Socket, channel: &Channel, slot: u32, kernel_wanted: i16) -> (i16, bool) {
    let may_end = channel.may_tell_end(slot, socket.generation());
    let urgent = if channel.leads_to_agent() { libc::POLLPRI } else { 0 };
    // Before the look: what another thread hears after it stays.
    let hinted = socket.hint.swap(false, Ordering::Relaxed);
    let mut state = kernel_state(fd, kernel_wanted | urgent);
    if state & (libc::POLLERR | libc::POLLHUP) == libc::POLLERR {
        // A reset sets the error before the end (tcp_reset), and poll reads both without the lock. Who is woken by the kernel sees both.
        position::await_segment(fd);
        state = kernel_state(fd, kernel_wanted | urgent);
    }
    if state & urgent != 0 && channel.note_mark(slot, fd) {
        socket.hint.fetch_or(hinted, Ordering::Relaxed);
        return (0, hinted);
    }
    state &= kernel_wanted | OVER;
    if state & OVER != 0 && !may_end && !channel.reads_no_more(slot, fd) {
        note_over(fd, socket, channel, slot);
        socket.hint.store(true, Ordering::Relaxed);
        state &= !OVER;
        if position::readable(fd) == 0 {
            state &= !(libc::POLLIN | libc::POLLRDNORM);
        }
        return (state, true);
    }
    if state & OVER != 0 {
        socket.hint.store(true, Ordering::Relaxed);
        return (state | libc::POLLIN | libc::POLLRDNORM, true);
    }
    if state & libc::POLLIN == 0 {
        return (state, false);
    }
    socket.hint.fetch_or(hinted, Ordering::Relaxed);
    (state, hinted)
}

/// The kernel reports the end of a stream; the agent explains it, or nobody does.
#[cold]
pub fn note_over(fd: i32, socket: &Socket, channel: &Channel, slot: u32) {
    let known = socket.over.swap(true, Ordering::Relaxed);
    if !known && !channel.may_end(slot, socket.generation()) && !channel.reads_no_more(slot, fd) {
        failover::note_over(channel, slot, socket.generation());
    }
}

/// When a call ends without bytes because of SO_RCVTIMEO, in nanoseconds of the monotonic clock, `u64::MAX` for never; asked at its
/// first wait, because it holds for all waits of the call together.
#[derive(Default)]
pub struct Patience(Option<u64>);

impl Patience {
    fn deadline(&mut self, fd: i32, socket: &Socket) -> u64 {
        *self.0.get_or_insert_with(|| {
            let limit = socket.time_limit(|| time_limit(fd, libc::SO_RCVTIMEO));
            limit.map_or(u64::MAX, |limit| sys::now_ns().saturating_add(nanoseconds(&limit)))
        })
    }
}

/// Waits until it is time to look again whether a read of a stream may get on; EINTR, or EAGAIN after SO_RCVTIMEO, otherwise.
pub fn for_bytes(
    fd: i32,
    socket: &Socket,
    channel: &Channel,
    slot: u32,
    patience: &mut Patience,
) -> Result<(), i32> {
    let before = Interruptions::so_far();
    hold::release_all();
    // Frames of other streams: a read from the kernel has left them in the lane, where they would end every sleep.
    let _ = channel.sort();
    // Bytes that come through the kernel wake a sleeper, they do not end a spin.
    let through_kernel = channel.own_line(slot).passed.load(Ordering::Relaxed) & 1 == 0;
    let may_go_on = || {
        let moved = || channel.leads_to_agent() && !(channel.is_open(slot) && socket.is_at(channel, slot));
        let news = channel.can_read(slot, socket.generation(), fd)
            || channel.has_frames()
            || !channel.usable()
            || moved();
        news || !through_kernel && channel.reaches_kernel(slot, socket.generation(), fd)
    };
    if !through_kernel && spin::until(may_go_on) {
        return Ok(());
    }
    let deadline = patience.deadline(fd, socket);
    let limited = deadline != u64::MAX;
    let is_late = || limited && sys::now_ns() >= deadline;
    let Some(bell) = Borrowed::new() else {
        // Without a bell: look again after a moment.
        sys::sleep_ns(500_000);
        return if is_late() { Err(libc::EAGAIN) } else { Ok(()) };
    };
    let waiters = &channel.own_line(slot).receive_waiters;
    let introduced = channel.introduce(bell.number, bell.fd());
    let placed = waiters.add_once(bell.number) && introduced;
    bell.doze();
    let rest = Rest::begin(core::iter::once(channel));
    let placed = placed && rest.is_sure();
    let over = socket.over.load(Ordering::Relaxed);
    let urgent = if channel.leads_to_agent() { libc::POLLPRI } else { 0 };
    let events = libc::POLLIN | libc::POLLRDHUP | urgent;
    let watched = channel.watches_kernel(slot, socket.generation(), over, events);
    let mut set = [
        libc::pollfd { fd: watched.map_or(-1, |_| fd), events: watched.unwrap_or(0), revents: 0 },
        libc::pollfd { fd: bell.fd(), events: libc::POLLIN, revents: 0 },
    ];
    let result = if may_go_on() {
        Ok(1)
    } else if before.breaking_since() || limited && before.any_since() {
        Err(libc::EINTR)
    } else if before.any_since() {
        // The handler may have slept by the same bell and taken its rings.
        Ok(1)
    } else {
        sleep(&mut set, time_left(limited.then_some(deadline), !placed))
    };
    drop(rest);
    bell.wake(set[1].revents != 0);
    if bell.is_ours() {
        waiters.remove(bell.number);
    }
    bell.give_back();
    if set[0].revents & !libc::POLLIN != 0 || set[0].revents != 0 && !through_kernel {
        socket.hint.store(true, Ordering::Relaxed);
    }
    match result {
        Ok(0) if is_late() => Err(libc::EAGAIN),
        Err(libc::EINTR) if !limited && goes_on(before) => Ok(()),
        result => result.map(drop),
    }
}

/// Waits until a stream that returns to the kernel has done so; EINTR, or EAGAIN after SO_SNDTIMEO, otherwise.
#[cold]
pub fn for_return(fd: i32, channel: &Channel, slot: u32) -> Result<(), i32> {
    let (before, start, mut naps) = (Interruptions::so_far(), sys::now_ns(), Naps::new());
    let limit = time_limit(fd, libc::SO_SNDTIMEO).map(|limit| nanoseconds(&limit));
    while channel.recovery(slot) == Recovery::Running {
        if limit.is_some_and(|limit| sys::now_ns() - start >= limit) {
            return Err(libc::EAGAIN);
        }
        if before.breaking_since() || limit.is_some() && before.any_since() {
            return Err(libc::EINTR);
        }
        sys::cancellable(|| naps.nap());
    }
    Ok(())
}

fn sleep(set: &mut [libc::pollfd], mut limit: libc::timespec) -> Result<usize, i32> {
    stats::process().sleeps.add(1);
    // SAFETY: the set and the limit are valid, no mask.
    unsafe { sys::cancellable(|| sys::ppoll(set.as_mut_ptr(), set.len(), &mut limit, core::ptr::null())) }
}

/// SO_RCVTIMEO or SO_SNDTIMEO, as the kernel keeps it.
fn time_limit(fd: i32, option: i32) -> Option<libc::timespec> {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: plain integers.
    unsafe { sys::getsockopt(fd, libc::SOL_SOCKET, option, &mut value) }.ok()?;
    let nothing = value.tv_sec == 0 && value.tv_usec == 0;
    (!nothing).then_some(libc::timespec { tv_sec: value.tv_sec, tv_nsec: value.tv_usec * 1000 })
}

/// Whether an interrupted read goes on by itself (signal(7)).
fn goes_on(before: Interruptions) -> bool {
    if before.any_since() { !before.breaking_since() } else { all_restart() }
}

/// Whether an interrupted read goes on by itself: when every handler was installed with SA_RESTART (signal(7)).
/// For handlers that were set past libc; the kernel does not say which signal came. Faults and the C library's own
/// signals do not count.
fn all_restart() -> bool {
    const FAULTS: [i32; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT];
    (1..=64).filter(|signal| !FAULTS.contains(signal) && !matches!(signal, 32 | 33)).all(|signal| {
        let action = sys::signal_action(signal);
        action.handler <= 1 || action.flags as i32 & libc::SA_RESTART != 0
    })
}
