//! Streams of a link come and go: which number each has, and when a number may be another's.

use alloc::collections::VecDeque;

use super::{Piece, Queue, Stream, StreamNumber};

/// The numbers that one end hands out.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    odd: bool,
    free: VecDeque<StreamNumber>,
    fresh: u32,
    /// Not to be used yet, and since when.
    resting: VecDeque<(u64, StreamNumber)>,
}

/// How long a number rests, in microseconds.
const REST_US: u64 = 10_000_000;
/// The highest number.
const MOST_STREAM: StreamNumber = (1 << 22) - 1;

impl Numbers {
    pub(super) const fn new(odd: bool) -> Self {
        Self { odd, free: VecDeque::new(), fresh: 0, resting: VecDeque::new() }
    }

    const fn owns(&self, number: StreamNumber) -> bool {
        (number & 1 == 1) == self.odd
    }
}

impl<P: Piece> Queue<P> {
    /// A number that this end may hand out; nothing when all are in use.
    pub fn next_stream(&mut self, now_us: u64) -> Option<StreamNumber> {
        let numbers = &mut self.numbers;
        let rested = |(since, _): &(u64, StreamNumber)| now_us.saturating_sub(*since) > REST_US;
        while numbers.resting.front().is_some_and(rested)
            && let Some((_, number)) = numbers.resting.pop_front()
        {
            numbers.free.push_back(number);
        }
        if let Some(number) = numbers.free.pop_front() {
            return Some(number);
        }
        let number = numbers.fresh * 2 + u32::from(numbers.odd);
        (number <= MOST_STREAM).then(|| numbers.fresh += 1)?;
        Some(number)
    }

    /// A number that was not used after all.
    pub fn return_stream(&mut self, number: StreamNumber) {
        if self.numbers.owns(number) {
            self.numbers.free.push_back(number);
        }
    }

    /// Enters a stream; false when the number is taken, or was not for this end (`ours`) or the other to hand out.
    pub fn enter(&mut self, number: StreamNumber, program: usize, slot: u32, ours: bool) -> bool {
        if number > MOST_STREAM || self.numbers.owns(number) != ours {
            return false;
        }
        let index = number as usize;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        let Some(place @ None) = self.streams.get_mut(index) else { return false };
        *place = Some(Stream {
            program,
            slot,
            pending: VecDeque::new(),
            begun: 0,
            placed: None,
            queued: false,
            closing: false,
        });
        true
    }

    /// A stream has ended; what still waited of it is dropped.
    pub fn leave(&mut self, number: StreamNumber) {
        if let Some(Some(stream)) = self.streams.get_mut(number as usize).map(Option::take) {
            let small = || stream.pending.iter().filter(|taken| !taken.large);
            let left: u64 = small().map(|taken| u64::from(taken.piece.length())).sum();
            self.pending_bytes -= left - u64::from(stream.begun);
            self.pending_frames -= small().count() as u64;
            for queue in [&mut self.active, &mut self.large, &mut self.placed] {
                queue.retain(|queued| *queued != number);
            }
            // What comes into that place next is written later.
            self.free_places.extend(stream.placed);
            self.announced.retain(|(_, stream, _)| *stream != number);
            self.return_stream(number);
        }
    }

    /// The program of a stream is gone without an orderly end. What the other side has sent may still be on its way, so the
    /// number is not used again for a while.
    pub fn abandon(&mut self, number: StreamNumber, now_us: u64) {
        self.leave_for_long(number, now_us);
        self.tell_lost(number);
    }

    /// The other side takes a stream for open of which nothing is known here any more: it is told so, if that is true.
    pub fn disown(&mut self, number: StreamNumber) {
        if self.stream(number).is_none() {
            self.tell_lost(number);
        }
    }

    /// As [`Queue::leave`], for a stream of which batches may be on their way.
    pub fn leave_for_long(&mut self, number: StreamNumber, now_us: u64) {
        self.leave(number);
        let numbers = &mut self.numbers;
        if let Some(place) = numbers.free.iter().rposition(|free| *free == number) {
            numbers.free.remove(place);
            numbers.resting.push_back((now_us, number));
        }
    }
}
