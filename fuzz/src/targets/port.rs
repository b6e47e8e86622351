//! The agent's end of a program's channel, with a program that writes anything into the memory they share.

use crate::input::Input;
use crate::memory::{Memory, own};
use convoy_runtime::fuzz::{AGENT_SERIAL, BellPage, GEOMETRY, Identity, Port, Segment};
use convoy_runtime::port::SlotState;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

const PROGRAM: Identity = Identity(7);

pub(super) fn run(bytes: &[u8]) {
    let (segment, file) = Segment::create(GEOMETRY, AGENT_SERIAL, [PROGRAM, Identity(0)]).unwrap();
    let (page, bells) = BellPage::create().unwrap();
    let (file, bells) = (own(file), own(bells));
    let port = Port::attach(file.as_fd(), bells.as_fd(), PROGRAM.0).expect("an honest segment");
    let liar = Liar { memory: Memory::map(file.as_raw_fd()), segment, written: 0 };
    Agent { port, slots: Vec::new(), taken: 0, released: 0 }.run(&mut Input::new(bytes), liar);
    // SAFETY: both mappings are this function's.
    unsafe {
        segment.unmap();
        page.unmap();
    }
}

/// The program: its cursor, its frames, its lines, or any word.
struct Liar {
    memory: Memory,
    segment: Segment,
    /// Its cursor, if it were honest.
    written: u64,
}

impl Liar {
    fn cursor(&mut self, input: &mut Input<'_>) {
        self.written = input.near(self.written);
        // The first word of a direction's lines is its tail, as the fuzzed party reads it.
        let lane = std::ptr::from_ref(self.segment.lane(0)).cast();
        self.memory.write(super::segment::offset(&self.segment, lane), &self.written.to_le_bytes());
    }

    fn frames(&self, input: &mut Input<'_>) {
        let ring = super::segment::offset(&self.segment, self.segment.ring(0));
        let at = u64::from(input.short()) * 8 % u64::from(GEOMETRY.ring_bytes);
        let count = usize::from(input.byte() % 64);
        self.memory.write(ring + at, input.bytes(count));
    }

    fn line(&self, input: &mut Input<'_>) {
        let slot = u32::from(input.byte()) % GEOMETRY.slots;
        let line = std::ptr::from_ref(self.segment.line(slot, 0)).cast();
        let at = super::segment::offset(&self.segment, line) + u64::from(input.byte() % 8) * 8;
        self.scribble(at, input);
        self.segment.changes(0).mark(slot);
    }

    fn anywhere(&self, input: &mut Input<'_>) {
        // Header, lanes, changes and lines; sometimes the rest.
        let most = if input.byte() & 3 == 0 { self.memory.bytes() as u64 } else { 20480 };
        let at = u64::from(input.word()) % most;
        self.scribble(at, input);
    }

    fn scribble(&self, at: u64, input: &mut Input<'_>) {
        let word = self.memory.word(at);
        word.store(input.near(word.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

struct Agent {
    port: Port,
    slots: Vec<(u32, u8)>,
    /// Bytes of the ring that frames were taken from, by the cursors they came with.
    taken: u64,
    released: u64,
}

impl Agent {
    fn run(mut self, input: &mut Input<'_>, mut liar: Liar) {
        while !input.is_empty() {
            let honest = match input.byte() % 10 {
                0 => {
                    liar.cursor(input);
                    Ok(())
                }
                1 | 2 => {
                    liar.frames(input);
                    Ok(())
                }
                3 => {
                    liar.line(input);
                    Ok(())
                }
                4 => {
                    liar.anywhere(input);
                    Ok(())
                }
                5 => self.take(),
                6 => self.put(input),
                7 => {
                    self.lines();
                    Ok(())
                }
                8 => {
                    self.open(input);
                    Ok(())
                }
                _ => {
                    self.released = self.released.max(self.taken.min(self.released + input.near(8) % 4096));
                    self.port.release(self.released);
                    Ok(())
                }
            };
            if honest.is_err() {
                // A lie was found: the agent drops the program.
                return;
            }
        }
    }

    fn take(&mut self) -> Result<(), convoy_runtime::port::Lie> {
        self.port.refresh()?;
        let mut bytes = 0;
        while let Some(frame) = self.port.next_frame()? {
            assert!(frame.slot < self.port.slots() && frame.piece.length > 0);
            assert!(frame.end > self.taken && frame.end - self.released <= u64::from(GEOMETRY.ring_bytes));
            self.taken = frame.end;
            let mut payload = vec![0; frame.piece.length as usize];
            self.port.copy(&frame.piece, 0, &mut payload);
            match frame.piece.block {
                Some(block) => {
                    assert!(block < GEOMETRY.blocks && frame.piece.length <= GEOMETRY.block_bytes);
                    self.port.return_block(block);
                }
                None => bytes += frame.piece.length,
            }
        }
        assert!(bytes <= GEOMETRY.ring_bytes, "more bytes than the ring holds");
        Ok(())
    }

    fn put(&mut self, input: &mut Input<'_>) -> Result<(), convoy_runtime::port::Lie> {
        let bytes = vec![0xab; usize::from(input.short()) % 9000];
        let put = self.port.put(u32::from(input.byte()), input.byte(), &bytes)?;
        assert!(put <= bytes.len());
        self.port.publish();
        Ok(())
    }

    fn lines(&mut self) {
        let most = self.port.slots();
        let mut changed = Vec::new();
        self.port.take_changes(|slot| changed.push(slot));
        for slot in changed {
            assert!(slot < most);
            let _ = self.port.line(slot, 1);
            for bell in self.port.bells(slot) {
                self.port.ring(bell);
            }
        }
    }

    fn open(&mut self, input: &mut Input<'_>) {
        if input.byte() & 1 == 0 {
            self.slots.extend(self.port.open_slot());
        } else if let Some((slot, generation)) = self.slots.pop() {
            self.port.set_state(slot, generation, SlotState::Closed);
            self.port.free_slot(slot, generation);
        }
        let mut known: Vec<u32> = self.slots.iter().map(|(slot, _)| *slot).collect();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), self.slots.len(), "a slot given out twice");
    }
}
