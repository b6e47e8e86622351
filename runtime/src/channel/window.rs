//! How far a stream's sender may be ahead: its window follows what its reader takes. Called when credit is granted, so once for half
//! a window of bytes, never for a message. The rule and the limits are in `memory`.

use super::Channel;
use crate::memory::{self, Pace};
use crate::shm::party::Receiving;
use crate::{position, socket, stats};
use core::sync::atomic::{AtomicU32, Ordering};

/// What a stream to another host may wait for the agents, in microseconds, beside the round trip between the hosts.
const AGENTS_US: u64 = 25_000;

/// Who takes half of a window in so short a time is fast at any distance.
const AT_ONCE_US: u64 = 400;

/// The present time as `Receiving::granted_at` has it.
pub(super) fn now() -> u32 {
    (position::ticks() >> Receiving::GRANT_SHIFT) as u32
}

impl Channel {
    /// Credit was granted: the next grant is of more, of less or of as much. What was granted stays granted, so memory of a window
    /// that has become smaller comes back when the next credit is granted.
    #[inline]
    pub(super) fn adapt_window(&self, slot: u32, stream: &mut Receiving) {
        let outstanding = (stream.credit.granted() - stream.credit.consumed()) as u32;
        let now = now();
        let passed = u64::from(now.wrapping_sub(core::mem::replace(&mut stream.granted_at, now)));
        let half_window_us = passed * Receiving::GRANT_US;
        if stream.window != outstanding || !memory::stays_largest(outstanding, half_window_us) {
            self.change_window(slot, stream, outstanding, half_window_us);
        }
    }

    #[inline(never)]
    fn change_window(&self, slot: u32, stream: &mut Receiving, outstanding: u32, half_window_us: u64) {
        if stream.window > outstanding {
            self.narrow(slot, outstanding);
            stream.window = outstanding;
        }
        let asks = self.leads_to_agent() && half_window_us > AT_ONCE_US;
        let round_trip_us = if asks { self.round_trip_us(slot) } else { 0 };
        let pace = Pace { half_window_us, round_trip_us };
        let wanted = memory::next_window(outstanding, pace);
        if wanted > outstanding && self.widen(slot, wanted) {
            stream.window = wanted;
            stats::process().windows_widened.add(1);
        } else if wanted < outstanding {
            stats::process().windows_narrowed.add(1);
        } else {
            return;
        }
        stream.credit.set_window(u64::from(wanted));
    }

    /// Reserves what is missing for such a window. What another process has reserved that shares the stream does not count.
    fn widen(&self, slot: u32, window: u32) -> bool {
        let before = self.reserved(slot).load(Ordering::Relaxed);
        let more = window.saturating_sub(before);
        if before == 0 || !memory::grow(more) {
            return false;
        }
        let kept = self.replace_reserved(slot, before, before + more);
        if !kept {
            memory::release(more);
        }
        kept
    }

    /// Gives back what is beyond such a window.
    fn narrow(&self, slot: u32, window: u32) {
        let before = self.reserved(slot).load(Ordering::Relaxed);
        if window > 0 && window < before && self.replace_reserved(slot, before, window) {
            memory::release(before - window);
        }
    }

    /// False when the stream was given up meanwhile. The receive lock keeps others away.
    fn replace_reserved(&self, slot: u32, before: u32, after: u32) -> bool {
        self.reserved(slot).compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn note_window(&self, slot: u32, bytes: u32) {
        self.reserved(slot).store(bytes, Ordering::Relaxed);
    }

    pub(super) fn release_window(&self, slot: u32) {
        memory::release_stream(self.reserved(slot).swap(0, Ordering::Relaxed));
    }

    fn reserved(&self, slot: u32) -> &AtomicU32 {
        &self.reserved[slot as usize]
    }

    /// Of a stream to another host, by one system call.
    fn round_trip_us(&self, slot: u32) -> u64 {
        let known = self.socket_of(slot).checked_sub(1).and_then(socket::at);
        AGENTS_US + known.map_or(0, |socket| position::round_trip_us(socket.fd.load(Ordering::Relaxed)))
    }
}
