//! From batches into programs' rings.

use super::engine::Engine;
use super::large;
use super::link::LinkState;
use super::program::{GiveError, Origin, Program};
use super::sessions::GAVE_UP;
use convoy_aggregator::batch::{Control, HEAD_BYTES, Head, Record, Records};
use convoy_aggregator::link::{BATCH_BYTES, UNIT};
use convoy_fabric::Event;
use convoy_runtime::port::{Port, SlotState};

impl Engine {
    /// Lets the rails make progress and takes what has arrived. True when there was anything.
    pub(super) fn poll_rails(&mut self) -> bool {
        let mut events = core::mem::take(&mut self.events);
        let mut any = false;
        for rail in 0..self.rails.len() {
            self.rails[rail].fabric.poll(&mut events);
            for event in events.drain(..) {
                any = true;
                self.on_event(rail, event);
            }
        }
        self.events = events;
        self.wake_touched();
        self.deliver_batches();
        any |= self.retry_overflow();
        self.wake_touched();
        any
    }

    fn on_event(&mut self, rail: usize, event: Event) {
        let id = match &event {
            Event::Connected(id) => *id,
            Event::Written { link, .. } | Event::Arrived { link, .. } | Event::Down { link, .. } => *link,
        };
        let known = |link: &Option<super::link::Link>| {
            link.as_ref()
                .is_some_and(|link| link.rail == rail && link.id == id && link.state != LinkState::Down)
        };
        let Some(index) = self.links.iter().position(known) else { return };
        match event {
            Event::Connected(_) => self.link_is_up(index),
            Event::Written { context, .. } => {
                if let Some(registration) = large::registration_of(context) {
                    self.large_written(index, registration);
                } else if let (Some(link), Ok(buffer)) = (self.links[index].as_mut(), u32::try_from(context))
                {
                    link.free_buffers.push(buffer);
                }
            }
            Event::Arrived { immediate, .. } => {
                if let Err(reason) = self.on_arrived(index, immediate) {
                    self.lose_link(index, &reason);
                }
            }
            Event::Down { reason, .. } => self.lose_link(index, &reason),
        }
    }

