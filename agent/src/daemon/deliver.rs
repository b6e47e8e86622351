//! What has come for programs is published, and only then said to be delivered: the sender keeps it until then, because this agent
//! may die between, or a program may have taken it for gone.

use super::engine::Engine;
use super::program::{NO_LINK, Origin, Program};
use super::sessions::GAVE_UP;
use convoy_runtime::port::{Port, fence_before_ring};

/// From so many bells on, none is looked for before it is noted once more.
const MOST_BELLS: usize = 32;

impl Engine {
    /// Publishes what programs were given and wakes those who wait for it.
    pub(super) fn wake_touched(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        for (program, _) in &self.touched {
            if let Some(port) = self.programs[*program].as_mut().and_then(|program| program.port.as_mut()) {
                port.publish();
            }
        }
        fence_before_ring();
        for (program, slot) in self.touched.drain(..) {
            let port = self.programs[program].as_ref().and_then(|program| program.port.as_ref());
            if port.is_some_and(Port::has_given_up) && !self.gave_up.contains(&program) {
                self.gave_up.push(program);
            }
            for bell in port.into_iter().flat_map(|port| port.bells(slot)) {
                // Once for all streams that are waited for by it.
                if self.bells.len() >= MOST_BELLS || !self.bells.contains(&(program, bell)) {
                    self.bells.push((program, bell));
                }
            }
        }
        for (program, bell) in self.bells.drain(..) {
            if let Some(port) = self.programs[program].as_ref().and_then(|program| program.port.as_ref()) {
                self.counters.doorbells_rung += u64::from(port.ring(bell));
            }
        }
    }

    /// What this round's batches have brought is published, so they are delivered. Of programs that had taken this agent for gone
    /// by then, or were dropped before, nobody knows what they have seen: batches wait until the other side has heard of the loss.
    pub(super) fn deliver_batches(&mut self) {
        let mut batches = core::mem::take(&mut self.unpublished);
        batches
            .retain(|(link, token, _)| self.links[*link].as_ref().is_some_and(|known| known.token == *token));
        let mut late = core::mem::take(&mut self.gave_up);
        late.retain(|index| self.programs[*index].as_ref().is_some_and(Program::has_given_up));
        late.iter().for_each(|index| self.drop_program(*index, GAVE_UP));
        if core::mem::take(&mut self.dropped) {
            batches.retain(|(link, _, sequence)| !self.withhold(*link, *sequence));
        }
        for of_link in batches.chunk_by(|one, next| one.0 == next.0) {
            if let Some(link) = of_link.first().and_then(|(link, ..)| self.links[*link].as_mut()) {
                link.queue.on_published(of_link.iter().map(|(.., sequence)| *sequence));
            }
        }
        batches.clear();
        self.unpublished = batches;
    }

    /// Gives programs what their rings had no room for. True when anything moved.
    pub(super) fn retry_overflow(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.programs.len() {
            while self.programs[index].as_ref().is_some_and(|program| !program.overflow.is_empty()) {
                match self.give_held(index) {
                    Some(true) => any = true,
                    _ => break,
                }
            }
        }
        any
    }

    /// The first held bytes of a program: true when all of them found room.
    fn give_held(&mut self, index: usize) -> Option<bool> {
        let program = self.programs[index].as_mut()?;
        let held = program.overflow.front_mut()?;
        let port = program.port.as_mut()?;
        let rest = held.bytes.get(held.done..).unwrap_or_default();
        let done = match port.put(held.slot, held.generation, rest) {
            Ok(done) => done,
            Err(lie) => {
                self.drop_liar(index, lie);
                return None;
            }
        };
        held.done += done;
        self.touched.push((index, held.slot));
        if held.done < held.bytes.len() {
            return Some(false);
        }
        let (slot, origin) = (held.slot, held.origin);
        // Before the sender's copy goes: this agent may die between.
        port.publish();
        fence_before_ring();
        if port.has_given_up() {
            self.drop_program(index, GAVE_UP);
            return None;
        }
        program.overflow.pop_front();
        self.hand_over(origin);
        let over = self.programs[index].as_mut().and_then(|program| {
            let waits = program.overflow.iter().any(|held| held.slot == slot);
            program.slot(slot).map(|known| known.there_closed && !waits)
        });
        if over == Some(true) {
            self.say_closed(index, slot);
        }
        Some(true)
    }

    /// Bytes that were held are with their program, or nobody wants them any more.
    pub(super) fn hand_over(&mut self, origin: Origin) {
        self.finish_frame(origin);
        if let Origin::Batch { link, sequence } = origin
            && let Some(link) = self.links.get_mut(link).and_then(Option::as_mut)
        {
            link.queue.on_handed_over(sequence);
        }
    }

    /// Bytes of a batch reach no program: whether the batch must wait for the other host to hear of that.
    pub(super) fn withhold(&mut self, index: usize, sequence: u32) -> bool {
        self.links[index].as_mut().is_some_and(|link| link.queue.withhold(sequence))
    }

    /// Bytes that waited for room at a program reach nobody.
    pub(super) fn drop_held(&mut self, origin: Origin) {
        match origin {
            // Its program is told of the loss and keeps the frame.
            Origin::Frame { .. } => {}
            Origin::Batch { link, sequence } if link != NO_LINK && self.withhold(link, sequence) => {}
            Origin::Batch { .. } => self.hand_over(origin),
        }
    }
}
