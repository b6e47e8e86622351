//! Liars: programs and agents that write what cannot be, or what is not so, into everything that others read. Streams that a
//! liar has to do with may fail or carry wrong bytes; all others must not notice.

use crate::channel::{Line, SlotState};
use crate::world::World;
use convoy_aggregator::batch::Control;
use convoy_aggregator::record::Record;

/// One batch of a lying agent in so many is changed.
const CHANGES_BATCH: u64 = 40;

impl World {
    /// One of the liars lies.
    pub fn lie(&mut self) {
        let lies = |program: &usize| {
            let known = &self.programs[*program];
            known.liar || self.hosts[known.host as usize].liar
        };
        let liars: Vec<usize> = (0..self.programs.len()).filter(lies).collect();
        if liars.is_empty() {
            return;
        }
        let program = self.rng.pick(&liars);
        let host = self.programs[program].host;
        if self.hosts[host as usize].liar {
            return self.agent_lies(host);
        }
        let current = |(channel, life): &(u32, u32)| self.channels[*channel as usize].life == *life;
        let to_agent = self.programs[program].channel.filter(current).map(|(channel, _)| (channel, 0));
        let key = self.pairs.keys().copied().find(|key| key.0 == program as u32 || key.1 == program as u32);
        let to_pair = key.map(|key| (self.pairs[&key], usize::from(key.0 != program as u32)));
        let is_its_own = |(channel, _): &(u32, usize)| {
            self.channels[*channel as usize].programs.contains(&Some(program as u32))
        };
        // The place of a pair's channel may be another's by now.
        let places: Vec<(u32, usize)> = to_agent.into_iter().chain(to_pair.filter(is_its_own)).collect();
        if !places.is_empty() {
            let (channel, side) = self.rng.pick(&places);
            self.lie_on_channel(channel, side);
        }
    }

    /// Scribbles over what one side of a channel writes.
    fn lie_on_channel(&mut self, channel: u32, side: usize) {
        let known = &mut self.channels[channel as usize];
        if known.lines.is_empty() || known.lost {
            return;
        }
        let slot = self.rng.below(known.lines.len() as u64) as usize;
        let wild = self.rng.any();
        if self.rng.once_in(3)
            && let Some(frame) = known.lanes[side].frames.back_mut()
        {
            self.report.fault("lies in frames");
            match wild % 4 {
                0 => frame.word = self.rng.any(),
                1 => frame.word ^= 1 << (wild >> 8 & 63),
                2 => frame.reference = Some(self.rng.any()),
                _ => frame.bytes.iter_mut().for_each(|byte| *byte ^= wild as u8),
            }
            return;
        }
        self.report.fault("lies in lines");
        scribble(&mut known.lines[slot][side], wild, self.rng.any());
        if known.is_far() && side == 0 {
            known.changes.insert(slot as u32);
            self.plan_turn_for(channel);
        }
    }

    fn agent_lies(&mut self, host: u32) {
        let links = self.hosts[host as usize].linked.clone();
        let wild = self.rng.any();
        if wild.is_multiple_of(4) || links.is_empty() {
            let channels: Vec<u32> = self.hosts[host as usize].channels.iter().copied().collect();
            if !channels.is_empty() {
                let channel = self.rng.pick(&channels);
                self.lie_on_channel(channel, 1);
            }
            return;
        }
        let link = self.rng.pick(&links);
        let side = self.links[link as usize].side_of(host);
        if wild % 4 == 1 {
            self.report.fault("lies written into rings");
            let bytes: Vec<u8> = (0..self.rng.skewed(512)).map(|_| self.rng.any() as u8).collect();
            let ring = u64::from(self.plan.link_bytes);
            let offset = self.rng.below(ring + 64) as usize / 64 * 64;
            let immediate = if self.rng.once_in(8) { self.rng.any() as u32 } else { (offset / 64) as u32 };
            return self.post(link, side, offset, Some(immediate), &bytes);
        }
        let control = self.wild_control();
        let number = self.rng.skewed(4_000) as u32 - 1;
        let token = self.links[link as usize].token;
        if let Some(queue) = self.links[link as usize].queue(side) {
            self.report.fault("lies told");
            queue.controls.push_back((number, control));
            self.mark_busy(Some((link, side, token)));
        }
    }

    fn wild_control(&mut self) -> Control {
        let (wild, small) = (self.rng.any(), self.rng.below(6) as u32);
        match wild % 8 {
            0 => Control::Flags(wild as u32),
            1 => Control::Announce { number: small, position: self.rng.skewed(1 << 20) },
            2 => Control::Announce { number: wild as u32, position: wild },
            3 => Control::Passed(small),
            4 => Control::Limit(if small == 0 { wild } else { self.rng.skewed(1 << 30) }),
            5 => Control::WantsKernel,
            6 => Control::Closed,
            _ => Control::Lost,
        }
    }

    /// A side of a channel is found to lie: the channel ends, and its streams are reset.
    pub fn fail_channel(&mut self, channel: u32) {
        let known = &mut self.channels[channel as usize];
        if std::mem::replace(&mut known.lost, true) {
            return;
        }
        let owners: Vec<(u32, usize)> = known.owners.iter().flatten().flatten().copied().collect();
        owners.into_iter().for_each(|(stream, end)| self.reset(stream, end));
        // To an agent the program has ended.
        self.program_ended(channel);
    }

    /// A lying agent may change a batch before it leaves.
    pub fn lie_in_batch(&mut self, link: u32, side: usize, batch: &mut [u8]) {
        let host = self.links[link as usize].hosts[side];
        if !self.hosts[host as usize].liar || self.calm || !self.rng.once_in(CHANGES_BATCH) {
            return;
        }
        self.report.fault("lies in batches");
        for _ in 0..self.rng.skewed(8) {
            let at = self.rng.below(batch.len() as u64) as usize;
            batch[at] = self.rng.any() as u8;
        }
    }

    /// A liar says that it is somewhere else.
    pub fn lie_in_record(&mut self, own: &mut Record) -> Record {
        self.report.fault("lies in records");
        let mut told = *own;
        let wild = self.rng.skewed(1 << 20);
        match self.rng.below(6) {
            0 => told.announced = wild as u32,
            1 => told.positions[0] = wild,
            2 => told.positions[1] = u64::MAX - wild,
            3 => told.sent = wild,
            4 => told.received = wild,
            _ => told.received = u64::MAX,
        }
        told
    }
}

fn scribble(line: &mut Line, wild: u64, number: u64) {
    match wild % 10 {
        0 => line.announced = number as u32,
        1 => line.announced = line.announced.wrapping_add(number as u32 % 4),
        2 => line.passed = number as u32,
        3 => line.passed = line.passed.wrapping_add(number as u32 % 4),
        4 => line.positions = [number, number >> 7],
        5 => line.positions[number as usize & 1] = number >> 50,
        6 => line.limit = number,
        7 => line.limit = line.limit.wrapping_add(number >> 40),
        8 => line.flags = number as u32,
        _ => {
            line.state = match number % 3 {
                0 => SlotState::Open,
                1 => SlotState::WantsKernel,
                _ => SlotState::Closed,
            }
        }
    }
}
