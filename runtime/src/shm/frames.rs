//! Frames in a segment's rings: room for one, its header, the block that it names. Every number that the other side may
//! have written is checked here; an error says what was impossible.

use super::ring::{Lie, Producer};
use super::segment::Segment;
use convoy_aggregator::wire::{self, BlockRef, Header, Kind};
use core::sync::atomic::{AtomicU64, Ordering};

/// How far before the next frame lines are fetched for writing, in bytes: two lines, or two small messages.
const AHEAD: u64 = 128;

impl Segment {
    fn capacity(&self) -> u64 {
        u64::from(self.geometry.ring_bytes)
    }

    /// Room for a frame with `length` bytes of payload in the ring of side `sender`, contiguous; a Pad frame fills the end
    /// of the ring. Nothing without room. The caller is the only one who writes there, with this producer.
    #[inline]
    pub fn reserve(
        &self,
        sender: usize,
        producer: &mut Producer,
        length: usize,
    ) -> Result<Option<*mut u8>, Lie> {
        let capacity = self.capacity();
        let span = wire::span(length as u32) as u64;
        let to_end = capacity - producer.offset(capacity) as u64;
        let needed = if to_end < span { to_end + span } else { span };
        if !producer.room(&self.lane(sender).consumer, capacity, needed)? {
            return Ok(None);
        }
        let ring = self.ring(sender);
        if to_end < span {
            let length = (to_end as usize - wire::HEADER_BYTES) as u32;
            let pad = Header { kind: Kind::Pad, generation: 0, slot: 0, length };
            // SAFETY: the place up to the end of the ring is free, it holds at least a header.
            unsafe { write_header(ring.add(producer.offset(capacity)), pad) };
            producer.advance(to_end);
        }
        // SAFETY: the offset is below the ring's size.
        Ok(Some(unsafe { ring.add(producer.offset(capacity)) }))
    }

    /// The header at `offset` of the ring of side `sender`, read once, and the bytes its frame takes: it lies within the
    /// `available` bytes and does not wrap.
    #[inline]
    pub fn header_at(
        &self,
        sender: usize,
        offset: usize,
        available: u64,
    ) -> Result<(Header, u64), &'static str> {
        let header = Header::from_word(self.word_at(sender, offset)).map_err(|_| "impossible frame")?;
        let span = wire::span(header.length) as u64;
        if span > available || offset as u64 + span > self.capacity() {
            return Err("impossible frame length");
        }
        Ok((header, span))
    }

    /// The block that a frame at `offset`, checked by [`Self::header_at`], names; read once.
    pub fn block_at(&self, sender: usize, offset: usize, header: Header) -> Result<BlockRef, &'static str> {
        if header.length != BlockRef::BYTES {
            return Err("impossible block frame");
        }
        let named = BlockRef::from_word(self.word_at(sender, offset + wire::HEADER_BYTES));
        if named.block >= self.geometry.blocks || named.length > self.geometry.block_bytes {
            return Err("impossible block");
        }
        Ok(named)
    }

    /// Frames from that cursor on are about to be read: their first lines may come while the reader gets there.
    #[inline]
    pub fn fetch_for_reading(&self, sender: usize, cursor: u64) {
        for line in self.first_lines(sender, cursor) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint; the address is inside the mapping, and any would do.
            unsafe {
                core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.cast())
            };
        }
    }

    /// The next frame will be written at that cursor, the one after it a little behind: the other side, which has read what lay there,
    /// may give the lines up by then.
    #[inline]
    pub fn fetch_for_writing(&self, sender: usize, cursor: u64) {
        for line in self.first_lines(sender, cursor + AHEAD) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, for the same address; processors without it take it for a NOP (Intel SDM, PREFETCHW).
            unsafe {
                core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly))
            };
        }
    }

    #[inline]
    fn first_lines(&self, sender: usize, cursor: u64) -> [*mut u8; 2] {
        let mask = self.capacity() - 1;
        [0, 64].map(|step| self.ring(sender).wrapping_add(((cursor + step) & mask) as usize))
    }

    #[inline]
    fn word_at(&self, sender: usize, offset: usize) -> u64 {
        let offset = offset & (self.geometry.ring_bytes as usize - 1) & !7;
        // SAFETY: the offset is below the ring's size, a power of two, and a multiple of 8.
        unsafe { (*self.ring(sender).add(offset).cast::<AtomicU64>()).load(Ordering::Relaxed) }
    }
}

/// # Safety
/// `target` is 8 writable, aligned bytes of the ring.
#[inline]
pub unsafe fn write_header(target: *mut u8, header: Header) {
    // SAFETY: the caller's promise; the receiver reads the word after the Release of the cursor.
    unsafe { (*target.cast::<AtomicU64>()).store(header.to_word(), Ordering::Relaxed) };
}
