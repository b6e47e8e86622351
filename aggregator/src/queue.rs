//! What one end of a link has to send, and what it has sent that was not delivered: streams with their frames, what is to
//! be told about them, and when a batch leaves. The link's cursors are in it, because batches carry them.
//!
//! Where payloads are kept, how batches are written and when links come and go is the caller's. A frame is known by a number of
//! its program's; the caller is told it when the frame has reached the other host, and keeps the payload until then.
//! Building a batch is in `build`, large payloads that travel beside the batches in `beside`, which numbers streams have in
//! `numbers`, what comes of streams that are lost in `lost`. Times are microseconds of any steady clock.

mod beside;
mod build;
mod lost;
mod numbers;

pub use build::Built;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::batch::{Control, Head};
use crate::gather::{Gather, Thresholds};
use crate::link::{LinkError, ReceiveLink, SendLink};
use crate::unsettled::Unsettled;
use lost::Losses;
use numbers::Numbers;

/// A stream's number on its link.
pub type StreamNumber = u32;

/// Where a payload is, as the caller knows it.
pub trait Piece: Copy {
    /// Bytes.
    fn length(&self) -> u32;
    /// Whether it could be written beside the batches.
    fn is_large(&self) -> bool;
}

/// A frame of a program that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Taken<P> {
    /// Its payload.
    pub piece: P,
    /// Its number among the frames of its program.
    pub frame: u64,
    /// It goes beside the batches.
    large: bool,
}

impl<P> Taken<P> {
    /// A frame with its payload.
    pub const fn new(piece: P, frame: u64) -> Self {
        Self { piece, frame, large: false }
    }
}

/// A stream of a link.
#[derive(Clone, Debug)]
pub struct Stream<P> {
    /// The caller's number of its program.
    pub program: usize,
    /// Its slot there.
    pub slot: u32,
    pending: VecDeque<Taken<P>>,
    /// Bytes of the first pending frame that were sent.
    begun: u32,
    /// Where the first pending frame was put, if it is large.
    placed: Option<u32>,
    /// It is among the active, large or placed ones.
    queued: bool,
    /// The program has closed its end: to be told when nothing is pending.
    closing: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Queue<P> {
    /// The ring into which this end writes.
    pub send: SendLink,
    /// The ring of this end.
    pub receive: ReceiveLink,
    /// What is to be told, in order.
    pub controls: VecDeque<(StreamNumber, Control)>,
    /// When the other end is answered.
    pub owes: Owes,
    gather: Gather,
    streams: Vec<Option<Stream<P>>>,
    numbers: Numbers,
    /// Streams with something to send, in turn.
    active: VecDeque<StreamNumber>,
    /// Streams whose next payload is large, and those whose next payload is in its place and not named yet.
    large: VecDeque<StreamNumber>,
    placed: VecDeque<StreamNumber>,
    free_places: Vec<u32>,
    /// Places that batches have named: batch and place.
    occupied: VecDeque<(u32, u32)>,
    /// Large payloads go beside the batches.
    beside: bool,
    pending_bytes: u64,
    pending_frames: u64,
    /// Frames in batches that are not delivered, by program and number; nothing of batches without any.
    sent: Unsettled<Vec<(usize, u64)>>,
    spare: Vec<Vec<(usize, u64)>>,
    /// Batches that the peer will answer and has not: those with more than cursors. Others are not answered for their own
    /// sake, so nothing may wait for them.
    unanswered: VecDeque<u32>,
    /// The oldest of them and when it was first seen to be so.
    silent: Option<(u32, u64)>,
    /// Switches of programs that were told in batches that are not consumed: batch, stream, number.
    announced: VecDeque<(u32, StreamNumber, u32)>,
    losses: Losses,
}

/// The smallest ring, in bytes, for batches of at most `batch` bytes, of which a sender posts two only when both have room beside
/// `answers` bytes. That room is in one piece: as much may be skipped at the end of the ring, and batches that are nothing but
/// answers stay in it until something else comes the other way.
#[must_use]
pub const fn least_ring(batch: usize, answers: usize) -> usize {
    2 * (2 * batch + answers) + answers
}

/// Batches that may be on their way while small ones still leave at once.
const EAGER: usize = 3;
/// Batches that arrive before an answer is sent for its own sake. Fewer than a sender has on their way before it gathers.
const MOST_UNTOLD: u32 = 2;
/// Lists that are kept to be used again.
const MOST_SPARE: usize = 64;

impl<P: Piece> Queue<P> {
    /// For a link into a ring of that many bytes. One end hands out odd stream numbers, the other even ones.
    #[must_use]
    pub fn new(ring_bytes: u32, odd: bool, thresholds: Thresholds) -> Self {
        Self {
            send: SendLink::new(ring_bytes),
            receive: ReceiveLink::default(),
            controls: VecDeque::new(),
            owes: Owes::Nothing,
            gather: Gather::new(thresholds),
            streams: Vec::new(),
            numbers: Numbers::new(odd),
            active: VecDeque::new(),
            large: VecDeque::new(),
            placed: VecDeque::new(),
            free_places: Vec::new(),
            occupied: VecDeque::new(),
            beside: false,
            pending_bytes: 0,
            pending_frames: 0,
            sent: Unsettled::default(),
            spare: Vec::new(),
            unanswered: VecDeque::new(),
            silent: None,
            announced: VecDeque::new(),
            losses: Losses::default(),
        }
    }

