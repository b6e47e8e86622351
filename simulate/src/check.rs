//! What has to be true, all the time and at the end.
//!
//! - Every byte is read once and in order, by its value, or the stream ends visibly (`receiving`).
//! - Credit is conserved: what was granted is used or free, and never more than the limit.
//! - Memory is bounded: of a stream's end, a channel, a link's end.
//! - When faults have ended everything drains within a bound, and nothing is left behind.
//! - A liar harms no stream of others, and no truth is taken for a lie.

use crate::channel::Payload;
use crate::link::Side;
use crate::port::Slot;
use crate::report::Failure;
use crate::stream::Recovery;
use crate::world::World;
use convoy_aggregator::path::Path;
use convoy_aggregator::queue::Queue;
use std::fmt::Write;

/// How often a window doubles, at most.
const MOST_WINDOWS: u64 = 8;
/// Where no write is lost an answer is there in this time.
const ANSWERED: u64 = 1_000_000;
/// After the last stream has ended, news still travel for so long.
const SETTLING: u64 = 25_000_000;

impl World {
    /// Something about a stream is not as it has to be; of a liar's stream nothing has to.
    pub fn broken(&mut self, index: u32, invariant: &'static str, details: String) {
        let stream = &self.streams[index as usize];
        if !stream.tainted {
            let serial = stream.serial;
            self.fail(invariant, details, Some(serial));
        }
    }

    fn fail(&mut self, invariant: &'static str, details: String, stream: Option<u64>) {
        let at_us = self.clock.now;
        self.failure.get_or_insert(Failure { at_us, invariant, details, stream });
    }

    /// The other end of a stream is taken for a liar.
    pub fn lied(&mut self, index: u32, what: &'static str) {
        self.report.lies_seen += 1;
        self.broken(index, "no truth is taken for a lie", what.into());
    }

    /// One side of a channel is taken for a liar.
    pub fn channel_lied(&mut self, channel: u32, what: &'static str) {
        self.report.lies_seen += 1;
        if !self.channel_has_liar(channel) {
            self.fail("no truth is taken for a lie", format!("channel {channel}: {what}"), None);
        }
    }

    /// The other end of a link is taken for a liar.
    pub fn link_lied(&mut self, link: u32, what: &str) {
        self.report.lies_seen += 1;
        if !self.link_has_liar(link) {
            self.fail("no truth is taken for a lie", format!("link {link}: {what}"), None);
        }
    }

    /// Another host has said of a stream what cannot be.
    pub fn stream_lied(&mut self, channel: u32, slot: u32, what: &str) {
        self.report.lies_seen += 1;
        if let Some((index, _)) = self.channels[channel as usize].owners[slot as usize][0] {
            self.broken(index, "no truth is taken for a lie", what.into());
        }
    }

    /// Something about a link is not as it has to be.
    pub fn broken_link(&mut self, link: u32, invariant: &'static str, details: String) {
        if !self.link_has_liar(link) {
            self.fail(invariant, format!("link {link}: {details}"), None);
        }
    }

    fn channel_has_liar(&self, channel: u32) -> bool {
        let known = &self.channels[channel as usize];
        let lies = |program: &u32| self.programs[*program as usize].liar;
        self.hosts[known.host as usize].liar || known.programs.iter().flatten().any(lies)
    }

    fn link_has_liar(&self, link: u32) -> bool {
        self.links[link as usize].hosts.iter().any(|host| self.hosts[*host as usize].liar)
    }