    /// A batch is complete in the ring; `immediate` says which and where.
    fn on_arrived(&mut self, index: usize, immediate: u32) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        link.queue.receive.arrived(immediate);
        while let Some((sequence, place)) =
            self.links[index].as_mut().and_then(|l| l.queue.receive.next_batch())
        {
            self.take_batch(index, sequence, place)?;
        }
        Ok(())
    }

    fn take_batch(&mut self, index: usize, sequence: u32, place: u32) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        let fabric = &self.rails[link.rail].fabric;
        let offset = place as usize * UNIT as usize;
        let mut bytes = core::mem::take(&mut self.batch);
        bytes.resize(HEAD_BYTES, 0);
        let mut whole = fabric.read(link.ring, offset, &mut bytes);
        let head = Head::read(&bytes).unwrap_or_default();
        let length = head.length as usize;
        if head.sequence != sequence || !(HEAD_BYTES..=BATCH_BYTES).contains(&length) {
            return Err("a batch that was changed".into());
        }
        bytes.resize(length, 0);
        whole &= fabric.read(link.ring, offset, &mut bytes);
        if !whole {
            return Err("a batch outside of the ring".into());
        }
        link.counters.batches_received += 1;
        link.counters.batch_bytes_received += length as u64;
        let result =
            self.take_cursors(index, &head).and_then(|()| self.take_records(index, sequence, &bytes));
        self.batch = bytes;
        result
    }

    fn take_cursors(&mut self, index: usize, head: &Head) -> Result<(), String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        let mut done = core::mem::take(&mut self.delivered);
        link.queue.on_head(head, |sequence| done.push(sequence)).map_err(|error| error.to_string())?;
        done.iter().for_each(|sequence| self.finish_batch(index, *sequence));
        done.clear();
        self.delivered = done;
        while let Some((number, switch)) =
            self.links[index].as_mut().and_then(|l| l.queue.next_heard(head.consumed))
        {
            let stream = self.links[index].as_mut().and_then(|link| link.queue.stream(number));
            let Some((program, slot)) = stream.map(|stream| (stream.program, stream.slot)) else { continue };
            if let Some(port) = self.programs[program].as_ref().and_then(|program| program.port.as_ref()) {
                port.set_heard(slot, switch);
                self.touched.push((program, slot));
            }
        }
        Ok(())
    }

    /// The frames of a batch are with the other host's programs.
    fn finish_batch(&mut self, index: usize, sequence: u32) {
        let Some(link) = self.links[index].as_mut() else { return };
        let frames = link.queue.take_sent(sequence);
        for (program, frame) in &frames {
            if let Some(program) = self.programs.get_mut(*program).and_then(Option::as_mut) {
                program.delivered(*frame);
            }
        }
        link.queue.return_list(frames);
    }

    fn take_records(&mut self, index: usize, sequence: u32, batch: &[u8]) -> Result<(), String> {
        let mut held = 0;
        let (mut any, mut awaited) = (false, false);
        for record in Records::new(batch) {
            any = true;
            // Switches, credit and room for large payloads are waited for.
            awaited |= !matches!(record, Ok(Record::Data { .. }));
            match record.map_err(|error| error.to_string())? {
                Record::Data { stream, bytes } => {
                    held += u32::from(!self.take_data(index, sequence, stream, bytes)?);
                }
                Record::Control { stream, control } => self.take_control(index, stream, control)?,
                Record::Delivered(sequence) => {
                    let Some(link) = self.links[index].as_mut() else { return Ok(()) };
                    if link.queue.send.on_early(sequence).map_err(|error| error.to_string())? {
                        self.finish_batch(index, sequence);
                    }
                }
                Record::Block { stream, length, place } => {
                    held += u32::from(!self.take_block(index, sequence, stream, length, place)?);
                }
            }
        }
        if let Some(link) = self.links[index].as_mut() {
            // One part more: what it has brought is to be published first.
            link.queue.on_records(sequence, any, awaited, held + u32::from(any), self.now_us);
            if any {
                self.unpublished.push((index, link.token, sequence));
            }
        }
        Ok(())
    }

    /// Bytes for a program: false when they wait, for room or for the news that nobody gets them.
    pub(super) fn take_data(
        &mut self,
        index: usize,
        sequence: u32,
        number: u32,
        bytes: &[u8],
    ) -> Result<bool, String> {
        let Some(link) = self.links[index].as_mut() else { return Ok(true) };
        link.counters.payload_received += bytes.len() as u64;
        let Some(stream) = link.queue.stream(number) else { return Ok(!link.queue.withhold(sequence)) };
        let (program, slot) = (stream.program, stream.slot);
        let Some(known) = self.programs.get_mut(program).and_then(Option::as_mut) else { return Ok(true) };
        match known.give(slot, bytes, Origin::Batch { link: index, sequence }) {
            Ok(at_once) => {
                self.note_given(program, slot);
                if self.touched.last() != Some(&(program, slot)) {
                    self.touched.push((program, slot));
                }
                Ok(at_once)
            }
            Err(GiveError::Credit) => Err("more bytes than credit".into()),
            Err(GiveError::Lie(lie)) => {
                self.drop_liar(program, lie);
                Ok(!self.withhold(index, sequence))
            }
            Err(GiveError::GaveUp) => {
                self.drop_program(program, GAVE_UP);
                Ok(!self.withhold(index, sequence))
            }
        }
    }

    fn take_control(&mut self, index: usize, number: u32, control: Control) -> Result<(), String> {
        let Some(stream) = self.links[index].as_mut().and_then(|link| link.queue.stream(number)) else {
            return Ok(());
        };
        let (program, slot) = (stream.program, stream.slot);
        let Some(known) = self.programs.get_mut(program).and_then(Option::as_mut) else { return Ok(()) };
        match control {
            Control::Closed => {
                self.close_there(program, slot);
                return Ok(());
            }
            Control::Lost => {
                if let Some(link) = self.links[index].as_mut() {
                    link.queue.leave_for_long(number, self.now_us);
                }
                self.lose_streams(vec![(program, slot)]);
                return Ok(());
            }
            _ => {}
        }
        if let Err(reason) = known.hear(slot, control) {
            // Its own agent should have seen that: this stream is given up, the link goes on.
            let ends = known.slot(slot).and_then(|known| known.ends).map(|ends| ends.to_string());
            let pid = known.session.pid;
            let host = self.links[index].as_ref().map(|link| self.host_name(link.host));
            tracing::warn!(
                pid,
                slot,
                ends,
                host,
                reason,
                "a stream is given up: its other host says what cannot be"
            );
            if let Some(link) = self.links[index].as_mut() {
                link.queue.abandon(number, self.now_us);
            }
            self.lose_streams(vec![(program, slot)]);
            return Ok(());
        }
        self.touched.push((program, slot));
        Ok(())
    }

    /// The other end of a stream is closed. Said to the program after all bytes.
    pub(super) fn close_there(&mut self, index: usize, slot: u32) {
        let Some(program) = self.programs[index].as_mut() else { return };
        let waits = program.overflow.iter().any(|held| held.slot == slot);
        let Some(known) = program.slot(slot) else { return };
        known.there_closed = true;
        if !waits {
            self.say_closed(index, slot);
        }
    }

    pub(super) fn say_closed(&mut self, index: usize, slot: u32) {
        let Some(program) = self.programs[index].as_mut() else { return };
        let Some(generation) = program.slot(slot).map(|known| known.generation) else { return };
        if let Some(port) = &mut program.port {
            port.publish();
            port.set_state(slot, generation, SlotState::Closed);
        }
        self.touched.push((index, slot));
        self.end_if_over(index, slot);
    }

    /// Frees a stream that both ends have closed.
    pub(super) fn end_if_over(&mut self, index: usize, slot: u32) {
        let Some(program) = self.programs[index].as_mut() else { return };
        let Some(known) = program.slot(slot) else { return };
        if !(known.here_closed && (known.there_closed || known.lost)) {
            return;
        }
        let (link, stream) = (known.link, known.stream);
        if let Some(link) = self.links.get_mut(link).and_then(Option::as_mut) {
            if link.queue.has_unsent(stream) {
                // Again when the batch has left.
                self.ending.push((index, slot));
                return;
            }
            link.queue.leave(stream);
        }
        self.free_slot(index, slot);
    }

    /// A slot of a program may be used again.
    pub(super) fn free_slot(&mut self, index: usize, slot: u32) {
        let joint = self.programs[index].as_mut().and_then(|p| p.slot(slot)).and_then(|known| known.joint);
        self.part(joint);
        if let Some(program) = self.programs[index].as_mut() {
            program.free(slot);
            self.users.count_stream(program.session.uid, false);
        }
    }

    /// Tries again for streams whose last batch had not left.
    pub(super) fn end_those_over(&mut self) {
        for (index, slot) in core::mem::take(&mut self.ending) {
            self.end_if_over(index, slot);
        }
    }
}

impl Program {
    /// What the other end of a stream says. What the program would take for a lie of its channel is refused here.
    pub(super) fn hear(&mut self, slot: u32, control: Control) -> Result<(), &'static str> {
        let Some(known) = self.slot(slot) else { return Ok(()) };
        let generation = known.generation;
        known.check(control)?;
        let Some(port) = &self.port else { return Ok(()) };
        match control {
            Control::Flags(_) => self.show_flags(slot),
            Control::Announce { number, position } => port.announce(slot, number, position),
            Control::Passed(passed) => port.set_passed(slot, passed),
            Control::Limit(limit) => port.set_limit(slot, limit),
            Control::WantsKernel => self.ask_for_kernel(slot, generation),
            Control::Reopened => port.set_state(slot, generation, SlotState::Open),
            Control::Lost | Control::Closed => {}
        }
        Ok(())
    }

    fn ask_for_kernel(&mut self, slot: u32, generation: u8) {
        if let Some(port) = &self.port {
            Port::set_state(port, slot, generation, SlotState::WantsKernel);
            let message = convoy_runtime::agent::protocol::Message::Recall { slot, generation };
            self.tell(message);
        }
    }
}
