//! What a program does when it reads: frames are sorted to their streams, and a stream is read from the path that is its turn.
//! After `runtime/src/channel/receive.rs`, `reading.rs` and `runtime/src/stream/receive.rs`.

use crate::channel::{Line, Place, STAYS, SlotState};
use crate::clock::Event;
use crate::kernel::Ending;
use crate::stream::{Ended, Recovery};
use crate::world::World;
use convoy_aggregator::path::Path;
use convoy_aggregator::stream::Announcement;

const BYTES_OF_A_CALL: u64 = 64 << 10;
/// One call in so many is followed by a time in which the program does not read.
const FALLS_ASLEEP: u64 = 150;

impl World {
    /// Frames or news are there for a program.
    pub fn plan_sort(&mut self, channel: u32, side: usize) {
        let known = &mut self.channels[channel as usize];
        if std::mem::replace(&mut known.sort_planned[side], true) {
            return;
        }
        let life = known.life;
        let delay = 1 + self.rng.below(30);
        self.clock.after(delay, Event::Sort { channel, side: side as u8, life });
    }

    /// A program sorts the frames of its ring to their streams.
    pub fn sort(&mut self, channel: u32, side: usize, life: u32) {
        let known = &mut self.channels[channel as usize];
        if known.life != life {
            return;
        }
        known.sort_planned[side] = false;
        while let Some(frame) = self.channels[channel as usize].lanes[1 - side].take_published() {
            let known = &self.channels[channel as usize];
            let Some(header) = frame.header(known.lines.len()) else {
                self.channel_lied(channel, "a frame that cannot be");
                return self.fail_channel(channel);
            };
            let current = known.generations[header.slot as usize] == header.generation;
            let Some((index, e)) = known.owners[header.slot as usize][side].filter(|_| current) else {
                continue;
            };
            let end = &mut self.streams[index as usize].ends[e];
            if end.recalled {
                continue;
            }
            if end.receive.on_arrived(frame.bytes.len() as u64).is_err() {
                self.lied(index, "more bytes than credit");
                return self.fail_channel(channel);
            }
            end.arrived += frame.bytes.len() as u64;
            end.queue.extend(&frame.bytes);
            self.check_end(index, e);
            let delay = 1 + self.rng.below(10);
            self.wake(index, e, delay);
        }
        if self.channels[channel as usize].is_far() {
            self.plan_turn_for(channel);
        }
    }

    /// Reads what there is.
    pub fn receive(&mut self, index: u32, e: usize) {
        let now = self.clock.now;
        let end = &mut self.streams[index as usize].ends[e];
        if end.ended.is_some() {
            return;
        }
        if now < end.asleep_until && !self.calm {
            let left = end.asleep_until - now;
            return self.wake(index, e, left);
        }
        if !self.calm && self.rng.once_in(FALLS_ASLEEP) {
            self.report.fault("readers asleep");
            let most = self.plan.pause * 100;
            self.streams[index as usize].ends[e].asleep_until = now + self.rng.skewed(most);
        }
        let mut left = self.rng.skewed(BYTES_OF_A_CALL) as usize;
        while left > 0 {
            let end = &self.streams[index as usize].ends[e];
            let read = match (end.at, end.recovery) {
                (_, Recovery::Running) => return,
                (Some(place), Recovery::None) => self.read_attached(index, e, place, left),
                _ => self.read_returned(index, e, left),
            };
            if read == 0 || self.failure.is_some() {
                break;
            }
            left -= read.min(left);
        }
        self.look_for_end(index, e);
    }

    /// What the other end says of its switches, with positions as this end counts the kernel's bytes.
    pub fn announcement(&self, index: u32, e: usize, place: Place) -> Announcement {
        let line = self.peer_line(place);
        let base = self.streams[index as usize].ends[e].kernel_read;
        let positions = [line.positions[0], line.positions[1].saturating_sub(base)];
        Announcement { positions, announced: line.announced }
    }

    fn read_attached(&mut self, index: u32, e: usize, place: Place, most: usize) -> usize {
        // How much the kernel has comes before the look at the switches: see `convoy_aggregator::path`.
        let in_kernel = self.streams[index as usize].wires[1 - e].readable();
        let announcement = self.announcement(index, e, place);
        let end = &mut self.streams[index as usize].ends[e];
        let before = end.receive.passed();
        let Ok(source) = end.receive.source(&announcement) else {
            let counts = end.receive.counts();
            self.note(index, || {
                format!("end {e} cannot follow {announcement:?} after switch {before}, {counts:?}")
            });
            self.lied(index, "impossible switch");
            self.reset(index, e);
            return 0;
        };
        let passed = end.receive.passed();
        if passed != before {
            self.own_line(place).passed = passed;
            self.note(index, || format!("end {e} has passed switch {passed}"));
            self.changed(place);
        }
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        let there = if source.path == Path::Kernel { in_kernel } else { end.queue.len() };
        let part = most.min(there).min(usize::try_from(source.limit).unwrap_or(usize::MAX));
        let bytes: Vec<u8> = match source.path {
            Path::Kernel => stream.wires[1 - e].read(part),
            Path::Channel => end.queue.drain(..part).collect(),
        };
        let granted = end.receive.on_read(part as u64, &announcement);
        self.take(index, e, &bytes);
        match granted {
            Ok(Some(limit)) => self.tell_limit(index, e, place, limit),
            Ok(None) => {}
            Err(error) => self.broken(index, "a read within what is there", format!("{error:?}")),
        }
        part
    }

