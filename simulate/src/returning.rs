//! Back to the kernel when the way to the other host is gone: both ends write a mark and a record, send again what the other has
//! not got, and put the bytes in order. After `runtime/src/agent/failover.rs` and `failover/returning.rs`.

use crate::channel::{JOINED, Place, RECOVERED, STAYS, SlotState};
use crate::clock::Event;
use crate::kernel::{Ending, Wire};
use crate::stream::Recovery;
use crate::world::World;
use convoy_aggregator::record::{Place as Progress, RECORD_BYTES, Record, in_order};

/// One end that returns.
#[derive(Default)]
pub struct Returning {
    /// Most bytes that the other end may have sent through the channel: the credit it was granted.
    granted: u64,
    own: Record,
    /// What this end has sent and may have to send again: up to `own.sent`.
    retained: Vec<u8>,
    marked: bool,
    output: Vec<u8>,
    written: usize,
    past_mark: bool,
    /// Bytes that came through the kernel before the mark.
    before_mark: Vec<u8>,
    record: Vec<u8>,
    theirs: Option<Record>,
    again: Vec<u8>,
}

enum Step {
    Progress,
    Waits,
    Over,
    Failed(&'static str),
}

impl World {
    /// Looks whether the way of a stream is gone, or the other end has begun to return.
    pub fn notice(&mut self, index: u32, e: usize) {
        let stream = &self.streams[index as usize];
        let end = &stream.ends[e];
        let Some(place) = end.at else { return };
        let channel = &self.channels[place.channel as usize];
        if !channel.is_far() {
            if channel.lost && end.ended.is_none() {
                self.reset(index, e);
            }
            return;
        }
        let undecided = matches!(end.recovery, Recovery::None | Recovery::Quiet);
        if undecided && stream.wires[1 - e].is_marked() {
            return self.begin_returning(index, e, place);
        }
        let line = self.peer_line(place);
        let lost = channel.lost && line.state != SlotState::Closed || line.state == SlotState::Lost;
        if end.recovery != Recovery::None || !lost {
            return;
        }
        if line.flags & JOINED != 0 && !self.is_settled(index, e, place) {
            self.begin_returning(index, e, place);
        } else {
            self.note(index, || format!("end {e} has nothing to settle"));
            self.end_returning(index, e, Recovery::Quiet);
        }
    }

    /// Whether both directions are on the kernel for good, and both ends know it.
    fn is_settled(&self, index: u32, e: usize, place: Place) -> bool {
        let channel = &self.channels[place.channel as usize];
        let own = channel.lines[place.slot as usize][place.side];
        let peer = self.peer_line(place);
        let passed = self.streams[index as usize].ends[e].receive.passed();
        own.flags & peer.flags & STAYS != 0 && own.announced == peer.passed && peer.announced == passed
    }

    fn begin_returning(&mut self, index: u32, e: usize, place: Place) {
        // What has arrived is sorted first; what still comes is sent again.
        let life = place.life;
        self.sort(place.channel, place.side, life);
        let line = *self.own_line(place);
        let lane = &self.channels[place.channel as usize].lanes[place.side];
        let retained = lane.retained(place.slot, place.generation);
        let liar = self.programs[self.streams[index as usize].ends[e].program as usize].liar;
        let end = &mut self.streams[index as usize].ends[e];
        end.recalled = true;
        end.stay = true;
        end.recovery = Recovery::Running;
        let mut own = Record {
            announced: line.announced,
            positions: line.positions,
            sent: end.send.counts().channel,
            received: end.arrived,
        };
        let told = if liar { self.lie_in_record(&mut own) } else { own };
        let end = &mut self.streams[index as usize].ends[e];
        end.returning = Some(Box::new(Returning {
            granted: line.limit,
            own,
            retained,
            output: told.encode().to_vec(),
            ..Returning::default()
        }));
        self.report.returns += 1;
        self.note(index, || format!("end {e} returns to the kernel: {own:?}"));
        self.plan_return(index, e);
    }

    /// An end that returns may get on.
    pub fn plan_return(&mut self, index: u32, e: usize) {
        let delay = 1 + self.rng.below(500);
        let epoch = self.streams[index as usize].epoch;
        self.clock.after(delay, Event::Return { stream: index, end: e as u8, epoch });
    }

    /// An end that returns goes on as far as it gets.
    pub fn go_on_returning(&mut self, index: u32, e: usize, epoch: u32) {
        if self.stream(index, epoch).is_none() {
            return;
        }
        while self.streams[index as usize].ends[e].recovery == Recovery::Running {
            let Some(mut returning) = self.streams[index as usize].ends[e].returning.take() else { return };
            let step = match (self.write(index, e, &mut returning), self.read(index, e, &mut returning)) {
                (Step::Failed(why), _) | (_, Step::Failed(why)) => Step::Failed(why),
                (Step::Over, Step::Over) => self.put_in_order(index, e, &mut returning),
                (Step::Progress, _) | (_, Step::Progress) => Step::Progress,
                _ => Step::Waits,
            };
            match step {
                Step::Progress => self.streams[index as usize].ends[e].returning = Some(returning),
                Step::Waits => {
                    self.streams[index as usize].ends[e].returning = Some(returning);
                    return;
                }
                Step::Over => self.end_returning(index, e, Recovery::Done),
                Step::Failed(why) => {
                    self.note(index, || format!("end {e} cannot return: {why}"));
                    if !self.streams[index as usize].wires.iter().any(Wire::is_ended) {
                        self.broken(index, "a return fails only with its connection", why.into());
                    }
                    self.give_up(index, e, &mut returning);
                }
            }
        }
    }

