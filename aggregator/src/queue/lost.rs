//! Streams that were given up here while the other side still sends: what comes of them reaches no program, so it must not be said
//! to be delivered before the other side knows of the loss. Then it keeps the bytes, which its program sends again through the
//! kernel; otherwise it would let them go, and the stream could not return.

use alloc::collections::VecDeque;

use super::{Piece, Queue, StreamNumber};
use crate::batch::Control;

/// Losses by their number in the order in which they are told, and what waits for them to be heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Losses so far that are to be told, and that the other side has heard of.
    queued: u64,
    heard: u64,
    /// Written into batches so far, and those batches, each with how many were told with it and before it.
    written: u64,
    told: VecDeque<(u32, u64)>,
    /// Parts of batches that have arrived, each with the losses that are to be heard of first.
    withheld: VecDeque<(u64, u32)>,
}

impl Losses {
    /// A loss is in the batch with that number.
    pub(super) fn on_written(&mut self, sequence: u32) {
        self.written += 1;
        match self.told.back_mut() {
            Some((last, count)) if *last == sequence => *count = self.written,
            _ => self.told.push_back((sequence, self.written)),
        }
    }

    /// The other side has taken all batches before `consumed`.
    pub(super) fn on_consumed(&mut self, consumed: u32) {
        while let Some((sequence, count)) = self.told.front()
            && (sequence.wrapping_sub(consumed) as i32) < 0
        {
            self.heard = *count;
            self.told.pop_front();
        }
    }

    /// The next part that need not wait any more.
    pub(super) fn next_free(&mut self) -> Option<u32> {
        let (needed, sequence) = *self.withheld.front()?;
        (needed <= self.heard).then(|| self.withheld.pop_front())?;
        Some(sequence)
    }
}

impl<P: Piece> Queue<P> {
    pub(super) fn tell_lost(&mut self, number: StreamNumber) {
        self.losses.queued += 1;
        self.controls.push_back((number, Control::Lost));
    }

    /// Bytes of a batch are of a stream that is not there any more. True when the batch must not be delivered yet: they count as a
    /// part of it that waits, and are handed over when the other side has heard of all losses.
    pub fn withhold(&mut self, sequence: u32) -> bool {
        let losses = &mut self.losses;
        let waits = losses.heard < losses.queued;
        if waits {
            losses.withheld.push_back((losses.queued, sequence));
        }
        waits
    }

    /// The other side has taken all batches before `consumed`: it knows of the losses in them.
    pub(super) fn hear_of_losses(&mut self, consumed: u32) {
        self.losses.on_consumed(consumed);
        while let Some(sequence) = self.losses.next_free() {
            self.on_handed_over(sequence);
        }
    }
}
