//! Where the stream of a promoted socket is: which channel, slot and generation, in one word.

use super::Socket;
use crate::channel::{self, Channel};
use crate::table;
use core::sync::atomic::Ordering;

/// Channel, slot and generation, out of what [`Socket::place_word`] gives.
#[inline]
pub fn stream_at(word: u64) -> Option<(&'static Channel, u32, u8)> {
    Some((channel::at((word >> 32) as u32)?, (word >> 8) as u32 & 0xff_ffff, word as u8))
}

impl Socket {
    pub fn place(&self, channel: &Channel, slot: u32, generation: u8) {
        let word = u64::from(channel.index) << 32 | u64::from(slot) << 8 | u64::from(generation);
        self.place.store(word, Ordering::Release);
    }

    /// Channel and slot of a promoted socket.
    #[inline]
    pub fn stream(&self) -> Option<(&'static Channel, u32)> {
        self.whole_stream().map(|(channel, slot, _)| (channel, slot))
    }

    /// Whether its stream is still there: one that returned from another host may have left again, by another slot.
    pub fn is_at(&self, channel: &Channel, slot: u32) -> bool {
        self.stream().is_some_and(|(now, at)| core::ptr::eq(now, channel) && at == slot)
    }

    /// Channel, slot and generation, all of one moment.
    #[inline]
    pub fn whole_stream(&self) -> Option<(&'static Channel, u32, u8)> {
        stream_at(self.place_word())
    }

    /// The same for a call on `fd`; None as for [`Self::place_of`].
    #[inline]
    pub fn stream_of(&self, index: u32, fd: i32) -> Option<(&'static Channel, u32, u8)> {
        stream_at(self.place_of(index, fd)?)
    }

    /// Where the stream of `fd` is, whose socket was found to be `index` before. None when it is not any more: another thread has left
    /// the connection to the kernel, or closed it, and the socket may be another connection's.
    #[inline]
    pub fn place_of(&self, index: u32, fd: i32) -> Option<u64> {
        let place = self.place_word();
        // After the place: a socket is taken out of the table before it can be another connection's.
        table::is_socket(fd, index).then_some(place)
    }

    /// Where its stream is, in one word; see [`stream_at`].
    #[inline]
    pub fn place_word(&self) -> u64 {
        self.place.load(Ordering::Acquire)
    }

    pub fn generation(&self) -> u8 {
        self.place.load(Ordering::Relaxed) as u8
    }
}
