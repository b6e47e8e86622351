//! From programs' rings into batches: frames are taken, gathered by stream, written.

use super::engine::Engine;
use super::link::{Link, LinkState};
use super::program::{Payload, Program, Target};
use convoy_aggregator::batch::HEAD_BYTES;
use convoy_aggregator::link::BATCH_BYTES;
use convoy_aggregator::queue::Built;
use convoy_fabric::{Fabric, PostError, Source, Write};
use convoy_runtime::port::{Lie, SlotState};

/// Bytes of the peer's ring that are kept for answers.
pub(super) const ANSWERS: usize = 8 << 10;
/// Writes that a turn may post, beside those on their way.
const RESERVE: usize = 8;

impl Engine {
    /// Takes what programs have sent. True when there was anything.
    pub(super) fn collect(&mut self) -> bool {
        let mut any = false;
        self.memory.look(&self.programs);
        for index in 0..self.programs.len() {
            if self.programs[index].as_ref().is_some_and(|program| program.awake) {
                any |= self.collect_from(index);
            }
        }
        self.tell_kept_back();
        // Programs of this host have been given something by others.
        self.wake_touched();
        any
    }

    /// Takes what one program has sent or changed.
    pub(super) fn collect_from(&mut self, index: usize) -> bool {
        match self.try_collect(index) {
            Ok(any) => {
                if let Some(program) = self.programs[index].as_mut() {
                    program.idle = if any { 0 } else { program.idle + 1 };
                }
                any
            }
            Err(lie) => {
                self.drop_liar(index, lie);
                true
            }
        }
    }

    fn try_collect(&mut self, index: usize) -> Result<bool, Lie> {
        let Some(program) = self.programs[index].as_mut() else { return Ok(false) };
        if !program.gone && !self.users.may_take(program.session.uid, self.now) {
            return Ok(false);
        }
        let Some(port) = program.port.as_mut() else { return Ok(false) };
        let frames = port.refresh()?;
        let mut changed = core::mem::take(&mut self.changed);
        port.take_changes(|slot| changed.push(slot));
        if !frames && changed.is_empty() {
            self.changed = changed;
            return Ok(false);
        }
        let mut closed = false;
        for slot in &changed {
            closed |= self.tell_news(index, *slot)?;
        }
        self.take_frames(index)?;
        if closed {
            // What was sent before the end may have been published after the first look.
            if let Some(port) = self.programs[index].as_mut().and_then(|program| program.port.as_mut()) {
                port.refresh()?;
            }
            self.take_frames(index)?;
            changed.iter().for_each(|slot| self.close_if_closed(index, *slot));
        }
        changed.clear();
        self.changed = changed;
        Ok(true)
    }

    /// Tells the other host what a program has changed in a line; true when the program has closed its end.
    pub(super) fn tell_news(&mut self, index: usize, slot: u32) -> Result<bool, Lie> {
        let ahead = self.memory.ahead();
        let Some(program) = self.programs[index].as_mut() else { return Ok(false) };
        let Some((link, stream)) = program.slot(slot).map(|slot| (slot.link, slot.stream)) else {
            return Ok(false);
        };
        if let Some(to) = program.slot(slot).and_then(|known| known.joint) {
            let mut controls = core::mem::take(&mut self.controls);
            let state = program.news(slot, ahead, |control| controls.push(control))?;
            self.pass_news((index, slot), to, &controls);
            controls.clear();
            self.controls = controls;
            return Ok(state == Some(SlotState::Closed));
        }
        let link = self.links.get_mut(link).and_then(Option::as_mut);
        let state = match link {
            Some(link) => {
                program.news(slot, ahead, |control| link.queue.controls.push_back((stream, control)))
            }
            None => program.news(slot, ahead, |_| {}),
        };
        Ok(state? == Some(SlotState::Closed))
    }

    fn close_if_closed(&mut self, index: usize, slot: u32) {
        if self.programs[index].as_ref().is_some_and(|program| program.has_closed(slot)) {
            self.close_here(index, slot);
        }
    }

    /// The program has closed its end of a stream.
    pub(super) fn close_here(&mut self, index: usize, slot: u32) {
        let Some(program) = self.programs[index].as_mut() else { return };
        let Some(known) = program.slot(slot) else { return };
        known.here_closed = true;
        let (link, stream, lost, joint) = (known.link, known.stream, known.lost, known.joint);
        if lost {
            program.finish_of(slot);
        } else if let Some((other, there)) = joint {
            self.close_there(other, there);
        } else if let Some(link) = self.links.get_mut(link).and_then(Option::as_mut) {
            link.queue.close(stream);
        }
        self.end_if_over(index, slot);
    }

    fn take_frames(&mut self, index: usize) -> Result<(), Lie> {
        let now = self.now_us;
        let Some(program) = self.programs[index].as_ref() else { return Ok(()) };
        let mut bytes = 0;
        let uid = program.session.uid;
        while let Some(program) = self.programs[index].as_mut()
            && let Some((target, taken)) = program.next_frame()?
        {
            bytes += u64::from(taken.piece.0.length);
            match target {
                Target::Link(link, stream) => {
                    match self.links.get_mut(link).and_then(Option::as_mut) {
                        Some(link) => link.queue.push(stream, taken, now),
                        // The other end had closed before the link went.
                        None => program.finish(taken.frame),
                    }
                }
                Target::Joint(to) => self.pass_frame(index, to, taken),
            }
        }
        self.users.took(uid, bytes);
        Ok(())
    }

