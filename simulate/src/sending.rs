//! What a program does when it sends: on the channel while there is credit and room, otherwise through the kernel; and how it
//! ends. After `runtime/src/channel/send.rs`, `switch.rs` and `runtime/src/stream.rs`.

use crate::channel::{Frame, Place, READY, STAYS, SlotState};
use crate::clock::Event;
use crate::kernel::Ending;
use crate::stream::{Ended, Recovery};
use crate::world::World;
use convoy_aggregator::path::Path;

/// Largest payload of a frame, and the largest that is not put into a block.
const MOST_IN_FRAME: usize = 16 << 10;
pub const INLINE: usize = 4 << 10;
/// So often a program looks at a stream by itself, as one with a timeout does.
const LOOK_EVERY: u64 = 1_000_000;
/// One call in so many finds that the fabric is not worth it for the moment.
const LEAVES_CHANNEL: u64 = 60;
const BYTES_OF_A_CALL: u64 = 48 << 10;

impl World {
    /// A program is to look at its end of a stream, at the latest in so many microseconds.
    pub fn wake(&mut self, index: u32, end: usize, delay: u64) {
        let at = self.clock.now + delay;
        let stream = &mut self.streams[index as usize];
        let epoch = stream.epoch;
        let known = &mut stream.ends[end];
        if known.closed || known.act_at.is_some_and(|planned| planned <= at) {
            return;
        }
        known.act_at = Some(at);
        self.clock.after(delay, Event::Act { stream: index, end: end as u8, epoch });
    }

    /// A program reads and writes.
    pub fn act(&mut self, index: u32, e: usize, epoch: u32) {
        let now = self.clock.now;
        let Some(stream) = self.stream(index, epoch) else { return };
        if stream.ends[e].act_at != Some(now) || stream.ends[e].closed {
            return;
        }
        stream.ends[e].act_at = None;
        stream.ends[e].calls += 1;
        self.notice(index, e);
        self.receive(index, e);
        self.look_for_reset(index, e);
        let before = self.streams[index as usize].ends[e].sent;
        self.send(index, e);
        self.check_end(index, e);
        if self.close_if_over(index, e) {
            return;
        }
        let end = &self.streams[index as usize].ends[e];
        let goes_on = end.sent > before || end.sent == 0;
        let pause = if self.calm { 100 } else { self.rng.skewed(self.plan.pause) };
        self.wake(index, e, if goes_on { pause } else { LOOK_EVERY });
        self.consider_joining(index);
    }

    /// A connection that the other end has reset takes nothing any more.
    fn look_for_reset(&mut self, index: u32, e: usize) {
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        if stream.wires[e].is_ended() && !end.finished && end.recovery != Recovery::Running {
            end.ended = Some(Ended::Visibly);
            self.reset(index, e);
        }
    }

    fn send(&mut self, index: u32, e: usize) {
        let end = &self.streams[index as usize].ends[e];
        if end.finished || end.recovery == Recovery::Running || end.ended == Some(Ended::Visibly) {
            return;
        }
        if end.sent == end.total {
            return self.finish(index, e);
        }
        let (left, place, recovery) = (end.total - end.sent, end.at, end.recovery);
        // Streams of few bytes have several calls, too.
        let most = BYTES_OF_A_CALL.min(end.total / self.plan.calls + 1);
        let wanted = left.min(self.rng.skewed(most)) as usize;
        match place.filter(|_| recovery == Recovery::None) {
            Some(place) => self.send_attached(index, e, place, wanted),
            None => self.send_in_kernel(index, e, wanted),
        }
    }

    fn send_attached(&mut self, index: u32, e: usize, place: Place, wanted: usize) {
        let peer = self.peer_line(place);
        if peer.state == SlotState::WantsKernel {
            self.streams[index as usize].ends[e].stay = true;
        }
        let leaves = self.rng.once_in(LEAVES_CHANNEL);
        let end = &self.streams[index as usize].ends[e];
        let (stay, path) = (end.stay, end.send.path());
        if path == Path::Channel && (stay || leaves) && self.may_use_kernel(place) {
            self.switch(index, e, place, Path::Kernel);
        } else if path == Path::Kernel
            && !stay
            && !leaves
            && peer.state == SlotState::Open
            && peer.flags & READY != 0
            && !self.is_lost(place)
        {
            self.switch(index, e, place, Path::Channel);
        }
        let end = &self.streams[index as usize].ends[e];
        if end.send.path() == Path::Kernel {
            if end.stay {
                // Not before the switch: the other end takes it for the last word.
                self.own_line(place).flags |= STAYS;
                self.changed(place);
            }
            return self.send_in_kernel(index, e, wanted);
        }
        if self.send_in_channel(index, e, place, wanted) == 0 && self.may_use_kernel(place) {
            // The receiver does not keep up: what follows goes into the kernel's buffers.
            self.report.fault("spills");
            self.switch(index, e, place, Path::Kernel);
            self.send_in_kernel(index, e, wanted);
        }
    }