    /// A stream.
    pub fn stream(&mut self, number: StreamNumber) -> Option<&mut Stream<P>> {
        self.streams.get_mut(number as usize)?.as_mut()
    }

    /// All streams.
    pub fn streams(&self) -> impl Iterator<Item = &Stream<P>> {
        self.streams.iter().flatten()
    }

    /// Batches that were sent and are not known to be delivered.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.send.undelivered()
    }

    /// Bytes and frames that wait to be gathered into batches.
    #[must_use]
    pub const fn pending(&self) -> (u64, u64) {
        (self.pending_bytes, self.pending_frames)
    }

    /// A frame of a program waits to be sent.
    pub fn push(&mut self, number: StreamNumber, mut taken: Taken<P>, now_us: u64) {
        let Some(stream) = self.streams.get_mut(number as usize).and_then(Option::as_mut) else { return };
        taken.large = self.beside && taken.piece.is_large();
        stream.pending.push_back(taken);
        if !stream.queued {
            self.requeue(number);
        }
        if taken.large {
            return;
        }
        self.pending_bytes += u64::from(taken.piece.length());
        self.pending_frames += 1;
        let _ = self.gather.push(now_us, taken.piece.length());
    }

    /// Puts a stream where its next frame belongs; a closed one without any is told.
    fn requeue(&mut self, number: StreamNumber) {
        let Some(stream) = self.stream(number) else { return };
        let (next, closing) = (stream.pending.front().map(|taken| taken.large), stream.closing);
        stream.queued = next.is_some();
        match next {
            Some(true) => self.large.push_back(number),
            Some(false) => self.active.push_back(number),
            None if closing => self.controls.push_back((number, Control::Closed)),
            None => {}
        }
    }

    /// The program has closed its end of a stream: told after what it has sent.
    pub fn close(&mut self, number: StreamNumber) {
        let Some(stream) = self.stream(number) else { return };
        if !core::mem::replace(&mut stream.closing, true) && stream.pending.is_empty() {
            self.controls.push_back((number, Control::Closed));
        }
    }

    /// The other side knows the stream only now: an end that it was told of before is told again.
    pub fn close_again(&mut self, number: StreamNumber) {
        if self.stream(number).is_some_and(|stream| stream.closing && stream.pending.is_empty()) {
            self.controls.push_back((number, Control::Closed));
        }
    }

    /// Whether something of a stream is still to be sent.
    #[must_use]
    pub fn has_unsent(&self, number: StreamNumber) -> bool {
        let stream = self.streams.get(number as usize).and_then(Option::as_ref);
        stream.is_some_and(|stream| !stream.pending.is_empty())
            || self.controls.iter().any(|(told, _)| *told == number)
    }

    /// A program is gone, and its number may be another's: nothing more is to be told to it.
    pub fn forget_program(&mut self, program: usize) {
        self.sent.values_mut().for_each(|frames| frames.retain(|(known, _)| *known != program));
    }

