//! What a channel gives for a stream that returns to the kernel because the way to the other host is gone: see
//! `agent::failover`. May contain `unsafe`: it reads what this side wrote into the ring.

use super::queue::Mode;
use super::receive::{Guard, Received as Read};
use super::{Channel, Trouble};
use crate::bell;
use crate::inside::Section;
use crate::iov::{self, Cursor};
use crate::shm::party::{NONE, Receiving, Recovery};
use crate::shm::ring;
use crate::shm::segment::RECOVERED;
use convoy_aggregator::path::Path;
use convoy_aggregator::record::{Place, Record};
use convoy_aggregator::wire::{self, Header, Kind};
use core::sync::atomic::{Ordering, fence};

/// What an end has received and its program has not read, and how far it was.
pub struct Received {
    pub queued: Vec<u8>,
    pub place: Place,
}

impl Channel {
    /// How the return of a stream stands; only streams to other hosts return.
    #[inline]
    pub fn recovery(&self, slot: u32) -> Recovery {
        if self.leads_to_agent() { self.party.stream(slot).recovery() } else { Recovery::None }
    }

    /// No more frames of the stream are taken: how many bytes have come, and up to which byte there was credit.
    pub fn stop_receiving(&self, slot: u32, generation: u8) -> Option<(u64, u64)> {
        let _ = self.sort();
        let _section = Section::new();
        let guard = self.lock_receiving().ok()?;
        let stream = guard.open_stream(slot, generation).ok()?;
        stream.recalled = true;
        self.party.stream(slot).unsettle();
        Some((stream.credit.received(), stream.credit.granted()))
    }

    /// No more frames of the stream are sent: what the other end is told, and the bytes that are still in the ring.
    pub fn stop_sending(&self, slot: u32, generation: u8, received: u64) -> Option<(Record, Vec<u8>)> {
        let _section = Section::new();
        let guard = self.lock_sending().ok()?;
        let stream = guard.open_stream(slot, generation).ok()?;
        stream.stay = true;
        let line = self.own_line(slot);
        let record = Record {
            announced: stream.path.announced(),
            positions: line.positions(),
            sent: stream.credit.sent(),
            received,
        };
        let retained = self.retained(slot, generation, guard.lane().ring).ok()?;
        // More than was ever sent: the agent has written into the ring.
        (retained.len() as u64 <= record.sent).then_some((record, retained))
    }

    /// Whether the other side has given back everything that this one has sent of the stream: it is with the other end's process.
    pub(super) fn has_delivered(&self, slot: u32, generation: u8) -> bool {
        let _section = Section::new();
        let Ok(guard) = self.lock_sending() else { return false };
        let mut any = false;
        let visit = |_, _| {
            any = true;
            Ok(())
        };
        self.visit_unreleased(slot, generation, guard.lane().ring, visit).is_ok() && !any
    }