    /// Whether the other end knows of the last switch to the channel, or it would take the kernel's bytes first.
    fn may_use_kernel(&self, place: Place) -> bool {
        let channel = &self.channels[place.channel as usize];
        let [own, agent] = channel.lines[place.slot as usize];
        !channel.is_far() || own.announced & 1 == 0 || agent.heard == own.announced || channel.lost
    }

    pub fn is_lost(&self, place: Place) -> bool {
        let channel = &self.channels[place.channel as usize];
        channel.life != place.life || channel.lost
    }

    /// Changes over to another path, if the rules allow it now.
    fn switch(&mut self, index: u32, e: usize, place: Place, to: Path) -> bool {
        let passed = self.peer_line(place).passed;
        let end = &mut self.streams[index as usize].ends[e];
        let Ok(announcement) = end.send.switch(to, passed) else { return false };
        let number = announcement.announced;
        let base = if to == Path::Channel { end.kernel_sent } else { 0 };
        let position = announcement.position(number) + base;
        let line = self.own_line(place);
        line.positions[(number & 1) as usize] = position;
        line.announced = number;
        self.report.switches += 1;
        self.note(index, || format!("end {e} announces switch {number} to {to:?} at {position}"));
        self.changed(place);
        true
    }

    fn send_in_channel(&mut self, index: u32, e: usize, place: Place, wanted: usize) -> usize {
        let limit = self.peer_line(place).limit;
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        if end.send.grant(limit).is_err() {
            self.lied(index, "impossible credit");
            self.fail_channel(place.channel);
            return 0;
        }
        let lane = &mut self.channels[place.channel as usize].lanes[place.side];
        let mut sent = 0;
        while sent < wanted {
            let most = MOST_IN_FRAME.min(lane.capacity / 4);
            let part = (wanted - sent).min(most).min(end.send.allowance() as usize);
            if part == 0 || !lane.has_room(part.min(INLINE)) {
                break;
            }
            let mut bytes = vec![0; part];
            stream.patterns[e].fill(end.sent, &mut bytes);
            if !lane.put(Frame::new(place.slot, place.generation, bytes, INLINE))
                || end.send.on_sent(part as u64).is_err()
            {
                break;
            }
            end.sent += part as u64;
            sent += part;
        }
        if sent > 0 {
            let to = stream.ends[e].sent;
            self.note(index, || format!("end {e} sends {sent} bytes on the channel, up to {to}"));
            self.ring(place);
        }
        sent
    }

    fn send_in_kernel(&mut self, index: u32, e: usize, wanted: usize) {
        let buffer = self.plan.kernel_buffer;
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        let part = wanted.min(stream.wires[e].room(buffer));
        if part == 0 {
            return;
        }
        self.scratch.resize(part, 0);
        stream.patterns[e].fill(end.sent, &mut self.scratch);
        stream.wires[e].send(&self.scratch);
        end.sent += part as u64;
        if end.at.is_some() && end.recovery == Recovery::None {
            let _ = end.send.on_sent(part as u64);
        }
        let to = end.sent;
        self.note(index, || format!("end {e} sends {part} bytes through the kernel, up to {to}"));
        self.deliver_by_kernel(index, e, part);
    }

    /// So many bytes that were sent through the kernel are on their way; none: the end is.
    pub fn deliver_by_kernel(&mut self, index: u32, from: usize, bytes: usize) {
        let delay = 20 + self.rng.below(self.plan.flight * 4);
        let now = self.clock.now;
        let stream = &mut self.streams[index as usize];
        let at = (now + delay).max(stream.wires[from].last_arrival);
        stream.wires[from].last_arrival = at;
        let (epoch, bytes) = (stream.epoch, bytes as u32);
        self.clock.after(at - now, Event::Kernel { stream: index, from: from as u8, epoch, bytes });
    }

