//! Frames that the program has sent.

use super::{Blocks, Lie, PROGRAM, Port};
use convoy_aggregator::wire::{self, Kind};
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// A frame of a stream, still in the segment.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Its stream.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u8,
    /// Its payload.
    pub piece: Piece,
    /// The ring's cursor behind it: to be given to [`Port::release`] when the payload is not needed any more.
    pub end: u64,
}

/// Where a payload is.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Bytes.
    pub length: u32,
    /// Block that holds them; otherwise they are in the ring.
    pub block: Option<u32>,
    offset: usize,
}

impl Port {
    /// Looks how far the program has published. True when there are frames to take.
    ///
    /// # Errors
    /// The cursor is impossible.
    pub fn refresh(&mut self) -> Result<bool, Lie> {
        let capacity = self.capacity();
        self.consumer.refresh(&self.segment.lane(PROGRAM).producer, capacity)
    }

    /// The next frame. Its payload stays where it is until [`Port::release`].
    ///
    /// # Errors
    /// The frame is impossible.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Lie> {
        loop {
            let (offset, available) = self.consumer.next(self.capacity());
            if available == 0 {
                return Ok(None);
            }
            let checked = self.segment.header_at(PROGRAM, offset, available);
            let (header, span) = checked.map_err(Lie)?;
            let piece = match header.kind {
                Kind::Pad => {
                    self.consumer.advance(span);
                    continue;
                }
                Kind::Data => {
                    Piece { length: header.length, block: None, offset: offset + wire::HEADER_BYTES }
                }
                Kind::Block => {
                    let named = self.segment.block_at(PROGRAM, offset, header).map_err(Lie)?;
                    self.name(named.block)?;
                    Piece { length: named.length, block: Some(named.block), offset: 0 }
                }
            };
            // Nobody sends no bytes: such frames would cost the agent something and the sender no credit.
            if header.slot >= self.slots() {
                return Err(Lie("impossible stream"));
            }
            if piece.length == 0 {
                return Err(Lie("a frame without bytes"));
            }
            self.consumer.advance(span);
            let end = self.consumer.head();
            return Ok(Some(Frame { slot: header.slot, generation: header.generation, piece, end }));
        }
    }

    /// Copies bytes of a payload, from its byte `from` on, to `into`, which is not longer than what is left of it.
    pub fn copy(&self, piece: &Piece, from: u32, into: &mut [u8]) {
        let from = from.min(piece.length);
        let length = into.len().min((piece.length - from) as usize);
        let base = match piece.block {
            None => self.segment.ring(PROGRAM).wrapping_add(piece.offset),
            Some(block) => self.segment.block(PROGRAM, block),
        };
        // SAFETY: the piece was checked to lie inside the ring or block, the target has room; the program may write there
        // meanwhile, which garbles its own bytes only.
        unsafe { core::ptr::copy_nonoverlapping(base.add(from as usize), into.as_mut_ptr(), length) };
    }

    /// Everything before the cursor `end` is the program's again. Cursors only grow.
    pub fn release(&mut self, end: u64) {
        self.consumer.release_to(&self.segment.lane(PROGRAM).consumer, end);
    }

    /// Notes that a frame names a block, which none does yet: what a program makes others hold is as large as its memory at
    /// most.
    pub(super) fn name(&mut self, block: u32) -> Result<(), Lie> {
        let (word, bit) =
            (self.named.get_mut(block as usize / 64).ok_or(Lie("impossible block"))?, 1 << (block % 64));
        let known = *word & bit != 0;
        *word |= bit;
        if known { Err(Lie("a block that another frame names")) } else { Ok(()) }
    }

    /// Gives a block back to the program.
    pub fn return_block(&mut self, block: u32) {
        if let Some(word) = self.named.get_mut(block as usize / 64) {
            *word &= !(1 << (block % 64));
        }
        if let Some(word) = self.segment.lane(PROGRAM).returned.get(block as usize / 64) {
            word.fetch_or(1 << (block % 64), Ordering::Release);
        }
    }

    /// The memory of the program's blocks, for its registration with a device.
    pub fn blocks(&self) -> Arc<Blocks> {
        Arc::clone(&self.mapping)
    }

    /// Where in that memory a block begins.
    pub fn block_offset(&self, block: u32) -> usize {
        block as usize * self.segment.geometry.block_bytes as usize
    }
}
