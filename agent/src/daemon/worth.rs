//! Whether the fabric is worth it for the streams of a link: where the kernel carries the fabric itself, only messages that
//! are gathered with others gain; a lone message, and a large one, is faster by TCP. Pure; `Engine::judge` applies it.

use super::engine::Engine;
use super::link::LinkState;
use convoy_runtime::port::Sent;
use std::time::Duration;

/// Between two looks while there is traffic.
pub(super) const PERIOD: Duration = Duration::from_millis(50);
/// Looks in a second.
const PER_SECOND: u64 = 20;
/// How long a batch is about on its way: what is sent meanwhile can be gathered. In seconds, inverted.
const FLIGHTS_PER_SECOND: u64 = 5_000;
/// Messages to be expected in a batch from which on gathering begins, and, in tenths, below which it ends.
const ENTER: u64 = 4;
const LEAVE_TENTHS: u64 = 15;
/// Looks with less in a row after which it ends.
const PATIENCE: u32 = 4;
/// Looks after the beginning that are not counted, and that are.
const SETTLING: u32 = 2;
const TRIAL: u32 = 4;
/// Looks until the next attempt after one that has not paid; doubled each time up to the longest.
const PAUSES: std::ops::RangeInclusive<u32> = 20..=640;

/// What is known of a link's outgoing direction.
#[derive(Debug)]
pub(super) struct Worth {
    /// Small messages travel by the fabric.
    gathers: bool,
    /// Small messages at the last look on the kernel, and those since the trial began.
    before: u64,
    trial: u64,
    /// Looks since gathering began.
    looks: u32,
    low: u32,
    pause: u32,
    wait: u32,
}

impl Default for Worth {
    fn default() -> Self {
        Self { gathers: false, before: 0, trial: 0, looks: 0, low: 0, pause: *PAUSES.start(), wait: 0 }
    }
}

/// What the small messages of a link's streams come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    streams: u64,
    lone: u64,
    streamed: u64,
}

impl Traffic {
    /// Adds what one stream has sent since the last look; whether its messages are small.
    pub(super) fn add(&mut self, sent: Sent, small: u32) -> bool {
        let messages = u64::from(sent.lone) + u64::from(sent.streamed);
        if sent.bytes > messages * u64::from(small) {
            return false;
        }
        self.streams += u64::from(messages > 0);
        self.lone += u64::from(sent.lone);
        self.streamed += u64::from(sent.streamed);
        true
    }

    /// As much of it as fell into one period of the time `since` the last look.
    fn in_one_period(self, since: Duration) -> Self {
        let periods = (since.as_micros() / PERIOD.as_micros()).max(1) as u64;
        Self { lone: self.lone / periods, streamed: self.streamed / periods, ..self }
    }

    fn messages(self) -> u64 {
        self.lone + self.streamed
    }

    /// Messages to be expected in a batch, in tenths. A stream that waits for answers adds one at most.
    fn per_batch_tenths(self) -> u64 {
        let in_flight = |messages: u64| messages * PER_SECOND * 10 / FLIGHTS_PER_SECOND;
        in_flight(self.lone).min(self.streams * 10) + in_flight(self.streamed)
    }
}

impl Worth {
    pub(super) fn gathers(&self) -> bool {
        self.gathers
    }

    /// Takes one look; whether small messages travel by the fabric from now on.
    pub(super) fn look(&mut self, traffic: Traffic) -> bool {
        if self.gathers {
            self.look_at_gathering(traffic)
        } else {
            self.look_at_kernel(traffic)
        }
        self.gathers
    }

    fn look_at_kernel(&mut self, traffic: Traffic) {
        self.before = traffic.messages();
        self.wait = self.wait.saturating_sub(1);
        if self.wait == 0 && traffic.per_batch_tenths() >= ENTER * 10 {
            (self.gathers, self.looks, self.low, self.trial) = (true, 0, 0, 0);
        }
    }