    /// Everything is sent: the direction goes to the kernel for good, so that its end comes after the bytes.
    fn finish(&mut self, index: u32, e: usize) {
        let end = &self.streams[index as usize].ends[e];
        if let Some(place) = end.at.filter(|_| end.recovery == Recovery::None) {
            if end.send.path() == Path::Channel
                && !(self.may_use_kernel(place) && self.switch(index, e, place, Path::Kernel))
            {
                return;
            }
            let far = self.channels[place.channel as usize].is_far();
            self.streams[index as usize].ends[e].stay = true;
            let line = self.own_line(place);
            line.flags |= STAYS;
            if far && line.state == SlotState::Open {
                // An end that cannot send any more cannot settle a loss: the other direction is to be the kernel's, too.
                line.state = SlotState::WantsKernel;
            }
            self.changed(place);
        }
        self.note(index, || format!("end {e} has sent everything"));
        self.end_wire(index, e, Ending::Orderly);
        self.streams[index as usize].ends[e].finished = true;
    }

    /// Ends what an end sends through the kernel.
    pub fn end_wire(&mut self, index: u32, e: usize, how: Ending) {
        self.streams[index as usize].wires[e].end(how);
        self.deliver_by_kernel(index, e, 0);
    }

    /// The connection is reset, from one end: its program has been told, the other one will be.
    pub fn reset(&mut self, index: u32, e: usize) {
        self.note(index, || format!("end {e} resets the connection"));
        let end = &mut self.streams[index as usize].ends[e];
        end.finished = true;
        end.ended = end.ended.or(Some(Ended::Visibly));
        if end.recovery == Recovery::Running {
            end.recovery = Recovery::Failed;
            end.returning = None;
        }
        self.streams[index as usize].wires[1 - e].end(Ending::Reset);
        self.end_wire(index, e, Ending::Reset);
        self.wake(index, e, 1);
    }

    /// Frames were put into a ring: whoever takes them is told.
    pub fn ring(&mut self, place: Place) {
        let channel = &self.channels[place.channel as usize];
        if channel.is_far() {
            self.plan_turn_for(place.channel);
        } else {
            self.plan_sort(place.channel, 1 - place.side);
        }
    }

    /// A line has changed: whoever reads it is told.
    pub fn changed(&mut self, place: Place) {
        let channel = &mut self.channels[place.channel as usize];
        if channel.is_far() {
            channel.changes.insert(place.slot);
            self.plan_turn_for(place.channel);
        } else if let Some((stream, end)) = channel.owners[place.slot as usize][1 - place.side] {
            let delay = 1 + self.rng.below(20);
            self.wake(stream, end, delay);
        }
    }

    /// A program closes its end when it has ended both ways. True when it has.
    fn close_if_over(&mut self, index: u32, e: usize) -> bool {
        let end = &self.streams[index as usize].ends[e];
        if end.ended.is_none() || end.recovery == Recovery::Running {
            return false;
        }
        if end.ended == Some(Ended::Visibly) && !end.finished {
            self.reset(index, e);
        }
        if !self.streams[index as usize].ends[e].finished {
            return false;
        }
        self.close(index, e);
        true
    }

    /// A program closes its end.
    pub fn close(&mut self, index: u32, e: usize) {
        self.note(index, || format!("end {e} is closed"));
        self.leave_place(index, e);
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        end.closed = true;
        end.queue = Default::default();
        let program = end.program;
        self.programs[program as usize].streams.remove(&index);
        if self.streams[index as usize].ends.iter().all(|end| end.closed) {
            self.release_stream(index);
        }
    }

    /// An end gives its slot up.
    pub fn leave_place(&mut self, index: u32, e: usize) {
        let Some(place) = self.streams[index as usize].ends[e].at.take() else { return };
        let channel = &mut self.channels[place.channel as usize];
        if channel.life != place.life {
            return;
        }
        channel.owners[place.slot as usize][place.side] = None;
        channel.open -= 1;
        channel.lines[place.slot as usize][place.side].state = SlotState::Closed;
        let [one, two] = channel.lines[place.slot as usize];
        if !channel.is_far() && one.state == SlotState::Closed && two.state == SlotState::Closed {
            channel.free.push_back(place.slot);
        }
        self.changed(place);
        self.free_channel_if_over(place.channel);
    }

    fn release_stream(&mut self, index: u32) {
        let stream = &mut self.streams[index as usize];
        let whole = stream.ends.iter().all(|end| end.ended == Some(Ended::Whole));
        stream.epoch = stream.epoch.wrapping_add(1);
        let counter = match (stream.tainted, whole) {
            (true, _) => &mut self.report.tainted,
            (false, true) => &mut self.report.whole,
            (false, false) => &mut self.report.visibly,
        };
        *counter += 1;
        stream.wires = Default::default();
        self.free_streams.push(index);
    }
}
