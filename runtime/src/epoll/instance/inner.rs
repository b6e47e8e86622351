//! What stands in the kernel for an epoll instance: the inner instance, the bell, nested epoll instances.
//! Which streams are ready is judged in `instance::ready`.

use super::{BOTH, EDGE, IN_SIDE, Nested, ONESHOT, State};
use crate::bell::{self, Bell};
use crate::channel::Channel;
use crate::{session, socket, stats, sys, table};
use core::sync::atomic::Ordering;

/// Data of the bell in the inner instance; lifelines have their descriptor.
const BELL: u64 = u64::MAX;
/// Number of the bell among Convoy's own in the program's instance, behind those of nested instances.
const DIRECT_BELL: u64 = table::CAPACITY as u64 + 1;
const EPOLLIN: u32 = libc::EPOLLIN as u32;
/// What the inner instance watches a lifeline for.
const LIFELINE: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;

impl State {
    pub(super) fn open_inner(&mut self) -> sys::Answer<()> {
        if self.inner >= 0 {
            return Ok(());
        }
        let inner = table::make(sys::epoll_create)?;
        let mut event = libc::epoll_event { events: EPOLLIN, u64: self.draw_mark() };
        // SAFETY: one valid event.
        if let Err(errno) = unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, inner, &mut event) } {
            table::abandon(inner);
            return Err(errno);
        }
        self.inner = inner;
        self.bell = Bell::create();
        let Some(bell) = &self.bell else {
            self.tick = true;
            return Ok(());
        };
        bell.set_sleepers(self.sleepers);
        let fd = bell.fd();
        if !self.watched && rings_are_edges() {
            let own = self.draw_mark().wrapping_add(DIRECT_BELL);
            let mut event = libc::epoll_event { events: EPOLLIN | EDGE, u64: own };
            // SAFETY: one valid event.
            self.direct = unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, fd, &mut event) }.is_ok();
        }
        if !self.direct {
            self.watch_bell_inside(fd);
        }
        Ok(())
    }

    /// The kernel reports the state of a descriptor at its registration. That is no news, neither here, where it is judged once, nor
    /// for those who watch this instance.
    pub(super) fn add_lifeline(&mut self, fd: i32) -> sys::Answer<()> {
        let mut lifeline = libc::epoll_event { events: LIFELINE, u64: u64::from(fd as u32) };
        if self.watched {
            let _ = self.heed_inner(0);
        }
        // SAFETY: one valid event.
        let added = unsafe { sys::epoll_ctl(self.inner, libc::EPOLL_CTL_ADD, fd, &mut lifeline) };
        self.take_inner();
        if self.watched {
            self.tick |= self.heed_inner(EPOLLIN).is_err();
        }
        added
    }

    fn heed_inner(&mut self, events: u32) -> sys::Answer<()> {
        let mut event = libc::epoll_event { events, u64: self.mark };
        // SAFETY: one valid event.
        unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_MOD, self.inner, &mut event) }
    }

    fn watch_bell_inside(&mut self, bell: i32) {
        let mut event = libc::epoll_event { events: EPOLLIN, u64: BELL };
        // SAFETY: one valid event.
        self.tick |= unsafe { sys::epoll_ctl(self.inner, libc::EPOLL_CTL_ADD, bell, &mut event) }.is_err();
    }

    /// The instance is watched by poll or another instance, or is about to be shared with a child: its state as the kernel sees it
    /// must be right without anybody taking edges.
    pub fn expect_watchers(&mut self) {
        self.watched = true;
        if core::mem::take(&mut self.direct)
            && let Some(fd) = self.bell.as_ref().map(Bell::fd)
        {
            // Rings that are in the FIFO show there.
            self.watch_bell_inside(fd);
            // SAFETY: no event is needed to delete.
            let _ = unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_DEL, fd, core::ptr::null_mut()) };
        }
    }

    /// A number the program does not use as data.
    fn draw_mark(&mut self) -> u64 {
        if self.mark == 0 {
            let seed = (self as *const Self as u64).rotate_left(17) ^ sys::now_ns();
            self.mark = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        self.mark
    }

    /// The bell stands wherever a peer looks for whom to wake.
    pub(super) fn place_bell(&mut self, channel: &Channel, slot: u32) {
        if channel.leads_to_agent() {
            // Its rings are a page of the FIFO each, not a byte (vmsplice), so that must be emptied for each.
            self.expect_watchers();
        }
        let Some(number) = self.bell.as_ref().map(|bell| bell.number) else {
            self.tick = true;
            return;
        };
        let introduced = channel.introduce(number, self.bell.as_ref().map_or(-1, Bell::fd));
        let placed = channel.own_line(slot).receive_waiters.add(number) && introduced;
        self.tick |= !placed;
    }

    /// A socket's stream is another one: the bell stands there from now on.
    pub fn follow_stream(&mut self, socket: u32, old: &Channel, old_slot: u32, channel: &Channel, slot: u32) {
        let descriptors = self.descriptors_of(socket);
        for fd in &descriptors {
            if let Some(bell) = &self.bell {
                old.own_line(old_slot).receive_waiters.remove(bell.number);
            }
            self.place_bell(channel, slot);
            self.news(*fd, BOTH);
        }
        if !descriptors.is_empty() {
            self.wake_sleeper();
        }
    }

    /// The bell is not rung for a stream that is not here any more.
    pub(super) fn unplace_bell(&self, socket: u32) {
        let stream = socket::at(socket).and_then(socket::Socket::stream);
        if let (Some(bell), Some((channel, slot))) = (&self.bell, stream) {
            channel.own_line(slot).receive_waiters.remove(bell.number);
        }
    }

    /// A thread that slept in this instance is awake.
    pub fn rouse(&mut self) {
        self.sleepers = self.sleepers.saturating_sub(1);
        if let Some(bell) = &self.bell {
            if self.direct {
                bell.wake_by_edge()
            } else {
                bell.wake(false)
            }
            // Rings may have been taken.
            self.unseen = true;
        }
    }

    /// Takes Convoy's own registrations out of the first `filled` events and acts upon them; how many are left.
    pub fn without_own(&mut self, events: &mut [libc::epoll_event], filled: usize) -> usize {
        let mut kept = 0;
        for index in 0..filled {
            let Some(event) = events.get(index).copied() else { break };
            if self.take_own(event.u64) {
                continue;
            }
            if let Some(place) = events.get_mut(kept) {
                *place = event;
                kept += 1;
            }
        }
        kept
    }

    /// A thread that sleeps in this instance looks again.
    pub fn wake_sleeper(&self) {
        if self.sleepers > 0
            && let Some(bell) = &self.bell
        {
            bell::ring_surely(bell.number);
        }
    }

    /// Moves the inner instance to another number.
    pub fn move_own(&mut self, fd: i32) -> bool {
        if self.inner != fd {
            return false;
        }
        let Ok(moved) = table::copy_behind(fd) else { return false };
        self.inner = moved;
        true
    }

    /// Whether the kernel serves everything that is registered here.
    pub fn kernel_only(&self) -> bool {
        self.inner < 0 && self.nested.is_empty()
    }

    /// Whether an event of the program's instance is one of Convoy's own registrations; acts upon it.
    pub fn take_own(&mut self, data: u64) -> bool {
        let number = data.wrapping_sub(self.mark);
        if self.mark == 0 || number > DIRECT_BELL {
            return false;
        }
        match number {
            0 => self.take_inner(),
            DIRECT_BELL => self.take_direct_ring(),
            _ => self.inner_news((number - 1) as i32, EPOLLIN),
        }
        true
    }

    /// A thread that was given a ring as an edge may have been cancelled, or have left by a jump, before it took it: nobody would
    /// ring again. To be called before a look for work.
    pub fn take_lost_ring(&self) {
        if let Some(bell) = self.bell.as_ref().filter(|_| self.direct)
            && bell.is_rung()
        {
            bell.take_edge();
        }
    }

    fn take_direct_ring(&mut self) {
        self.unseen = true;
        stats::process().wakeups.add(1);
        if let Some(bell) = &self.bell {
            bell.take_edge();
        }
    }

    /// Acts on what the inner instance has to say: the bell rang, lifelines or nested instances have news.
    pub fn take_inner(&mut self) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for 64 events, a timeout, no mask.
        let filled = unsafe { sys::epoll_wait(self.inner, events.as_mut_ptr(), 64, &now, core::ptr::null()) };
        self.unseen |= filled.is_ok_and(|filled| filled > 0);
        for event in events.iter().take(filled.unwrap_or(0)) {
            let data = event.u64;
            if data == BELL {
                if let Some(bell) = &self.bell {
                    bell.take_rings(true);
                }
                stats::process().wakeups.add(1);
                continue;
            }
            self.inner_news(data as u32 as i32, event.events);
        }
    }

    fn inner_news(&mut self, fd: i32, events: u32) {
        if let Some(nested) = self.nested.iter_mut().find(|nested| nested.fd == fd) {
            nested.edge = true;
            return;
        }
        if let Some(socket) = table::socket(fd).and_then(socket::at) {
            socket.hint.store(true, Ordering::Relaxed);
        }
        if self.is_promoted(fd) {
            self.news(fd, events);
        }
    }

    /// Takes over an epoll instance that the kernel has accepted as a member: it only says that something happened.
    pub fn nest(&mut self, fd: i32, event: &libc::epoll_event) -> sys::Answer<()> {
        self.watch_nested(fd, event.events)?;
        let data = event.u64;
        self.nested.push(Nested {
            fd,
            events: event.events,
            data,
            ready: false,
            heard: 0,
            was_ready: false,
            edge: true,
        });
        if self.sleepers > 0 {
            // A bell: whoever sleeps here may have been alone with the kernel.
            self.open_inner()?;
        }
        self.wake_sleeper();
        Ok(())
    }

    /// The kernel says that something happened there, if the program wants to hear of it at all.
    fn watch_nested(&mut self, fd: i32, wanted: u32) -> sys::Answer<()> {
        let own = self.draw_mark().wrapping_add(1 + u64::from(fd as u32));
        let events = if wanted & IN_SIDE == 0 { EDGE } else { EPOLLIN | EDGE };
        let mut watched = libc::epoll_event { events, u64: own };
        // SAFETY: one valid event.
        unsafe { sys::epoll_ctl(self.fd, libc::EPOLL_CTL_MOD, fd, &mut watched) }
    }

    /// Takes note of how nested instances are: whether ready, and their count of news. Whether one is to be reported.
    pub fn hear_nested(&mut self, looks: &[(i32, bool, u64)]) -> bool {
        for (fd, ready, news) in looks {
            let Some(nested) = self.nested.iter_mut().find(|nested| nested.fd == *fd) else { continue };
            nested.ready = *ready;
            if core::mem::replace(&mut nested.heard, *news) != *news {
                nested.edge = true;
                self.news_count += u64::from(nested.events & IN_SIDE != 0);
            }
        }
        self.nested.iter().any(Nested::reports)
    }

    /// Reports nested instances, as they were when they were last looked at.
    pub fn collect_nested(&mut self, events: &mut [libc::epoll_event]) -> usize {
        let mut filled = 0;
        for index in 0..self.nested.len() {
            let Some(nested) = self.nested.get_mut(index) else { break };
            let report = nested.reports();
            nested.was_ready = nested.ready;
            let Some(place) = events.get_mut(filled).filter(|_| report) else { continue };
            *place = libc::epoll_event { events: EPOLLIN, u64: nested.data };
            filled += 1;
            nested.edge = false;
            if nested.events & ONESHOT != 0 {
                nested.events &= EDGE | ONESHOT;
                let (fd, events) = (nested.fd, nested.events);
                // As it was, it would be one event that nobody gets.
                let _ = self.watch_nested(fd, events);
            }
        }
        filled
    }
}

/// Whether every ring is an edge, also one into a FIFO that holds others: since Linux 5.14, as is this option.
fn rings_are_edges() -> bool {
    session::current().is_some_and(|session| session.network != 0)
}
