//! The ready queue of an epoll instance: which promoted streams have news, and what to report for them.
//! What the kernel serves is not here.

use super::{BYTES, EDGE, IN_SIDE, Item, KERNEL, ONESHOT, OUT_SIDE, State};
use crate::wait::readiness;
use crate::{position, socket, stats};

const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const OVER: u32 = ALWAYS | libc::EPOLLRDHUP as u32;

impl State {
    /// Something has changed for a promoted stream: it may be ready for `events`, again or still.
    #[inline]
    pub fn news(&mut self, fd: i32, events: u32) {
        let Some(item) = self.items.get_mut(fd as u32 as usize) else {
            return;
        };
        if events & OUT_SIDE != 0 {
            item.out_edge = true;
        }
        item.in_edge = true;
        let awaited = item.present && item.armed && (item.events | ALWAYS) & events != 0;
        self.news_count += u64::from(awaited);
        if !item.queued {
            item.queued = true;
            self.ready.push_back(fd);
        }
    }

    pub(super) fn enqueue(&mut self, fd: i32) {
        if let Some(item) = self.items.get_mut(fd as u32 as usize)
            && !item.queued
        {
            item.queued = true;
            self.ready.push_back(fd);
        }
    }

    /// A stream that is ready when it is registered, or its registration changed, is news for those who watch this instance.
    pub fn count_if_ready(&mut self, fd: i32) {
        if self.watched
            && let Some(item) = self.item(fd)
            && state_of(fd, item.socket, item.events, position::ticks()) != 0
        {
            self.news_count += 1;
        }
    }

    /// Queues streams with bytes that another process of the family may have sorted: its notes do not come here.
    pub fn enqueue_with_bytes(&mut self) {
        for (fd, index) in self.promoted_sockets() {
            let stream = socket::at(index).and_then(socket::Socket::stream);
            if let Some((channel, slot)) = stream.filter(|(channel, slot)| channel.has_bytes(*slot)) {
                if self.hears(fd, channel.received_bytes(slot)) {
                    self.news(fd, BYTES);
                } else {
                    self.enqueue(fd);
                }
            }
        }
    }

    /// About to fork: what has come so far is no news for either process.
    pub(super) fn note_heard(&mut self) {
        for (fd, index) in self.promoted_sockets() {
            if let Some((channel, slot)) = socket::at(index).and_then(socket::Socket::stream) {
                self.hears(fd, channel.received_bytes(slot));
            }
        }
    }

    /// Takes note of how many bytes have come; whether these are more than before.
    fn hears(&mut self, fd: i32, received: u64) -> bool {
        let item = self.items.get_mut(fd as u32 as usize);
        item.is_some_and(|item| core::mem::replace(&mut item.heard, received) != received)
    }

    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// Moves ready streams into `events`; level-triggered ones stay queued.
    pub fn collect(&mut self, events: &mut [libc::epoll_event]) -> usize {
        let mut filled = 0;
        let now = position::ticks();
        for _ in 0..self.ready.len() {
            if filled == events.len() {
                break;
            }
            let Some(fd) = self.ready.pop_front() else { break };
            let (ready, again) = self.evaluate(fd, true, now);
            if ready != 0 {
                let data = self.items.get(fd as u32 as usize).map_or(0, |item| item.data);
                if let Some(place) = events.get_mut(filled) {
                    *place = libc::epoll_event { events: ready, u64: data };
                    filled += 1;
                }
            }
            if again {
                self.enqueue(fd);
            }
        }
        if filled == events.len() && !self.ready.is_empty() {
            // More is ready than this thread could take.
            self.wake_sleeper();
        }
        if filled > 0 {
            stats::process().epoll_waits.add(1);
        }
        filled
    }

    /// What to report for a queued stream now, which is `time` in ticks (or, unless `reports`, what would be), and whether it stays
    /// queued.
    fn evaluate(&mut self, fd: i32, reports: bool, time: u64) -> (u32, bool) {
        let Some(item) = self.items.get_mut(fd as u32 as usize) else {
            return (0, false);
        };
        item.queued = false;
        if !item.present || !item.armed || item.socket == KERNEL {
            return (0, false);
        }
        let now = state_of(fd, item.socket, item.events, time);
        if item.events & EDGE != 0 {
            return (self.evaluate_edges(fd, now, reports, time), false);
        }
        (item.in_edge, item.out_edge) = (false, item.out_edge && now & OUT_SIDE == 0);
        let once = item.events & ONESHOT != 0;
        item.armed = now == 0 || !once;
        (now, now != 0 && !once)
    }

    /// The same for an edge-triggered registration: what is reported of its state `now`.
    fn evaluate_edges(&mut self, fd: i32, mut now: u32, reports: bool, time: u64) -> u32 {
        if reports && now & OVER != 0 && self.inner >= 0 {
            // The lifeline's own event of this change must not report it once more.
            self.take_inner();
            let item = self.items.get(fd as u32 as usize);
            now = item.map_or(0, |item| state_of(fd, item.socket, item.events, time));
        }
        let Some(item) = self.items.get_mut(fd as u32 as usize) else { return 0 };
        let in_part = now & IN_SIDE != 0 && item.in_edge;
        let out_part = now & OUT_SIDE != 0 && item.out_edge;
        let report = if in_part || out_part { now } else { 0 };
        (item.in_edge, item.out_edge) = (false, item.out_edge && now & OUT_SIDE == 0);
        item.armed = report == 0 || item.events & ONESHOT == 0;
        report
    }

    /// Whether a wait would report something at once.
    pub fn any_ready(&mut self) -> bool {
        (0..self.ready.len()).any(|_| {
            let Some(fd) = self.ready.pop_front() else {
                return false;
            };
            let Some(before) = self.items.get(fd as u32 as usize).copied() else {
                return false;
            };
            let (ready, _) = self.evaluate(fd, false, position::ticks());
            if let Some(item) = self.items.get_mut(fd as u32 as usize) {
                *item = Item { queued: false, ..before };
            }
            if ready != 0 {
                self.enqueue(fd);
            }
            ready != 0
        })
    }
}

/// What a promoted stream is ready for, of the registered `events`.
fn state_of(fd: i32, socket: u32, events: u32, time: u64) -> u32 {
    let Some(socket) = socket::at(socket) else { return 0 };
    let Some((channel, slot)) = socket.stream() else { return 0 };
    let wanted = events & (IN_SIDE | OUT_SIDE) | ALWAYS;
    // POLL* and EPOLL* bits are the same below 0x8000 (poll(2), epoll_ctl(2)).
    readiness(fd, socket, channel, slot, wanted as u16 as i16, time) as u16 as u32 & wanted
}
