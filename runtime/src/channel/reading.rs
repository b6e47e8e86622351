//! From which path a stream is read: switches that the sender has announced are passed when their position is reached (see
//! `aggregator::path` for the rules).

use super::{Channel, Trouble};
use crate::position;
use crate::shm::party::Receiving;
use convoy_aggregator::path::Path;
use core::sync::atomic::Ordering;

impl Channel {
    /// The path the stream is read from and how far; passes switches whose position is reached.
    #[inline]
    pub(super) fn path_limit(
        &self,
        slot: u32,
        fd: i32,
        stream: &mut Receiving,
    ) -> Result<(Path, u64), Trouble> {
        loop {
            let line = self.peer_line(slot);
            let announced = line.announced.load(Ordering::Acquire);
            let number = match stream.path.pending(announced) {
                // What was recalled is in the kernel, and the sender's switch comes with its next bytes.
                Ok(None) if stream.recalled && !self.leads_to_agent() => return Ok((Path::Kernel, u64::MAX)),
                Ok(None) => {
                    if !self.leads_to_agent() {
                        self.party.stream(slot).note_steady(stream.path.passed());
                    }
                    return Ok((stream.path.path(), u64::MAX));
                }
                Ok(Some(number)) => number,
                Err(_) => return Err(self.fail("impossible path switch")),
            };
            let position = line.position[number as usize & 1].load(Ordering::Relaxed);
            let path = stream.path.path();
            let remaining = self.remaining(slot, path, position, fd, stream)?;
            if remaining > 0 {
                return Ok((path, remaining));
            }
            if stream.path.pass(announced).is_err() {
                return Err(self.fail("impossible path switch"));
            }
            self.own_line(slot).passed.store(stream.path.passed(), Ordering::Release);
            self.changed(slot);
            if self.is_traced() {
                self.trace_switch(false, slot, stream.generation, number, position);
            }
        }
    }

    /// Bytes to read on the old path before a switch at `position`.
    #[cold]
    fn remaining(
        &self,
        slot: u32,
        path: Path,
        position: u64,
        fd: i32,
        stream: &Receiving,
    ) -> Result<u64, Trouble> {
        match path {
            Path::Channel => Ok(position.saturating_sub(stream.credit.consumed())),
            Path::Kernel => {
                let read = self.party.stream(slot).kernel_read.load(Ordering::Relaxed);
                if self.leads_to_agent() {
                    // The kernel leaves out what lies behind an urgent byte, as the mark of a return is one.
                    return Ok(position.saturating_sub(read));
                }
                position::before(fd, position, read).ok_or(Trouble::Lost)
            }
        }
    }

    /// Books bytes that were read from the kernel connection.
    pub fn count_kernel_read(&self, slot: u32, bytes: u64) {
        self.party.stream(slot).kernel_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the peer has announced a switch this side has not passed.
    #[inline]
    pub fn switch_pending(&self, slot: u32) -> bool {
        let passed = self.own_line(slot).passed.load(Ordering::Relaxed);
        self.peer_line(slot).announced.load(Ordering::Acquire) != passed
    }

    /// Which path the stream is read from, after passing what can be passed.
    #[inline]
    pub fn receive_path(&self, slot: u32, generation: u8, fd: i32) -> Result<Path, Trouble> {
        let announced = self.peer_line(slot).announced.load(Ordering::Acquire);
        if self.party.stream(slot).is_steady(announced) {
            return Ok(Path::after(announced));
        }
        let guard = self.lock_receiving()?;
        let stream = guard.open_stream(slot, generation)?;
        self.path_beneath(slot, fd, stream).map(|(path, _)| path)
    }
}