    /// An end's books: what came is read or queued, within what was granted; what was sent is within what was granted.
    pub fn check_end(&mut self, index: u32, e: usize) {
        let stream = &self.streams[index as usize];
        let end = &stream.ends[e];
        let (Some(place), Recovery::None, false) = (end.at, end.recovery, stream.tainted) else { return };
        let channel = &self.channels[place.channel as usize];
        if channel.life != place.life {
            return;
        }
        let limit = channel.lines[place.slot as usize][place.side].limit;
        let read = end.receive.counts().channel;
        let queued = end.queue.len() as u64;
        let most = self.plan.window * MOST_WINDOWS;
        let sent = end.send.counts().channel;
        let free = if end.send.path() == Path::Channel { end.send.allowance() } else { 0 };
        let (credit, bound) = ("credit is conserved", "memory of a stream is bounded");
        if end.arrived != read + queued {
            self.broken(
                index,
                credit,
                format!("end {e}: {} arrived, {read} read, {queued} queued", end.arrived),
            );
        } else if end.arrived > limit || limit > read + most {
            self.broken(index, credit, format!("end {e}: {} of {limit} arrived, {read} read", end.arrived));
        } else if limit + 1 < read + end.window / 2 {
            // A receiver grants as soon as half a window is free.
            let window = end.window;
            self.broken(
                index,
                credit,
                format!("end {e}: credit is lost: {limit} granted, {read} read, window {window}"),
            );
        } else if queued > most {
            self.broken(index, bound, format!("end {e}: {queued} bytes queued, window {most}"));
        } else if let Some(other) = stream.ends[1 - e].at
            && stream.ends[1 - e].recovery == Recovery::None
            && self.channels[other.channel as usize].life == other.life
        {
            let peer = &stream.ends[1 - e];
            let granted = self.channels[other.channel as usize].lines[other.slot as usize][other.side].limit;
            if sent + free > granted || peer.arrived > sent {
                let what =
                    format!("end {e}: {sent} sent, {free} free, {granted} granted, {} arrived", peer.arrived);
                self.broken(index, credit, what);
            }
        }
        self.report.most.end = self.report.most.end.max(queued);
    }

    /// Looks at one link, one channel and now and then at everything: whether memory is within its bounds.
    pub fn check_bounds(&mut self) {
        if !self.links.is_empty() {
            let link = self.rng_for_checks(self.links.len());
            self.check_link(link as u32);
        }
        if !self.channels.is_empty() {
            let channel = self.rng_for_checks(self.channels.len());
            self.check_channel(channel as u32);
        }
    }

    /// Not from the generator: a check is no part of the history.
    fn rng_for_checks(&self, below: usize) -> usize {
        (crate::rng::mix(self.report.events) % below as u64) as usize
    }

    fn check_link(&mut self, index: u32) {
        let plan = &self.plan;
        let (depth, ring) = (plan.depth, u64::from(plan.link_bytes));
        for side in [0, 1] {
            let Some(known) = self.links[index as usize].sides[side].as_ref() else { continue };
            let in_flight = known.queue.send.in_flight();
            let undelivered = known.queue.undelivered();
            let held = |side: &Side| side.queue.receive.held();
            let there = self.links[index as usize].sides[1 - side].as_deref().map(held);
            let bytes = ring + known.places.len() as u64 + undelivered as u64 * 32;
            self.report.most.link = self.report.most.link.max(bytes);
            self.report.most.undelivered = self.report.most.undelivered.max(undelivered as u64);
            // What is neither on its way nor waits for a program has been answered, and the answer is on its way.
            let intact = self.links[index as usize].is_intact();
            let kept_for_nothing = intact && there.is_some_and(|held| undelivered > held + in_flight);
            if self.lasts(index, side, kept_for_nothing) {
                let what = format!(
                    "{undelivered} batches undelivered, {in_flight} on their way, {there:?} wait for programs"
                );
                self.broken_link(index, "memory of a link is bounded", what);
            }
            if in_flight > depth {
                self.broken_link(
                    index,
                    "memory of a link is bounded",
                    format!("{in_flight} batches on their way"),
                );
            }
        }
    }

    /// Whether something about an end of a link has been so at each look for too long.
    fn lasts(&mut self, index: u32, side: usize, now_so: bool) -> bool {
        let now = self.clock.now;
        let Some(known) = self.links[index as usize].sides[side].as_mut() else { return false };
        known.kept_since = if now_so { known.kept_since.or(Some(now)) } else { None };
        known.kept_since.is_some_and(|since| now > since + ANSWERED)
    }

    fn check_channel(&mut self, index: u32) {
        let known = &self.channels[index as usize];
        let used: Vec<usize> = known.lanes.iter().map(|lane| lane.used()).collect();
        let held = known.port.as_ref().map_or(0, |port| port.held_bytes());
        let granted = known.lines.len() as u64 * self.plan.window * MOST_WINDOWS;
        let inside = used.iter().zip(&known.lanes).all(|(used, lane)| *used <= lane.capacity);
        let bytes = (used[0] + used[1] + held) as u64;
        self.report.most.channel = self.report.most.channel.max(bytes);
        let within = inside && held as u64 <= granted;
        if !within && !self.channel_has_liar(index) {
            self.fail(
                "memory of a channel is bounded",
                format!("channel {index}: {used:?} in rings, {held} held of {granted} granted"),
                None,
            );
        }
    }