    fn tell_limit(&mut self, index: u32, e: usize, place: Place, limit: u64) {
        self.own_line(place).limit = limit;
        self.changed(place);
        let most = self.plan.window * 8;
        let end = &mut self.streams[index as usize].ends[e];
        end.window = (end.window * 2).min(most);
        end.receive.set_window(end.window);
    }

    fn read_returned(&mut self, index: u32, e: usize, most: usize) -> usize {
        let stream = &mut self.streams[index as usize];
        let end = &mut stream.ends[e];
        let part = end.queue.len().min(most);
        let bytes = if part > 0 {
            end.queue.drain(..part).collect()
        } else if end.recovery == Recovery::Failed {
            end.ended = Some(Ended::Visibly);
            Vec::new()
        } else {
            let bytes = stream.wires[1 - e].read(most);
            // The other end's mark may still come, and asks how far this one is.
            end.kernel_read += bytes.len() as u64;
            bytes
        };
        self.take(index, e, &bytes);
        bytes.len()
    }

    /// The program has got bytes.
    fn take(&mut self, index: u32, e: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let stream = &mut self.streams[index as usize];
        let from = stream.ends[e].read;
        stream.ends[e].read += bytes.len() as u64;
        if stream.tainted {
            self.report.bytes_of_liars += bytes.len() as u64;
        } else {
            self.report.bytes_checked += bytes.len() as u64;
            if let Some(at) = stream.patterns[1 - e].differs_at(from, bytes) {
                let what = format!("end {e} reads a wrong byte at {at} (the call began at {from})");
                return self.broken(index, "every byte once and in order", what);
            }
        }
        self.note(index, || format!("end {e} reads {} bytes from {from} on", bytes.len()));
        let delay = 1 + self.rng.below(20);
        self.wake(index, 1 - e, delay);
    }

    /// Whether the kernel's end is the stream's: everything that came before it is here.
    fn look_for_end(&mut self, index: u32, e: usize) {
        let stream = &self.streams[index as usize];
        let end = &stream.ends[e];
        let Some(ending) = stream.wires[1 - e].ending() else { return };
        if end.ended.is_some() || !end.queue.is_empty() || end.recovery == Recovery::Running {
            return;
        }
        if let Some(place) = end.at.filter(|_| end.recovery == Recovery::None)
            && !self.may_end(index, e, place)
        {
            return;
        }
        let found = self.streams[index as usize].ends[e].at.map(|place| (place, self.peer_line(place)));
        self.note(index, || format!("end {e} finds the end at {found:?}"));
        let stream = &mut self.streams[index as usize];
        let (read, sent, peer_finished) =
            (stream.ends[e].read, stream.ends[1 - e].sent, stream.ends[1 - e].finished);
        let ended = if ending == Ending::Orderly { Ended::Whole } else { Ended::Visibly };
        stream.ends[e].ended = Some(ended);
        self.note(index, || format!("end {e} has read to the end: {ended:?} after {read} of {sent}"));
        let tainted = self.streams[index as usize].tainted;
        if ended == Ended::Whole && !tainted && (read != sent || !peer_finished) {
            self.broken(
                index,
                "no byte is missing at an orderly end",
                format!("end {e}: {read} of {sent} bytes"),
            );
        }
    }

    fn may_end(&self, index: u32, e: usize, place: Place) -> bool {
        let end = &self.streams[index as usize].ends[e];
        let line: Line = self.peer_line(place);
        let channel = &self.channels[place.channel as usize];
        let pending = line.announced != end.receive.passed();
        if channel.life != place.life || channel.lost && !channel.is_far() {
            return true;
        }
        let sorted = channel.lanes[1 - place.side].is_sorted();
        if !channel.is_far() {
            let killed = self.streams[index as usize].wires[1 - e].ending() == Some(Ending::Reset);
            return (!pending || killed) && sorted;
        }
        sorted && line.flags & STAYS != 0 && !pending || sorted && line.state == SlotState::Closed
    }

    /// Bytes, or the end, have come through the kernel.
    pub fn kernel(&mut self, index: u32, from: usize, epoch: u32, bytes: u32) {
        let Some(stream) = self.stream(index, epoch) else { return };
        stream.wires[from].arrive(bytes as usize);
        if stream.ends[1 - from].recovery == Recovery::Running {
            self.plan_return(index, 1 - from);
        }
        self.wake(index, 1 - from, 1);
    }
}
