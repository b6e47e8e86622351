//! Frames for the program, and waking it.

use super::{AGENT, Lie, PROGRAM, Port};
use crate::registry::BELLS;
use crate::shm::frames::write_header;
use crate::shm::waiters::Bells;
use convoy_aggregator::wire::{self, BlockRef, Header, Kind};
use core::sync::atomic::{Ordering, fence};
use std::os::fd::{AsRawFd, OwnedFd};

/// Payloads above this go into a block.
const INLINE: usize = 4096;

impl Port {
    /// Writes bytes of a stream, as far as there is room: how many. They are seen after [`Port::publish`].
    ///
    /// # Errors
    /// The program's cursor is impossible.
    pub fn put(&mut self, slot: u32, generation: u8, bytes: &[u8]) -> Result<usize, Lie> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let block =
                if rest.len() > INLINE { self.lent.lend(&self.segment.lane(AGENT).returned) } else { None };
            let put = match block {
                Some(block) => self.put_block(slot, generation, rest, block)?,
                None => self.put_inline(slot, generation, &rest[..rest.len().min(INLINE)])?,
            };
            if put == 0 {
                break;
            }
            done += put;
        }
        Ok(done)
    }

    fn put_inline(&mut self, slot: u32, generation: u8, bytes: &[u8]) -> Result<usize, Lie> {
        let Some(target) = self.reserve(bytes.len())? else { return Ok(0) };
        let header = Header { kind: Kind::Data, generation, slot, length: bytes.len() as u32 };
        // SAFETY: `reserve` gave room for header and payload.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), target.add(wire::HEADER_BYTES), bytes.len());
            write_header(target, header);
        }
        self.written(bytes.len());
        Ok(bytes.len())
    }

    fn put_block(&mut self, slot: u32, generation: u8, bytes: &[u8], block: u32) -> Result<usize, Lie> {
        let named = size_of::<u64>();
        let Some(target) = self.reserve(named)? else {
            self.lent.keep(block);
            return Ok(0);
        };
        let length = bytes.len().min(self.segment.geometry.block_bytes as usize);
        let header = Header { kind: Kind::Block, generation, slot, length: named as u32 };
        // SAFETY: the block is the agent's until the frame is published; `reserve` gave room for the frame.
        unsafe {
            let room = self.segment.block(AGENT, block);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), room, length);
            let word = BlockRef { block, length: length as u32 }.to_word();
            target.add(wire::HEADER_BYTES).cast::<u64>().write(word);
            write_header(target, header);
        }
        self.written(named);
        Ok(length)
    }

    /// Room for a frame with `length` bytes of payload.
    fn reserve(&mut self, length: usize) -> Result<Option<*mut u8>, Lie> {
        self.segment.reserve(AGENT, &mut self.producer, length)
    }

    fn written(&mut self, length: usize) {
        self.producer.advance(wire::span(length as u32) as u64);
        self.unpublished = true;
    }

    /// Makes everything written visible. Whoever waits for it is woken by [`Port::ring`], after [`fence_before_ring`].
    pub fn publish(&mut self) {
        if core::mem::take(&mut self.unpublished) {
            self.producer.publish(&self.segment.lane(AGENT).producer);
        }
    }

    /// A FIFO by which the program's bell `number` is rung. What it had before, which is nothing for a new number.
    ///
    /// # Errors
    /// There is no such bell.
    pub fn set_bell(&mut self, number: u16, fifo: OwnedFd) -> Result<Option<OwnedFd>, Lie> {
        let index = number as usize;
        if index >= BELLS {
            return Err(Lie("impossible bell"));
        }
        if self.fifos.len() <= index {
            self.fifos.resize_with(index + 1, || None);
        }
        let old = self.fifos[index].replace(fifo);
        // A ring that was wanted before the FIFO was there.
        if self.bells.word(number).rung.load(Ordering::SeqCst) == self.process {
            self.write_fifo(number);
        }
        Ok(old)
    }

    /// The bells of those who wait for a stream.
    pub fn bells(&self, slot: u32) -> Bells {
        self.segment.line(slot, PROGRAM).receive_waiters.snapshot()
    }

    /// Wakes who sleeps by a bell. To be called after [`Port::publish`] or a change of a line, and a
    /// [`fence_before_ring`]. Whether it was rung.
    pub fn ring(&self, bell: u16) -> bool {
        let rings = self.bells.word(bell).must_ring(self.process);
        if rings {
            self.write_fifo(bell);
        }
        rings
    }

    fn write_fifo(&self, number: u16) {
        if let Some(Some(fifo)) = self.fifos.get(number as usize) {
            // One that is full is readable.
            let _ = crate::sys::put_byte(fifo.as_raw_fd());
        }
    }
}

/// Orders what was published before the look at who sleeps (see `shm::bell_word`).
pub fn fence_before_ring() {
    fence(Ordering::SeqCst);
}
