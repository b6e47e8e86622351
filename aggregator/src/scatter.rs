//! Batches: frames one after the other in contiguous bytes, taken apart and put together.
//!
//! Lanes are not batches: a lane's bytes change while they are read, so the runtime copies a frame's
//! header out of it and uses [`crate::wire`] directly.

use alloc::vec::Vec;

use crate::wire::{BlockRef, HEADER_BYTES, Header, Kind, MAX_PAYLOAD, MAX_SLOT, WireError, span};

/// One frame inside a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header; `header.length` is the length of `payload`.
    pub header: Header,
    /// Its payload without padding.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The pool block that this frame names.
    ///
    /// # Errors
    /// [`WireError::BlockRef`] when it is not a block frame, or its payload is not one reference.
    pub fn block(&self) -> Result<BlockRef, WireError> {
        match (self.header.kind, self.payload.first_chunk()) {
            (Kind::Block, Some(word)) if self.header.length == BlockRef::BYTES => {
                Ok(BlockRef::from_word(u64::from_le_bytes(*word)))
            }
            _ => Err(WireError::BlockRef),
        }
    }
}

/// The frames of a batch in order, padding frames included. Ends after the first error, because nothing
/// tells where the next frame would begin. What padding bytes hold is not looked at.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Reads `batch` from its beginning.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { rest: batch }
    }

    fn take(&mut self) -> Result<Frame<'a>, WireError> {
        let word = self.rest.first_chunk().ok_or(WireError::Truncated)?;
        let header = Header::from_word(u64::from_le_bytes(*word))?;
        let (frame, rest) = self.rest.split_at_checked(span(header.length)).ok_or(WireError::Truncated)?;
        let payload =
            frame.get(HEADER_BYTES..HEADER_BYTES + header.length as usize).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(Frame { header, payload })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.take();
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

impl core::iter::FusedIterator for Frames<'_> {}

/// Adds one frame, padded with zeros, to the end of `batch`.
///
/// # Errors
/// [`WireError::Field`] when `header.length` is not the payload's length or a field exceeds its bits;
/// the batch is then as it was.
pub fn append(batch: &mut Vec<u8>, header: Header, payload: &[u8]) -> Result<(), WireError> {
    let fits = header.length <= MAX_PAYLOAD && header.slot <= MAX_SLOT;
    if !fits || header.length as usize != payload.len() {
        return Err(WireError::Field);
    }
    let end = batch.len() + span(header.length);
    batch.reserve(span(header.length));
    batch.extend_from_slice(&header.to_word().to_le_bytes());
    batch.extend_from_slice(payload);
    batch.resize(end, 0);
    Ok(())
}