    /// Whether news have settled after the last stream has ended.
    pub fn is_quiet(&mut self) -> bool {
        let since = *self.drained_at.get_or_insert(self.clock.now);
        self.clock.now > since + SETTLING
    }

    /// It takes too long.
    pub fn fail_stalled(&mut self) {
        let open = |index: &usize| self.streams[*index].ends.iter().any(|end| !end.closed);
        let honest = |index: &usize| !self.streams[*index].tainted;
        let Some(index) = (0..self.streams.len()).filter(open).max_by_key(honest) else { return };
        let stream = &self.streams[index];
        let state = |e: usize| {
            let end = &stream.ends[e];
            let lines = end.at.map(|at| {
                let known = &self.channels[at.channel as usize];
                (at.slot, at.generation, known.lost, known.lines[at.slot as usize])
            });
            format!(
                "\n  end {e}: {}/{} sent, {} read, {} queued, {:?}, finished {}, ended {:?}, closed {}, {} in the kernel\n    {lines:?}",
                end.sent,
                end.total,
                end.read,
                end.queue.len(),
                end.recovery,
                end.finished,
                end.ended,
                end.closed,
                stream.wires[e].len(),
            )
        };
        let details = state(0) + &state(1) + &self.state_of_link(index);
        let serial = stream.serial;
        self.fail("everything drains when faults have ended", details, Some(serial));
    }

    /// The link of a stream, for people.
    fn state_of_link(&self, index: usize) -> String {
        let slot = |e: usize| {
            let at = self.streams[index].ends[e].at?;
            self.channels[at.channel as usize].port.as_ref()?.slots.get(at.slot as usize)?.as_ref()
        };
        let link = |e: usize| slot(e)?.link;
        let mut text = String::new();
        for (link, side, _) in [0, 1].into_iter().filter_map(link) {
            let known = &self.links[link as usize];
            let Some(side_known) = &known.sides[side] else { continue };
            let queue = &side_known.queue;
            let _ = write!(
                text,
                "\n  link {link}, side {side}: {:?} pending, {} news, {} in flight, {} undelivered, owes {:?}, {} untold, room {}, {} writing",
                queue.pending(),
                queue.controls.len(),
                queue.send.in_flight(),
                queue.undelivered(),
                queue.owes,
                queue.receive.untold(),
                queue.send.has_room(self.plan.batch_bytes),
                side_known.writing,
            );
        }
        text
    }

    /// Nothing is left behind when all streams have ended.
    pub fn check_drained(&mut self) {
        let left = "nothing is left behind";
        for index in 0..self.channels.len() as u32 {
            let known = &self.channels[index as usize];
            let Some(port) = known.port.as_ref().filter(|_| !known.lost) else { continue };
            let frames = [0, 1].map(|side| known.lanes[side].frames.len());
            // An agent that lies may keep back that a stream has ended.
            let honest = |slot: &&Slot| !slot.link.is_some_and(|(link, ..)| self.link_has_liar(link));
            let (slots, held) = (port.slots.iter().flatten().filter(honest).count(), port.held_bytes());
            if frames[0] + frames[1] + slots + held > 0 && !self.channel_has_liar(index) {
                let what = format!("channel {index}: {frames:?} frames, {slots} slots, {held} bytes held");
                self.fail(left, what, None);
            }
        }
        for index in 0..self.links.len() as u32 {
            let known = &self.links[index as usize];
            let [Some(one), Some(two)] = &known.sides else { continue };
            let left_of = |queue: &Queue<Payload>| (queue.pending(), queue.streams().count());
            let found = [left_of(&one.queue), left_of(&two.queue)];
            if found != [((0, 0), 0); 2] && !self.link_has_liar(index) {
                self.fail(left, format!("link {index}: {found:?} bytes and frames, streams"), None);
            }
        }
    }
}
