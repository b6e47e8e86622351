//! What goes wrong, chosen by the seed, until the time of calm: rails, links, agents, programs, hosts, readers and liars.

use crate::clock::Event;
use crate::kernel::Ending;
use crate::stream::{Ended, Recovery};
use crate::world::{TICK, World};

/// Longest times that something is away, in microseconds.
const RAIL_AWAY: u64 = 4_000_000;
const AGENT_AWAY: u64 = 3_000_000;
/// Programs of a host stand still for so long.
const STANDSTILL: u64 = 8_000_000;

impl World {
    /// Something goes wrong, and the next thing is planned.
    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let every = self.plan.faults_every;
        let delay = self.rng.between(1, every * 2);
        self.clock.after(delay, Event::Fault);
        let host = self.rng.below(self.hosts.len() as u64) as u32;
        let program = self.rng.below(self.programs.len() as u64) as u32;
        match self.rng.below(32) {
            0..=2 => self.lose_rail(host),
            3..=5 => self.break_link(),
            6..=8 => self.kill_agent(host),
            9..=11 => self.kill_program(program),
            12 => self.kill_host(host),
            13..=15 => self.stand_still(program),
            16..=18 => self.abort(),
            19..=21 => self.take_for_gone(program),
            _ => self.lie(),
        }
    }

    fn lose_rail(&mut self, host: u32) {
        let rail = self.rng.below(u64::from(self.plan.rails)) as u8;
        if !std::mem::replace(&mut self.hosts[host as usize].rails[rail as usize], false) {
            return;
        }
        self.report.fault("rails lost");
        let delay = self.rng.skewed(RAIL_AWAY);
        self.clock.after(delay, Event::RailUp { host, rail });
        for link in self.hosts[host as usize].linked.clone() {
            if self.links[link as usize].rail == rail {
                self.cut(link);
            }
        }
    }

    fn break_link(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let link = self.rng.below(self.links.len() as u64) as u32;
        self.report.fault("links broken");
        self.cut(link);
    }

    /// Nothing lands any more on a link. Its ends hear of it, or have to find out.
    fn cut(&mut self, link: u32) {
        self.links[link as usize].cut();
        let token = self.links[link as usize].token;
        for side in [0, 1] {
            if self.rng.once_in(2) {
                let delay = self.rng.skewed(100_000);
                self.clock.after(delay, Event::Down { link, side, token });
            }
        }
    }

    fn kill_agent(&mut self, host: u32) {
        if !self.hosts[host as usize].agent {
            return;
        }
        self.report.fault("agents killed");
        let known = &mut self.hosts[host as usize];
        known.agent = false;
        known.life += 1;
        known.turn_at = None;
        known.news.clear();
        known.busy.clear();
        known.touched.clear();
        known.unpublished.clear();
        (known.dropped, known.in_round) = (false, false);
        known.ending.clear();
        let (channels, links) = (known.channels.clone(), known.linked.clone());
        for channel in channels {
            self.take_port(channel);
            self.free_channel_if_over(channel);
        }
        for link in links {
            let side = self.links[link as usize].side_of(host);
            self.abandon_link(link, side);
        }
        let delay = self.rng.skewed(AGENT_AWAY);
        self.clock.after(delay, Event::Restart { host });
    }

    /// An agent is there again, and knows nothing.
    pub fn start_agent(&mut self, host: u32) {
        let known = &mut self.hosts[host as usize];
        known.agent = true;
        let life = known.life;
        self.clock.after(TICK, Event::Tick { host, life });
    }

    fn kill_program(&mut self, program: u32) {
        self.report.fault("programs killed");
        let known = &mut self.programs[program as usize];
        known.life += 1;
        let streams = std::mem::take(&mut known.streams);
        let channel = known.channel.take();
        for index in streams {
            self.orphan(index, program);
        }
        for key in
            self.pairs.keys().copied().filter(|key| key.0 == program || key.1 == program).collect::<Vec<_>>()
        {
            if let Some(pair) = self.pairs.remove(&key) {
                self.channels[pair as usize].retired = true;
                self.free_channel_if_over(pair);
            }
        }
        if let Some((channel, life)) = channel
            && self.channels[channel as usize].life == life
        {
            self.channels[channel as usize].retired = true;
            self.program_ended(channel);
            self.free_channel_if_over(channel);
        }
    }

    /// The program at an end of a stream is gone: the kernel closes the connection, what is in rings stays there.
    fn orphan(&mut self, index: u32, program: u32) {
        let stream = &mut self.streams[index as usize];
        let e = usize::from(stream.ends[0].program != program);
        let end = &mut stream.ends[e];
        end.ended = Some(Ended::Visibly);
        (end.recovery, end.returning) = (Recovery::None, None);
        let place = end.at.take();
        self.note(index, || format!("the program at end {e} is killed"));
        self.end_wire(index, e, Ending::Reset);
        self.streams[index as usize].wires[1 - e].end(Ending::Reset);
        if let Some(place) = place
            && self.channels[place.channel as usize].life == place.life
        {
            let channel = &mut self.channels[place.channel as usize];
            channel.owners[place.slot as usize][place.side] = None;
            channel.open -= 1;
        }
        self.close(index, e);
    }

    fn kill_host(&mut self, host: u32) {
        self.report.fault("hosts killed");
        self.kill_agent(host);
        let first = host * self.plan.programs_per_host;
        (first..first + self.plan.programs_per_host).for_each(|program| self.kill_program(program));
    }

    /// A program reads nothing for a while.
    fn stand_still(&mut self, program: u32) {
        self.report.fault("programs standing still");
        let until = self.clock.now + self.rng.skewed(STANDSTILL);
        for index in &self.programs[program as usize].streams {
            let stream = &mut self.streams[*index as usize];
            let e = usize::from(stream.ends[0].program != program);
            stream.ends[e].asleep_until = until;
        }
    }

    /// A program closes a connection in the middle.
    fn abort(&mut self) {
        let program = self.rng.below(self.programs.len() as u64) as usize;
        let Some(index) = self.programs[program].streams.first().copied() else { return };
        let e = usize::from(self.streams[index as usize].ends[0].program != program as u32);
        self.report.fault("connections aborted");
        self.reset(index, e);
    }

    /// Faults end. Liars are stopped; from here on everything has to drain.
    pub fn calm_down(&mut self) {
        self.calm = true;
        for program in 0..self.programs.len() as u32 {
            let host = self.programs[program as usize].host;
            if self.programs[program as usize].liar || self.hosts[host as usize].liar {
                self.kill_program(program);
            }
        }
        for index in 0..self.streams.len() as u32 {
            let tainted = self.streams[index as usize].tainted;
            for e in [0, 1] {
                if self.streams[index as usize].ends[e].closed {
                    continue;
                }
                if tainted {
                    // Liars may have told anything: their streams are given up.
                    self.reset(index, e);
                    self.close(index, e);
                } else {
                    self.wake(index, e, 1);
                }
            }
        }
    }
}
