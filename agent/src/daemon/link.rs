//! A link to another agent: what waits to be sent, what was sent and not delivered, its streams.

use super::owes::Owes;
use super::program::Taken;
use super::wire::Wire;
use super::worth::Worth;
use convoy_aggregator::batch::Control;
use convoy_aggregator::gather::{Gather, Thresholds};
use convoy_aggregator::link::{ReceiveLink, SendLink};
use convoy_fabric::{LinkId, MemoryId, RemoteMemory};
use convoy_runtime::port::Piece;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A stream's number on its link.
pub(crate) type StreamNumber = u32;

/// Bytes of the ring into which a peer writes.
pub(crate) const RING_BYTES: u32 = 2 << 20;
/// The largest batch.
pub(crate) const BATCH_BYTES: usize = 64 << 10;
/// Bytes of a place for a large payload: as much as a block of a program holds.
pub(crate) const PLACE_BYTES: usize = 16 << 10;
/// Places of a link.
pub(crate) const PLACES: usize = 128;
/// Send buffers of a link.
pub(crate) const BUFFERS: u32 = 32;

/// One link.
pub(crate) struct Link {
    /// The other agent, by its instance.
    pub(crate) host: u128,
    pub(crate) rail: usize,
    pub(crate) id: LinkId,
    pub(crate) token: u64,
    pub(crate) state: LinkState,
    /// Of the present state.
    pub(crate) since: Instant,
    /// This agent hands out even stream numbers, the other odd ones, or the other way round.
    odd: bool,
    pub(crate) send: SendLink,
    pub(crate) receive: ReceiveLink,
    /// The peer's ring.
    pub(crate) target: RemoteMemory,
    /// The ring of this side.
    pub(crate) ring: MemoryId,
    pub(crate) buffers: MemoryId,
    pub(crate) free_buffers: Vec<u32>,
    /// Where the peer puts large payloads, and where this side does; see [`super::large`].
    pub(super) places_here: Option<MemoryId>,
    pub(super) places_there: RemoteMemory,
    pub(super) free_places: Vec<u32>,
    /// Places that batches have named: batch and place.
    pub(super) occupied: VecDeque<(u32, u32)>,
    /// Large payloads go beside the batches.
    pub(super) beside: bool,
    /// Streams whose next payload is large, and those whose next payload is in its place and not named yet.
    pub(super) large: VecDeque<StreamNumber>,
    pub(super) placed: VecDeque<StreamNumber>,
    /// Registrations of writes that are not done.
    pub(super) writing: Vec<u32>,
    streams: Vec<Option<Stream>>,
    free_streams: VecDeque<StreamNumber>,
    fresh: u32,
    /// Numbers that are not to be used yet, and since when.
    resting: VecDeque<(Instant, StreamNumber)>,
    /// Streams with something to send, in turn.
    pub(crate) active: VecDeque<StreamNumber>,
    pub(crate) controls: VecDeque<(StreamNumber, Control)>,
    pub(crate) gather: Gather,
    pub(crate) pending_bytes: u64,
    pub(crate) pending_frames: u64,
    /// Frames in batches that are not delivered: the first has the sequence number `oldest`.
    sent: VecDeque<Vec<(usize, u64)>>,
    oldest: u32,
    spare: Vec<Vec<(usize, u64)>>,
    /// Batches that the peer will answer and has not: those with more than cursors. Others are not answered for their own
    /// sake, so nothing may wait for them.
    pub(crate) unanswered: VecDeque<u32>,
    /// The oldest of them and when it was first seen to be so.
    silent: Option<(u32, Instant)>,
    /// Switches of programs that were told in batches that are not consumed: batch, stream, number.
    pub(crate) announced: VecDeque<(u32, StreamNumber, u32)>,
    pub(super) owes: Owes,
    pub(crate) counters: LinkCounters,
    pub(super) worth: Worth,
    /// How bytes on the wire are counted.
    pub(crate) wire: Wire,
}

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The peer's rail is not known yet.
    Proposed,
    Connecting,
    Up,
    Down,
}

/// A stream of a link.
pub(crate) struct Stream {
    pub(crate) program: usize,
    pub(crate) slot: u32,
    pub(crate) pending: VecDeque<Taken>,
    /// Bytes of the first pending frame that were sent.
    pub(crate) begun: u32,
    /// Where the first pending frame was put, if it is large.
    pub(super) placed: Option<u32>,
    /// It is among the active, large or placed ones.
    pub(crate) queued: bool,
    /// The program has closed its end: to be told when nothing is pending.
    pub(crate) closing: bool,
}

/// Counters of a link, both directions from this side's view.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) batches_sent: u64,
    pub(crate) batches_received: u64,
    pub(crate) messages_sent: u64,
    /// Payloads that were written beside the batches.
    pub(crate) large_sent: u64,
    pub(crate) payload_sent: u64,
    pub(crate) payload_received: u64,
    /// Bytes of batches, with their heads and records.
    pub(crate) batch_bytes_sent: u64,
    pub(crate) batch_bytes_received: u64,
    /// Bytes of the packets that carried batches, by model.
    pub(crate) wire_bytes_sent: u64,
    /// Batches that carried cursors only.
    pub(crate) acknowledgements_sent: u64,
    pub(crate) streams_opened: u64,
}

