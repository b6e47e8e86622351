//! How far others may send ahead to the programs of this host. What a program does not take stays with the agent, or in the rings of
//! those who have sent it, and both are bounded by the credit that was passed on: so credit is kept back where much of it is out.

use super::engine::Engine;
use super::program::Program;

/// What a stream may be ahead while the limit is near, and what it always may.
const NARROW: u64 = 32 << 10;
const FLOOR: u64 = 4 << 10;

/// Credit that was passed on, against the limit.
pub(super) struct Memory {
    limit: u64,
    promised: u64,
    /// Streams with credit that was kept back, of which some may be passed on: program and slot.
    short: Vec<(usize, u32)>,
}

impl Memory {
    /// With a limit in bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, promised: 0, short: Vec::new() }
    }

    /// Sums up what is out; once a round.
    pub(super) fn look(&mut self, programs: &[Option<Program>]) {
        self.promised = programs.iter().flatten().map(|program| program.promised).sum();
    }

    /// Bytes that others may send to programs of this host and have not.
    pub(super) fn promised(&self) -> u64 {
        self.promised
    }

    /// How far the other end of a stream may be ahead, in bytes.
    pub(super) fn ahead(&self) -> u64 {
        if self.promised < self.limit / 2 {
            u64::MAX
        } else if self.promised < self.limit - self.limit / 8 {
            NARROW
        } else {
            FLOOR
        }
    }
}

impl Engine {
    /// A program was given bytes of a stream.
    pub(super) fn note_given(&mut self, index: usize, slot: u32) {
        let ahead = self.memory.ahead();
        let program = self.programs.get_mut(index).and_then(Option::as_mut);
        if program.is_some_and(|program| program.is_short(slot, ahead)) {
            self.memory.short.push((index, slot));
        }
    }

    /// Passes on credit that was kept back.
    pub(super) fn tell_kept_back(&mut self) {
        let mut short = std::mem::take(&mut self.memory.short);
        for (index, slot) in short.drain(..) {
            if let Err(lie) = self.tell_news(index, slot) {
                self.drop_liar(index, lie);
            }
        }
        self.memory.short = short;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_passed_on_when_much_is_out() {
        let mut memory = Memory::new(1 << 20);
        let mut ahead = |promised| {
            memory.promised = promised;
            memory.ahead()
        };
        assert_eq!(ahead(0), u64::MAX);
        assert_eq!(ahead(600_000), NARROW);
        assert_eq!(ahead(1 << 20), FLOOR);
    }
}