    fn write(&mut self, index: u32, e: usize, returning: &mut Returning) -> Step {
        let buffer = self.plan.kernel_buffer.max(RECORD_BYTES);
        let wire = &mut self.streams[index as usize].wires[e];
        if !returning.marked {
            if !wire.send_mark() {
                return Step::Failed("the mark cannot be written");
            }
            returning.marked = true;
            self.deliver_by_kernel(index, e, 1);
            return Step::Progress;
        }
        let rest = &returning.output[returning.written..];
        if rest.is_empty() {
            return if returning.theirs.is_some() { Step::Over } else { Step::Waits };
        }
        if wire.is_ended() {
            return Step::Failed("the record cannot be written");
        }
        let part = rest.len().min(wire.room(buffer));
        if part == 0 {
            return Step::Waits;
        }
        wire.send(&rest[..part]);
        returning.written += part;
        self.deliver_by_kernel(index, e, part);
        Step::Progress
    }

    fn read(&mut self, index: u32, e: usize, returning: &mut Returning) -> Step {
        let wire = &mut self.streams[index as usize].wires[1 - e];
        if !returning.past_mark {
            if wire.take_mark() {
                returning.past_mark = true;
                return self.wake_writer(index, e);
            }
            let bytes = wire.read(usize::MAX);
            if !bytes.is_empty() {
                returning.before_mark.extend(bytes);
                return self.wake_writer(index, e);
            }
            return if wire.ending().is_some() {
                Step::Failed("it has ended before the mark")
            } else {
                Step::Waits
            };
        }
        let missing = returning.theirs.map_or(0, |theirs| theirs.sent - returning.own.received) as usize;
        let most = match returning.theirs {
            None => RECORD_BYTES - returning.record.len(),
            Some(_) => missing - returning.again.len(),
        };
        if most == 0 {
            return Step::Over;
        }
        let bytes = wire.read(most);
        if bytes.is_empty() {
            return if wire.ending().is_some() {
                Step::Failed("it has ended before the bytes")
            } else {
                Step::Waits
            };
        }
        if returning.theirs.is_some() {
            returning.again.extend(bytes);
            return self.wake_writer(index, e);
        }
        returning.record.extend(bytes);
        if returning.record.len() == RECORD_BYTES {
            returning.take_record()
        } else {
            self.wake_writer(index, e)
        }
    }

    /// There is room in the kernel again for what the other end sends.
    fn wake_writer(&mut self, index: u32, e: usize) -> Step {
        if self.streams[index as usize].ends[1 - e].recovery == Recovery::Running {
            self.plan_return(index, 1 - e);
        }
        self.wake(index, 1 - e, 5);
        Step::Progress
    }

    fn put_in_order(&mut self, index: u32, e: usize, returning: &mut Returning) -> Step {
        let Some(theirs) = returning.theirs else { return Step::Failed("the record is missing") };
        if self.queue_in_order(index, e, returning, &theirs) {
            Step::Over
        } else {
            Step::Failed("the bytes do not fit the switches")
        }
    }

    fn queue_in_order(&mut self, index: u32, e: usize, returning: &mut Returning, theirs: &Record) -> bool {
        let end = &mut self.streams[index as usize].ends[e];
        let counts = end.receive.counts();
        let at = Progress {
            passed: end.receive.passed(),
            consumed: counts.channel,
            kernel_read: counts.kernel + end.kernel_read,
        };
        let mut channel: Vec<u8> = end.queue.drain(..).collect();
        channel.append(&mut returning.again);
        let (bytes, whole) = in_order(theirs, at, &channel, &returning.before_mark);
        end.queue.extend(bytes);
        whole
    }

    /// The program reads what is there in order and then of a reset.
    fn give_up(&mut self, index: u32, e: usize, returning: &mut Returning) {
        if let Some(place) = self.streams[index as usize].ends[e].at {
            let line = self.peer_line(place);
            let heard = Record { announced: line.announced, positions: line.positions, ..Record::default() };
            let theirs = returning.theirs.unwrap_or(heard);
            self.queue_in_order(index, e, returning, &theirs);
        }
        self.end_returning(index, e, Recovery::Failed);
        let stream = &mut self.streams[index as usize];
        stream.ends[e].finished = true;
        stream.wires[1 - e].end(Ending::Reset);
        self.end_wire(index, e, Ending::Reset);
    }

    fn end_returning(&mut self, index: u32, e: usize, outcome: Recovery) {
        let end = &mut self.streams[index as usize].ends[e];
        end.recovery = outcome;
        end.returning = None;
        end.calls = 0;
        let place = end.at;
        self.note(index, || format!("end {e} is back on the kernel: {outcome:?}"));
        if let Some(place) = place {
            self.own_line(place).flags |= RECOVERED;
            self.changed(place);
        }
        self.wake(index, e, 1);
    }
}

impl Returning {
    /// The other end has said how far it is: what it has not got follows the own record.
    fn take_record(&mut self) -> Step {
        let Some(theirs) = Record::decode(&self.record) else { return Step::Failed("there is no record") };
        let Some(oldest) = self.own.sent.checked_sub(self.retained.len() as u64) else {
            return Step::Failed("more is retained than was sent");
        };
        let possible = (oldest..=self.own.sent).contains(&theirs.received)
            && (self.own.received..=self.granted).contains(&theirs.sent);
        if !possible {
            return Step::Failed("the other end's counts cannot be");
        }
        self.output.extend_from_slice(&self.retained[(theirs.received - oldest) as usize..]);
        self.retained = Vec::new();
        self.theirs = Some(theirs);
        Step::Progress
    }
}
