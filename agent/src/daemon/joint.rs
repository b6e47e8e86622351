//! Connections within this host whose ends belong to different users: the agent stands between their channels, if the policy of
//! both lets it. What one program sends is copied into the other's memory; neither sees the other's.

use super::broker::Both;
use super::engine::Engine;
use super::program::{GiveError, NO_LINK, Origin, Taken};
use super::sessions::GAVE_UP;
use convoy_aggregator::batch::Control;
use convoy_runtime::agent::protocol::{Message, Reason};
use convoy_runtime::port::{Port, fence_before_ring};

/// The other end of a stream within this host: program and slot.
pub(super) type Joint = (usize, u32);

impl Engine {
    /// Opens a stream between two programs that have offered both ends of a connection.
    pub(super) fn join(&mut self, both: Both) {
        let mut opened = Vec::new();
        for (index, id) in both {
            let program = self.programs.get_mut(index).and_then(Option::as_mut);
            match program.and_then(|program| program.open(NO_LINK, 0, id, true)) {
                Some((slot, generation)) => opened.push((index, id, slot, generation)),
                None => {
                    opened.iter().for_each(|(index, _, slot, _)| {
                        if let Some(program) = self.programs[*index].as_mut() {
                            program.free(*slot);
                        }
                    });
                    return both.into_iter().for_each(|(index, id)| self.decline(index, id, Reason::Limit));
                }
            }
        }
        for (this, other) in [(0, 1), (1, 0)] {
            let (index, id, slot, generation) = opened[this];
            let Some(program) = self.programs[index].as_mut() else { continue };
            if let Some(known) = program.slot(slot) {
                known.joint = Some((opened[other].0, opened[other].2));
            }
            let uid = program.session.uid;
            self.users.count_stream(uid, true);
            self.tell_program(index, Message::Opened { id, slot, generation });
        }
    }

    /// Tells the other end what a program has changed in a line.
    pub(super) fn pass_news(&mut self, from: Joint, to: Joint, controls: &[Control]) {
        for control in controls {
            let Some(other) = self.programs.get_mut(to.0).and_then(Option::as_mut) else { return };
            if let Err(reason) = other.hear(to.1, *control) {
                return self.drop_program(from.0, reason);
            }
            self.touched.push(to);
            if let Control::Announce { number, .. } = control
                && let Some(port) = self.programs[from.0].as_ref().and_then(|program| program.port.as_ref())
            {
                port.set_heard(from.1, *number);
                self.touched.push(from);
            }
        }
    }

    /// Gives a frame of a program to the other one.
    pub(super) fn pass_frame(&mut self, from: usize, to: Joint, taken: Taken) {
        let Some(program) = self.programs[from].as_mut() else { return };
        let Some(port) = program.port.as_ref() else { return };
        let mut bytes = core::mem::take(&mut self.block);
        bytes.resize(taken.piece.0.length as usize, 0);
        port.copy(&taken.piece.0, 0, &mut bytes);
        let origin = Origin::Frame { program: from, serial: program.serial, frame: taken.frame };
        let other = self.programs.get_mut(to.0).and_then(Option::as_mut);
        let given = other.map_or(Ok(true), |other| {
            let given = other.give(to.1, &bytes, origin);
            // Before the sender's copy goes: this agent may die between.
            other.port.iter_mut().for_each(Port::publish);
            fence_before_ring();
            if other.has_given_up() { Err(GiveError::GaveUp) } else { given }
        });
        self.block = bytes;
        self.touched.push(to);
        self.note_given(to.0, to.1);
        match given {
            Ok(true) => self.finish_frame(origin),
            Ok(false) => {}
            Err(GiveError::Credit) => self.drop_program(from, "it sent more bytes than it was granted"),
            Err(GiveError::Lie(lie)) => self.drop_liar(to.0, lie),
            Err(GiveError::GaveUp) => self.drop_program(to.0, GAVE_UP),
        }
    }

    /// A frame has reached the other program of this host.
    pub(super) fn finish_frame(&mut self, origin: Origin) {
        let Origin::Frame { program, serial, frame } = origin else { return };
        if let Some(program) = self.programs.get_mut(program).and_then(Option::as_mut)
            && program.serial == serial
        {
            program.finish(frame);
        }
    }

    /// A slot ends: its other end within this host, if there is one, has none any more.
    pub(super) fn part(&mut self, slot: Option<Joint>) {
        let Some((program, slot)) = slot else { return };
        if let Some(known) =
            self.programs.get_mut(program).and_then(Option::as_mut).and_then(|p| p.slot(slot))
        {
            known.joint = None;
        }
    }
}