    /// Whether anything waits to be sent.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.active.is_empty() || !self.controls.is_empty() || !self.placed.is_empty()
    }

    /// Whether what is gathered should leave.
    pub fn is_due(&mut self, now_us: u64) -> bool {
        let busy = self.unanswered.len() >= EAGER;
        if self.pending_frames == 0 {
            return !busy;
        }
        self.gather.in_flight(busy) || self.gather.poll_timeout().is_some_and(|due| due <= now_us)
    }

    /// When what is gathered leaves if nothing more happens, in microseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.gather.poll_timeout()
    }

    /// Whether the peer may soon hold something back until it is answered.
    #[must_use]
    pub fn must_answer(&self) -> bool {
        self.owes != Owes::Nothing && self.receive.untold() >= MOST_UNTOLD
    }

    /// Takes the cursors of a batch that has arrived; `done` gets the batches that were delivered, whose frames
    /// [`Queue::take_sent`] gives.
    ///
    /// # Errors
    /// [`LinkError`] when they cannot be.
    pub fn on_head(&mut self, head: &Head, done: impl FnMut(u32)) -> Result<(), LinkError> {
        self.send.on_consumed(head.consumed)?;
        let before = |sequence: &u32| (sequence.wrapping_sub(head.consumed) as i32) < 0;
        while self.unanswered.front().is_some_and(before) {
            self.unanswered.pop_front();
        }
        self.hear_of_losses(head.consumed);
        self.send.on_delivered(head.delivered, done)
    }

    /// The records of a batch were taken: whether there were `any`, whether the sender waits for the answer to some of them, and
    /// how many wait for room at their programs.
    pub fn on_records(&mut self, sequence: u32, any: bool, awaited: bool, held: u32, now_us: u64) {
        self.owes = match (any, awaited) {
            (false, _) => self.owes,
            (true, false) => self.owes.or_since(now_us),
            (true, true) => Owes::Now,
        };
        self.receive.hold(sequence, held);
        if held == 0 {
            self.receive.delivered(sequence);
        }
    }

    /// What batches have brought to programs is published, which was one part of each of them.
    pub fn on_published(&mut self, sequences: impl Iterator<Item = u32> + Clone) {
        sequences.clone().for_each(|sequence| self.receive.hand_over(sequence));
        sequences.for_each(|sequence| self.receive.delivered(sequence));
    }

    /// A part of a batch that waited for room has found it.
    pub fn on_handed_over(&mut self, sequence: u32) {
        self.receive.hand_over(sequence);
        self.receive.delivered(sequence);
        self.owes = Owes::Now;
    }

    /// The frames of a batch that was delivered; the list is to be given back with [`Queue::return_list`].
    pub fn take_sent(&mut self, sequence: u32) -> Vec<(usize, u64)> {
        self.free_places_of(sequence);
        self.sent.remove(sequence).unwrap_or_default()
    }

    /// The frames of all batches that are not known to be delivered, by program and number. When the link is gone nobody says so
    /// any more: those of streams that have ended are not needed.
    pub fn unsettled(&self) -> impl Iterator<Item = (usize, u64)> {
        self.sent.values().flatten().copied()
    }

    /// See [`Queue::take_sent`].
    pub fn return_list(&mut self, mut list: Vec<(usize, u64)>) {
        list.clear();
        if list.capacity() > 0 && self.spare.len() < MOST_SPARE {
            self.spare.push(list);
        }
    }

    /// The next switch that the other host knows of, now that it has consumed all batches before `consumed`.
    pub fn next_heard(&mut self, consumed: u32) -> Option<(StreamNumber, u32)> {
        let (sequence, stream, number) = *self.announced.front()?;
        if (sequence.wrapping_sub(consumed) as i32) >= 0 {
            return None;
        }
        self.announced.pop_front();
        Some((stream, number))
    }

    /// Whether the oldest unanswered batch has been so for longer than `limit_us`.
    pub fn is_silent(&mut self, now_us: u64, limit_us: u64) -> bool {
        let oldest = self.unanswered.front().copied();
        match (oldest, self.silent) {
            (Some(oldest), Some((known, since))) if oldest == known => {
                return now_us.saturating_sub(since) > limit_us;
            }
            (Some(oldest), _) => self.silent = Some((oldest, now_us)),
            (None, _) => self.silent = None,
        }
        false
    }
}

/// Whether batches with more than cursors have arrived and were not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owes {
    /// All were.
    Nothing,
    /// Not since then, in microseconds. Nobody waits for the answer: the next batch may well carry it.
    Sometime(u64),
    /// The sender waits.
    Now,
}

impl Owes {
    /// Data have arrived.
    const fn or_since(self, now_us: u64) -> Self {
        match self {
            Self::Nothing => Self::Sometime(now_us),
            other => other,
        }
    }

    /// When the answer leaves at the latest, in microseconds.
    #[must_use]
    pub const fn due(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Sometime(since) => Some(since + ANSWER_US),
            Self::Now => Some(0),
        }
    }
}

/// How long an answer waits for a batch that goes the same way, in microseconds. The sender's memory waits with it.
const ANSWER_US: u64 = 5_000;