    fn look_at_gathering(&mut self, traffic: Traffic) {
        self.looks = self.looks.saturating_add(1);
        let low = traffic.per_batch_tenths() < LEAVE_TENTHS;
        self.low = if low { self.low + 1 } else { 0 };
        if self.low >= PATIENCE {
            self.gathers = false;
            return;
        }
        if self.looks > SETTLING && self.looks <= SETTLING + TRIAL {
            self.trial += traffic.messages();
        }
        if self.looks == SETTLING + TRIAL {
            // A tenth less is noise.
            if self.trial * 10 < self.before * u64::from(TRIAL) * 9 {
                self.gathers = false;
                self.wait = self.pause;
                self.pause = (self.pause * 2).min(*PAUSES.end());
            } else {
                self.pause = *PAUSES.start();
            }
        }
    }
}

impl Engine {
    /// Looks at what programs send, and decides which streams travel by the fabric. True when anything was sent.
    pub(super) fn judge(&mut self) -> bool {
        let since = self.now.saturating_duration_since(core::mem::replace(&mut self.looked, self.now));
        let mut any = false;
        for index in 0..self.links.len() {
            let Some(link) = self.links[index].as_mut().filter(|link| link.state == LinkState::Up) else {
                continue;
            };
            if self.rails[link.rail].worth_always {
                continue;
            }
            let mut traffic = Traffic::default();
            let mut large = Vec::new();
            for stream in link.queue.streams() {
                let Some(program) = self.programs.get_mut(stream.program).and_then(Option::as_mut) else {
                    continue;
                };
                if !traffic.add(program.look_at_load(stream.slot), self.small) {
                    large.push((stream.program, stream.slot));
                }
            }
            large.sort_unstable();
            any |= traffic.messages() > 0 || !large.is_empty();
            let gathers = link.worth.look(traffic.in_one_period(since));
            for stream in link.queue.streams() {
                let Some(program) = self.programs.get_mut(stream.program).and_then(Option::as_mut) else {
                    continue;
                };
                let is_large = large.binary_search(&(stream.program, stream.slot)).is_ok();
                program.set_worth(stream.slot, gathers && !is_large);
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(streams: u32, lone: u32, streamed: u32) -> Traffic {
        let mut traffic = Traffic::default();
        for _ in 0..streams {
            let sent = Sent { lone: lone / streams, streamed: streamed / streams, bytes: 0 };
            assert!(traffic.add(sent, 4096));
        }
        traffic
    }

    #[test]
    fn lone_messages_stay_with_tcp_and_many_streams_do_not() {
        let mut worth = Worth::default();
        assert!(!worth.look(traffic(1, 9000, 0)), "a single ping-pong, however fast");
        assert!(!worth.look(traffic(64, 640, 0)), "many streams that send seldom");
        assert!(worth.look(traffic(64, 6400, 0)), "64 streams that wait for answers");
        assert!(Worth::default().look(traffic(1, 0, 20_000)), "one stream that sends without waiting");
    }

    #[test]
    fn large_messages_are_not_counted() {
        let mut traffic = Traffic::default();
        assert!(!traffic.add(Sent { lone: 10, streamed: 0, bytes: 100 << 10 }, 4096));
        assert!(traffic.add(Sent { lone: 10, streamed: 0, bytes: 40 << 10 }, 4096));
        assert_eq!(traffic.messages(), 10);
        assert!(traffic.add(Sent::default(), 4096), "a silent stream is not large");
    }

    #[test]
    fn gathering_ends_when_the_load_does() {
        let mut worth = Worth::default();
        assert!(worth.look(traffic(64, 6400, 0)));
        for _ in 0..20 {
            assert!(worth.look(traffic(64, 12_800, 0)));
        }
        for _ in 1..PATIENCE {
            assert!(worth.look(traffic(1, 100, 0)));
        }
        assert!(!worth.look(traffic(1, 100, 0)));
        assert!(worth.look(traffic(64, 6400, 0)), "and begins again");
    }

    #[test]
    fn what_does_not_pay_is_tried_less_and_less_often() {
        let mut worth = Worth::default();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let mut looks = 0;
            while !worth.look(traffic(64, 12_800, 0)) {
                looks += 1;
            }
            pauses.push(looks);
            for _ in 0..SETTLING + TRIAL {
                worth.look(traffic(64, 6400, 0));
            }
            assert!(!worth.gathers());
        }
        assert_eq!(pauses, [0, 19, 39, 79]);
    }
}