    /// Bytes of a stream in the part of the own ring that the other side has not given back.
    fn retained(&self, slot: u32, generation: u8, producer: ring::Producer) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        let visit = |header, offset| self.append_payload(header, offset, &mut bytes);
        self.visit_unreleased(slot, generation, producer, visit)?;
        Ok(bytes)
    }

    /// Shows the frames of a stream there, with their places.
    fn visit_unreleased(
        &self,
        slot: u32,
        generation: u8,
        producer: ring::Producer,
        mut visit: impl FnMut(Header, usize) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let capacity = u64::from(self.segment.geometry.ring_bytes);
        let (mut cursor, tail) =
            producer.unreleased(&self.outgoing().consumer, capacity).map_err(|_| Trouble::Broken)?;
        while cursor < tail {
            let offset = (cursor & (capacity - 1)) as usize;
            let checked = self.segment.header_at(self.side, offset, tail - cursor);
            let (header, span) = checked.map_err(|_| Trouble::Broken)?;
            if header.kind != Kind::Pad && header.slot == slot && header.generation == generation {
                visit(header, offset)?;
            }
            cursor += span;
        }
        Ok(())
    }

    fn append_payload(&self, header: Header, offset: usize, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
        let (start, length) = if header.kind == Kind::Block {
            let named = self.segment.block_at(self.side, offset, header).map_err(|_| Trouble::Broken)?;
            (self.segment.block(self.side, named.block), named.length as usize)
        } else {
            // SAFETY: the caller has checked that the frame lies inside the ring.
            let payload = unsafe { self.segment.ring(self.side).add(offset + wire::HEADER_BYTES) };
            (payload, header.length as usize)
        };
        // SAFETY: inside the ring or the block, by the checks above.
        bytes.extend_from_slice(unsafe { core::slice::from_raw_parts(start, length) });
        Ok(())
    }

    /// Whether a call of the program is inside a kernel send on the stream.
    pub fn sends_in_kernel(&self, slot: u32) -> bool {
        self.party.stream(slot).sends_in_kernel()
    }

    /// Takes everything that was received and not read; nothing when the program has closed its end.
    pub fn take_received(&self, slot: u32, generation: u8) -> Option<Received> {
        let _section = Section::new();
        let guard = self.lock_receiving().ok()?;
        let stream = guard.open_stream(slot, generation).ok()?;
        let place = self.place(slot, stream);
        let queued = self.copy_queue(&guard, slot, usize::MAX, Mode::Take);
        Some(Received { queued, place })
    }

    /// How far the program has read a stream.
    pub(super) fn place(&self, slot: u32, stream: &Receiving) -> Place {
        Place {
            passed: stream.path.passed(),
            consumed: stream.credit.consumed(),
            kernel_read: self.party.stream(slot).kernel_read.load(Ordering::Relaxed),
        }
    }

    /// What is queued of a stream, at most so many bytes.
    pub(super) fn copy_queue(&self, guard: &Guard<'_>, slot: u32, most: usize, mode: Mode) -> Vec<u8> {
        let mut bytes = vec![0u8; (self.queued_bytes(slot) as usize).min(most)];
        let part = iov::single(bytes.as_mut_ptr(), bytes.len());
        // SAFETY: one writable part that lives long enough.
        let taken = unsafe { Cursor::new(&part, 1, true) }.map_or(0, |mut target| {
            self.dequeue(slot, guard.lane(), guard.stream(slot), &mut target, u64::MAX, mode)
        });
        bytes.truncate(taken);
        bytes
    }

    /// Queues what was put in order; false when memory has run out.
    pub fn put_received(&self, slot: u32, generation: u8, bytes: &[u8]) -> bool {
        let _section = Section::new();
        let Ok(guard) = self.lock_receiving() else { return false };
        // Otherwise nobody reads.
        let Ok(stream) = guard.open_stream(slot, generation) else { return true };
        // SAFETY: the bytes are readable; the lock is held.
        unsafe { self.enqueue_bytes(slot, guard.lane(), stream, bytes.as_ptr(), bytes.len()) }
    }

    /// Wakes all threads of this side that wait for a stream, which is not here any more.
    pub fn wake_all(&self, slot: u32) {
        fence(Ordering::SeqCst);
        bell::ring_all(self.own_line(slot).receive_waiters.snapshot());
    }

    /// What the agent has told of the other end's switches.
    pub fn switches_heard_of(&self, slot: u32) -> Record {
        let line = self.peer_line(slot);
        let announced = line.announced.load(Ordering::Acquire);
        Record { announced, positions: line.positions(), ..Record::default() }
    }

    /// A stream has returned to the kernel: the agent hears that its frames are not needed any more. False when it is not that
    /// stream's slot any more.
    pub fn end_return(&self, slot: u32, generation: u8, outcome: Recovery) -> bool {
        let _section = Section::new();
        let guard = self.lock_sending();
        // Of a channel that is broken nothing is opened any more.
        if guard.as_ref().is_ok_and(|guard| guard.open_stream(slot, generation).is_err()) {
            return false;
        }
        self.party.stream(slot).end_recovery(outcome);
        self.own_line(slot).flags.fetch_or(RECOVERED, Ordering::Release);
        self.changed(slot);
        true
    }

    /// Of a stream that returns to the kernel: what is queued, then what the kernel has.
    #[cold]
    pub(super) fn receive_returned(
        &self,
        guard: &Guard<'_>,
        slot: u32,
        target: &mut Cursor,
        mode: Mode,
        recovery: Recovery,
    ) -> Result<Read, Trouble> {
        if recovery == Recovery::Running {
            return Ok(Read::Empty);
        }
        match self.dequeue(slot, guard.lane(), guard.stream(slot), target, u64::MAX, mode) {
            0 if recovery == Recovery::Failed => Err(Trouble::Lost),
            0 => Ok(Read::Kernel(u64::MAX)),
            taken => {
                if mode != Mode::Peek {
                    // The other end may still begin to return. Nobody sends by this credit any more.
                    let _ = guard.stream(slot).credit.on_consumed(taken as u64);
                }
                Ok(Read::Bytes(taken))
            }
        }
    }

    /// [`Self::path_limit`], but a stream that has returned is the kernel's once its queue is empty.
    pub(super) fn path_beneath(
        &self,
        slot: u32,
        fd: i32,
        stream: &mut Receiving,
    ) -> Result<(Path, u64), Trouble> {
        match self.recovery(slot) {
            Recovery::None => self.path_limit(slot, fd, stream),
            Recovery::Done | Recovery::Failed | Recovery::Quiet if stream.first == NONE => {
                Ok((Path::Kernel, u64::MAX))
            }
            _ => Ok((Path::Channel, 0)),
        }
    }
}
