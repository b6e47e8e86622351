//! One direction of a kernel TCP connection: bytes in order, with a delay, a bounded buffer, an end, and the one byte of urgent
//! data by which an end marks that it returns from the channel.

use std::collections::VecDeque;

/// The byte of urgent data.
pub const MARK: u8 = 0xc7;

/// See the module.
#[derive(Default)]
pub struct Wire {
    /// Sent and not read.
    bytes: VecDeque<u8>,
    /// How many of them have arrived.
    arrived: usize,
    /// Of the connection's life.
    sent: u64,
    read: u64,
    /// Where the mark lies that was not read yet.
    mark: Option<u64>,
    /// The sender has ended it: in good order, or not.
    end: Option<Ending>,
    /// The reader knows.
    end_arrived: bool,
    /// When the last bytes arrive, so that later ones do not overtake them.
    pub last_arrival: u64,
}

/// How a direction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By shutdown(2), after the last byte.
    Orderly,
    /// Its program or its host is gone, or the stream could not go on.
    Reset,
}

impl Wire {
    /// Bytes that it still takes, with a buffer of that size.
    pub fn room(&self, buffer: usize) -> usize {
        if self.end.is_some() { 0 } else { buffer.saturating_sub(self.bytes.len()) }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.sent += bytes.len() as u64;
    }

    /// Sends the mark; false when nothing can be sent any more.
    pub fn send_mark(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        self.mark = Some(self.sent);
        self.send(&[MARK]);
        true
    }

    /// Bytes ever sent and ever read, with marks and records.
    pub const fn totals(&self) -> (u64, u64) {
        (self.sent, self.read)
    }

    /// Bytes sent and not read.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes have arrived; none: the end.
    pub fn arrive(&mut self, bytes: usize) {
        if bytes == 0 {
            self.end_arrived = true;
            self.arrived = self.bytes.len();
        }
        self.arrived = (self.arrived + bytes).min(self.bytes.len());
    }

    /// Bytes that can be read now, up to the mark.
    pub fn readable(&self) -> usize {
        let before_mark = self.mark.map_or(usize::MAX, |mark| (mark - self.read) as usize);
        self.arrived.min(before_mark)
    }

    /// Whether the mark has arrived, wherever it is.
    pub fn is_marked(&self) -> bool {
        self.mark.is_some_and(|mark| (mark - self.read) < self.arrived as u64)
    }

    /// Reads the mark if it is next.
    pub fn take_mark(&mut self) -> bool {
        if self.mark != Some(self.read) || self.arrived == 0 {
            return false;
        }
        self.mark = None;
        !self.read(1).is_empty()
    }

    /// Reads up to so many bytes, not beyond the mark.
    pub fn read(&mut self, most: usize) -> Vec<u8> {
        let part = most.min(self.readable());
        self.arrived -= part;
        self.read += part as u64;
        self.bytes.drain(..part).collect()
    }

    /// Ends the direction. A reset takes the place of an end in good order.
    pub fn end(&mut self, how: Ending) {
        if self.end != Some(Ending::Reset) {
            self.end = Some(how);
        }
    }

    /// Whether the sender has ended it.
    pub const fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// How it has ended, once the reader has read everything.
    pub fn ending(&self) -> Option<Ending> {
        self.end.filter(|_| self.end_arrived && self.bytes.is_empty())
    }
}