impl Link {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        host: u128,
        rail: usize,
        id: LinkId,
        token: u64,
        odd: bool,
        ring: MemoryId,
        buffers: MemoryId,
        thresholds: Thresholds,
    ) -> Self {
        Self {
            host,
            rail,
            id,
            token,
            state: LinkState::Proposed,
            since: Instant::now(),
            odd,
            send: SendLink::new(RING_BYTES),
            receive: ReceiveLink::default(),
            target: RemoteMemory::default(),
            ring,
            buffers,
            free_buffers: (0..BUFFERS).collect(),
            places_here: None,
            places_there: RemoteMemory::default(),
            free_places: Vec::new(),
            occupied: VecDeque::new(),
            beside: false,
            large: VecDeque::new(),
            placed: VecDeque::new(),
            writing: Vec::new(),
            streams: Vec::new(),
            free_streams: VecDeque::new(),
            fresh: 0,
            resting: VecDeque::new(),
            active: VecDeque::new(),
            controls: VecDeque::new(),
            gather: Gather::new(thresholds),
            pending_bytes: 0,
            pending_frames: 0,
            sent: VecDeque::new(),
            oldest: 0,
            spare: Vec::new(),
            unanswered: VecDeque::new(),
            silent: None,
            announced: VecDeque::new(),
            owes: Owes::Nothing,
            counters: LinkCounters::default(),
            worth: Worth::default(),
            wire: Wire::default(),
        }
    }

    pub(crate) fn stream(&mut self, number: StreamNumber) -> Option<&mut Stream> {
        self.streams.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().flatten()
    }

    /// A number that this side may hand out.
    pub(crate) fn next_stream(&mut self) -> Option<StreamNumber> {
        let rested = |(since, _): &(Instant, StreamNumber)| since.elapsed() > REST;
        while self.resting.front().is_some_and(rested)
            && let Some((_, number)) = self.resting.pop_front()
        {
            self.free_streams.push_back(number);
        }
        if let Some(number) = self.free_streams.pop_front() {
            return Some(number);
        }
        let number = self.fresh * 2 + u32::from(self.odd);
        (number <= MOST_STREAM).then(|| self.fresh += 1)?;
        Some(number)
    }

    /// A number that was not used after all.
    pub(crate) fn return_stream(&mut self, number: StreamNumber) {
        if (number & 1 == 1) == self.odd {
            self.free_streams.push_back(number);
        }
    }

    /// Enters a stream; false when the number is taken or was not the other side's to hand out.
    pub(crate) fn enter(&mut self, number: StreamNumber, program: usize, slot: u32, ours: bool) -> bool {
        if number > MOST_STREAM || ((number & 1 == 1) == self.odd) != ours {
            return false;
        }
        let index = number as usize;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        if self.streams[index].is_some() {
            return false;
        }
        self.streams[index] = Some(Stream {
            program,
            slot,
            pending: VecDeque::new(),
            begun: 0,
            placed: None,
            queued: false,
            closing: false,
        });
        self.counters.streams_opened += 1;
        true
    }

    /// A stream has ended; what still waited of it is dropped.
    pub(crate) fn leave(&mut self, number: StreamNumber) {
        if let Some(Some(stream)) = self.streams.get_mut(number as usize).map(Option::take) {
            let small = || stream.pending.iter().filter(|taken| !taken.large);
            let left: u64 = small().map(|taken| u64::from(taken.piece.length)).sum();
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

    /// A frame of a program waits to be sent.
    pub(crate) fn push(&mut self, number: StreamNumber, mut taken: Taken, now_us: u64) {
        let Some(stream) = self.streams.get_mut(number as usize).and_then(Option::as_mut) else { return };
        taken.large = self.beside && taken.is_large();
        stream.pending.push_back(taken);
        if !stream.queued {
            self.requeue(number);
        }
        if taken.large {
            return;
        }
        self.pending_bytes += u64::from(taken.piece.length);
        self.pending_frames += 1;
        let _ = self.gather.push(now_us, taken.piece.length);
    }

    /// Puts a stream where its next frame belongs; a closed one without any is told.
    pub(super) fn requeue(&mut self, number: StreamNumber) {
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

    /// The first frame of a stream: its program and what it carries.
    pub(super) fn first_piece(&mut self, number: StreamNumber) -> Option<(usize, Piece)> {
        let stream = self.stream(number)?;
        Some((stream.program, stream.pending.front()?.piece))
    }

    /// The large payload of a stream that is in its place: which, and how many bytes.
    pub(super) fn placed_piece(&mut self, number: StreamNumber) -> Option<(u32, u32)> {
        let stream = self.stream(number)?;
        stream.placed.zip(stream.pending.front().map(|taken| taken.piece.length))
    }

    /// The same payload is named: program and frame.
    pub(super) fn pop_placed(&mut self, number: StreamNumber) -> Option<(usize, u64)> {
        let stream = self.stream(number)?;
        stream.placed = None;
        stream.pending.pop_front().map(|taken| (stream.program, taken.frame))
    }

    /// The large payloads of a stream cannot be written from where they are.
    pub(super) fn send_in_batches(&mut self, number: StreamNumber) {
        let Some(stream) = self.streams.get_mut(number as usize).and_then(Option::as_mut) else { return };
        for taken in stream.pending.iter_mut().filter(|taken| taken.large) {
            taken.large = false;
            self.pending_bytes += u64::from(taken.piece.length);
            self.pending_frames += 1;
        }
        self.requeue(number);
    }

    /// The program has closed its end of a stream: told after what it has sent.
    pub(crate) fn close(&mut self, number: StreamNumber) {
        let Some(stream) = self.stream(number) else { return };
        if !core::mem::replace(&mut stream.closing, true) && stream.pending.is_empty() {
            self.controls.push_back((number, Control::Closed));
        }
    }

    /// A program is gone, and its place may be another's: nothing more is to be told to it.
    pub(crate) fn forget_program(&mut self, program: usize) {
        self.sent.iter_mut().for_each(|frames| frames.retain(|(known, _)| *known != program));
    }

    /// The program of a stream is gone without an orderly end. What the other side has sent may still be on its way, so the
    /// number is not used again for a while.
    pub(crate) fn abandon(&mut self, number: StreamNumber) {
        self.leave_for_long(number);
        self.controls.push_back((number, Control::Lost));
    }

    /// As [`Link::leave`], for a stream of which batches may be on their way.
    pub(crate) fn leave_for_long(&mut self, number: StreamNumber) {
        self.leave(number);
        if let Some(place) = self.free_streams.iter().rposition(|free| *free == number) {
            self.free_streams.remove(place);
            self.resting.push_back((Instant::now(), number));
        }
    }

    /// A list for the frames of a batch.
    pub(crate) fn spare_list(&mut self) -> Vec<(usize, u64)> {
        self.spare.pop().unwrap_or_default()
    }

    /// A batch with these frames was sent.
    pub(crate) fn sent(&mut self, frames: Vec<(usize, u64)>) {
        self.sent.push_back(frames);
    }

    /// The frames of a batch that was delivered; the list is to be given back with [`Link::return_list`].
    pub(crate) fn take_sent(&mut self, sequence: u32) -> Vec<(usize, u64)> {
        let index = sequence.wrapping_sub(self.oldest) as usize;
        self.sent.get_mut(index).map(core::mem::take).unwrap_or_default()
    }

    /// All batches before `sequence` were delivered.
    pub(crate) fn forget_before(&mut self, sequence: u32) {
        let count = (sequence.wrapping_sub(self.oldest) as usize).min(self.sent.len());
        self.sent.drain(..count);
        self.oldest = self.oldest.wrapping_add(count as u32);
    }

    pub(crate) fn return_list(&mut self, mut list: Vec<(usize, u64)>) {
        list.clear();
        if list.capacity() > 0 && self.spare.len() < 64 {
            self.spare.push(list);
        }
    }

    /// The peer has consumed all batches before `consumed`.
    pub(crate) fn answered(&mut self, consumed: u32) {
        let before = |sequence: &u32| (sequence.wrapping_sub(consumed) as i32) < 0;
        while self.unanswered.front().is_some_and(before) {
            self.unanswered.pop_front();
        }
    }

    /// Whether the oldest unanswered batch has been so for longer than `limit`.
    pub(super) fn is_silent(&mut self, now: Instant, limit: Duration) -> bool {
        let oldest = self.unanswered.front().copied();
        match (oldest, self.silent) {
            (Some(oldest), Some((known, since))) if oldest == known => {
                return now.saturating_duration_since(since) > limit;
            }
            (Some(oldest), _) => self.silent = Some((oldest, now)),
            (None, _) => self.silent = None,
        }
        false
    }

    /// The next switch that the other host knows of, now that it has consumed all batches before `consumed`.
    pub(crate) fn next_heard(&mut self, consumed: u32) -> Option<(StreamNumber, u32)> {
        let (sequence, stream, number) = *self.announced.front()?;
        if (sequence.wrapping_sub(consumed) as i32) >= 0 {
            return None;
        }
        self.announced.pop_front();
        Some((stream, number))
    }

    /// Whether anything waits to be sent.
    pub(crate) fn has_pending(&self) -> bool {
        !self.active.is_empty() || !self.controls.is_empty() || !self.placed.is_empty()
    }
}

/// How long a number rests.
const REST: Duration = Duration::from_secs(10);
const MOST_STREAM: u32 = (1 << 22) - 1;
