//! What has come for programs is published when a round of batches is over, and only then said to be delivered: an agent may die
//! between, and a program may have taken for gone an agent that was only slow. After `agent/src/daemon/deliver.rs`.

use crate::clock::Event;
use crate::port::LinkEnd;
use crate::world::World;

/// Longest time from the first batch of a round to its end, in microseconds.
const ROUND: u64 = 200;

impl World {
    /// The records of a batch are with the programs of a host. The round ends soon, maybe with others.
    pub fn note_unpublished(&mut self, end: LinkEnd, sequence: u32) {
        let (link, side, _) = end;
        let host = self.links[link as usize].hosts[side];
        self.hosts[host as usize].unpublished.push((end, sequence));
        self.plan_publishing(host);
    }

    /// A program was given something.
    pub fn note_touched(&mut self, channel: u32) {
        let host = self.channels[channel as usize].host;
        let touched = &mut self.hosts[host as usize].touched;
        if touched.last() != Some(&channel) {
            touched.push(channel);
        }
        self.plan_publishing(host);
    }

    fn plan_publishing(&mut self, host: u32) {
        let known = &mut self.hosts[host as usize];
        if !std::mem::replace(&mut known.in_round, true) {
            let life = known.life;
            let delay = self.rng.skewed(ROUND);
            self.clock.after(delay, Event::Publish { host, life });
        }
    }

    /// A round is over: what it has brought is published, and delivered unless its program may not have seen it.
    pub fn publish(&mut self, host: u32) {
        let mut touched = std::mem::take(&mut self.hosts[host as usize].touched);
        touched.sort_unstable();
        touched.dedup();
        for channel in touched {
            self.publish_to(channel);
            self.drop_if_given_up(channel);
        }
        let known = &mut self.hosts[host as usize];
        known.in_round = false;
        let dropped = std::mem::take(&mut known.dropped);
        let mut batches = std::mem::take(&mut known.unpublished);
        batches.retain(|(end, sequence)| !(dropped && self.withhold(*end, *sequence)));
        for of_link in batches.chunk_by(|one, next| one.0 == next.0) {
            let Some(((link, side, token), _)) = of_link.first().copied() else { continue };
            if let Some(queue) = self.links[link as usize].queue_of(side, token) {
                queue.on_published(of_link.iter().map(|(_, sequence)| *sequence));
            }
            self.mark_busy(Some((link, side, token)));
        }
    }

    /// A program may take what its agent has written for it.
    pub fn publish_to(&mut self, channel: u32) {
        if self.channels[channel as usize].lanes[1].publish() {
            self.plan_sort(channel, 0);
        }
    }

    /// An agent that has published finds that the program had taken it for gone before. True when it has dropped that.
    pub fn drop_if_given_up(&mut self, channel: u32) -> bool {
        let known = &self.channels[channel as usize];
        let late = known.gave_up && known.port.is_some();
        if late {
            self.drop_program(channel);
        }
        late
    }

    /// Bytes of a batch reach no program: whether the batch must wait for the other host to hear of that.
    pub fn withhold(&mut self, (link, side, token): LinkEnd, sequence: u32) -> bool {
        self.links[link as usize].queue_of(side, token).is_some_and(|queue| queue.withhold(sequence))
    }

    /// A program takes its agent for gone, now or when that has just written something for it.
    pub fn take_for_gone(&mut self, program: u32) {
        let Some((channel, life)) = self.programs[program as usize].channel else { return };
        let known = &mut self.channels[channel as usize];
        if known.life != life || known.lost || known.port.is_none() {
            return;
        }
        known.gives_up = true;
        if self.rng.once_in(4) {
            self.give_up_if_due(channel);
        }
    }

    /// A program that is about to take its agent for gone does so. The agent goes on until it hears of that.
    pub fn give_up_if_due(&mut self, channel: u32) {
        let known = &mut self.channels[channel as usize];
        if !std::mem::take(&mut known.gives_up) || known.lost {
            return;
        }
        known.gave_up = true;
        self.report.fault("agents taken for gone");
        let life = known.life;
        self.lose_channel(channel);
        let delay = self.rng.skewed(LATE);
        self.clock.after(delay, Event::GivenUp { channel, life });
    }

    /// An agent hears that a program has taken it for gone.
    pub fn hear_given_up(&mut self, channel: u32, life: u32) {
        let host = self.channels[channel as usize].host;
        self.publish(host);
        if self.channels[channel as usize].life == life {
            self.drop_if_given_up(channel);
        }
    }
}

/// An agent hears at the latest after so long that it was taken for gone, in microseconds.
const LATE: u64 = 2_000_000;