    /// Lets batches leave that are due. True when any did.
    pub(super) fn transmit(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.links.len() {
            while self.links[index].as_ref().is_some_and(|link| link.state == LinkState::Up)
                && self.transmit_one(index, false)
            {
                any = true;
            }
        }
        any
    }

    /// Answers what has arrived and was not answered by batches with something in them, when it is time to.
    pub(super) fn acknowledge(&mut self) {
        for index in 0..self.links.len() {
            let due = self.links[index]
                .as_ref()
                .filter(|link| link.state == LinkState::Up)
                .and_then(|link| if link.queue.must_answer() { Some(0) } else { link.queue.owes.due() });
            if due.is_some_and(|due| due <= self.now_us) {
                self.transmit_one(index, true);
            }
        }
    }

    fn transmit_one(&mut self, index: usize, answer: bool) -> bool {
        let Some(link) = self.links[index].as_mut() else { return false };
        let queue = &mut link.queue;
        let untold = queue.must_answer();
        let wanted = queue.has_pending() && queue.is_due(self.now_us) || answer || untold;
        let large = link.may_write_large();
        if !(wanted || large) {
            return false;
        }
        let limits = self.rails[link.rail].limits;
        let batches = usize::from(wanted) + usize::from(large);
        let fits = BATCH_BYTES.min(limits.write);
        if link.queue.send.in_flight() + link.writing.len() + RESERVE >= limits.depth
            || !link.queue.send.has_room(fits * batches + ANSWERS)
            || link.free_buffers.len() < batches
        {
            // Both sides may be full: an answer has room of its own.
            return (answer || untold) && self.send_answer(index);
        }
        let mut sent = Ok(());
        if wanted {
            sent = self.send_batch(index, large);
        }
        if large && sent.is_ok() {
            sent = self.write_large(index).and_then(|()| self.send_batch(index, false));
        }
        if let Err(reason) = sent {
            self.lose_link(index, &reason);
        }
        true
    }

    /// Answers without anything else.
    fn send_answer(&mut self, index: usize) -> bool {
        let Some(link) = self.links[index].as_mut() else { return false };
        let depth = self.rails[link.rail].limits.depth;
        if link.queue.send.in_flight() + link.writing.len() >= depth || !link.queue.send.has_room(HEAD_BYTES)
        {
            return false;
        }
        if let Err(reason) = self.send_injected(index, HEAD_BYTES, false) {
            self.lose_link(index, &reason);
        }
        true
    }

    /// Writes a batch of at most so many bytes, which the device copies at once.
    fn send_injected(&mut self, index: usize, most: usize, more: bool) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        self.scratch.resize(most, 0);
        let built = build(link, &self.programs, &mut self.scratch, self.now_us);
        post(link, self.rails[link.rail].fabric.as_mut(), built, None, Some(&self.scratch), more)
    }

    /// Writes one batch of what waits; `more` when another write follows at once.
    fn send_batch(&mut self, index: usize, more: bool) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        let rail = &mut self.rails[link.rail];
        let fits = BATCH_BYTES.min(rail.limits.write);
        let inject = rail.limits.inject;
        if link.queue.estimate() <= inject {
            return self.send_injected(index, inject, more);
        }
        let Some(buffer) = link.free_buffers.pop() else { return Err("no buffer for a batch".into()) };
        let offset = buffer as usize * BATCH_BYTES;
        let room = rail.fabric.local(link.buffers).and_then(|all| all.get_mut(offset..offset + fits));
        let Some(room) = room else { return Err("no memory for a batch".into()) };
        let built = build(link, &self.programs, room, self.now_us);
        post(link, rail.fabric.as_mut(), built, Some(buffer), None, more)
    }
}

/// Fills a batch from what waits on a link.
fn build(link: &mut Link, programs: &[Option<Program>], room: &mut [u8], now_us: u64) -> Built {
    let built = link.queue.build(room, now_us, |program, payload: &Payload, from, into| {
        let program = programs.get(program).and_then(Option::as_ref);
        if let Some(port) = program.and_then(|program| program.port.as_ref()) {
            port.copy(&payload.0, from, into);
        }
    });
    link.counters.payload_sent += built.payload;
    link.counters.messages_sent += built.messages();
    built
}

fn post(
    link: &mut Link,
    fabric: &mut dyn Fabric,
    built: Built,
    buffer: Option<u32>,
    scratch: Option<&[u8]>,
    more: bool,
) -> Result<(), String> {
    let Some(place) = built.place else { return Err("no room for a batch".into()) };
    let source = match (scratch, buffer) {
        (Some(bytes), _) => Source::Bytes(bytes.get(..built.length).ok_or("a batch beyond its memory")?),
        (None, Some(buffer)) => Source::Memory {
            memory: link.buffers,
            offset: buffer as usize * BATCH_BYTES,
            length: built.length,
        },
        (None, None) => return Err("a batch without memory".into()),
    };
    let write = Write {
        source,
        target: link.target,
        offset: place.offset,
        immediate: Some(place.immediate),
        context: u64::from(buffer.unwrap_or(u32::MAX)),
        more,
    };
    link.counters.batches_sent += 1;
    link.counters.batch_bytes_sent += built.length as u64;
    link.counters.wire_bytes_sent += link.wire.batch(built.length);
    link.counters.acknowledgements_sent += u64::from(!built.full);
    link.queue.on_sent(built);
    match fabric.post(link.id, &write) {
        Ok(()) => Ok(()),
        Err(PostError::Full) => Err("more writes than the device takes".into()),
        Err(PostError::Down) => Err("the connection has ended".into()),
        Err(PostError::Invalid(what)) => Err(what.into()),
    }
}
