//! One stream of a channel: both its directions, and who waits for it.

use super::lane::{Lane, Waiting};
use super::memory::Fields;
use super::registry::Bell;
use super::state::{Place, View, ends};
use convoy_aggregator::path::Path;
use convoy_runtime::anchor::{READY, STAYS};
use serde::Serialize;
use std::net::SocketAddr;

/// A stream, seen from one process.
#[derive(Serialize, Default)]
pub(crate) struct Stream {
    pub(crate) slot: u32,
    pub(crate) generation: u8,
    pub(crate) descriptor: Option<i32>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) sending: Option<Sending>,
    pub(crate) receiving: Option<Receiving>,
    /// Processes of this side that hold it.
    pub(crate) holders: u32,
    /// What this side and the other say of their ends: free, open, wants kernel, closed, lost.
    pub(crate) state: &'static str,
    pub(crate) peer_state: &'static str,
    /// The other end's line could be read: the flags of both are known.
    pub(crate) peer_ready: bool,
    pub(crate) ready: bool,
    /// The program has shut its sending side down; the kernel has reported the end; the peer is gone.
    pub(crate) shut: bool,
    pub(crate) over: bool,
    pub(crate) peer_gone: bool,
    /// How a return to the kernel stands, when the way to another host is gone.
    pub(crate) recovery: &'static str,
    /// Bells of this side's threads that wait for its bytes, and of the other's.
    pub(crate) waiters: Vec<Bell>,
    pub(crate) peer_waiters: Vec<Bell>,
    /// An epoll instance watches it.
    pub(crate) watched: bool,
    /// What could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unseen: Option<&'static str>,
}

/// What this end sends. Bytes are those of the channel, without those that went through the kernel.
#[derive(Serialize)]
pub(crate) struct Sending {
    /// kernel or channel: the way of the next byte.
    pub(crate) path: &'static str,
    /// Goes to the kernel for good.
    pub(crate) stays: bool,
    /// Switches of path announced, and followed by the other end.
    pub(crate) switches: u32,
    pub(crate) followed: u32,
    /// Where the last switch lies.
    pub(crate) switched_at: Option<u64>,
    pub(crate) sent: u64,
    /// Up to which byte it may send, and how many that still are.
    pub(crate) limit: u64,
    pub(crate) credit: u64,
    /// Frames and bytes in the lane that the other side has not given back.
    pub(crate) in_lane: Waiting,
    /// Threads inside a kernel call that sends.
    pub(crate) in_kernel: u32,
}

/// What this end receives.
#[derive(Serialize)]
pub(crate) struct Receiving {
    pub(crate) path: &'static str,
    /// Switches that the other end has announced, and those that this one has followed.
    pub(crate) switches: u32,
    pub(crate) followed: u32,
    /// Where the next switch lies that was announced.
    pub(crate) next_switch_at: Option<u64>,
    /// The unread bytes were handed back to the kernel.
    pub(crate) recalled: bool,
    pub(crate) received: u64,
    pub(crate) read: u64,
    /// Received and not read by the program.
    pub(crate) unread: u64,
    /// Read from the kernel connection, all in all.
    pub(crate) kernel_read: u64,
    /// Up to which byte the other end may send, and how many that still are.
    pub(crate) limit: u64,
    pub(crate) credit: u64,
    pub(crate) window: u64,
    /// Frames and bytes in the lane that nobody has taken.
    pub(crate) in_lane: Waiting,
}

/// Reads a stream; what cannot be read is left out, and said.
pub(super) fn read(
    view: &View<'_>,
    place: Place,
    slot: u32,
    socket: u32,
    [out, incoming]: [Option<&Lane>; 2],
    bells: &[Bell],
) -> Stream {
    let mut stream =
        Stream { slot, state: "free", peer_state: "free", recovery: "none", ..Stream::default() };
    if view.fill_socket(&mut stream, socket).is_none() {
        stream.unseen = Some("its socket");
    }
    let Some(table) = view.stream(place, slot) else {
        stream.unseen = Some("what this side keeps of it");
        return stream;
    };
    let [own, peer] = [place.side, place.side ^ 1].map(|side| view.line(place, slot, side));
    if own.is_none() || peer.is_none() {
        stream.unseen = Some("the lines of its slot");
    }
    let lines = Lines { view, own, peer };
    let _ = view.fill_table(&mut stream, &table);
    stream.state = lines.state(lines.own.as_ref(), stream.generation);
    stream.peer_state = lines.state(lines.peer.as_ref(), stream.generation);
    stream.ready = lines.flag(lines.own.as_ref(), READY);
    stream.peer_ready = lines.flag(lines.peer.as_ref(), READY);
    stream.waiters = lines.waiters(lines.own.as_ref(), bells);
    stream.peer_waiters = lines.waiters(lines.peer.as_ref(), bells);
    let key = (slot, stream.generation);
    stream.sending = lines.sending(&table, out.map(|lane| lane.of(key)).unwrap_or_default());
    stream.receiving = lines.receiving(&table, incoming.map(|lane| lane.of(key)).unwrap_or_default());
    stream
}

impl View<'_> {
    fn stream(&self, place: Place, slot: u32) -> Option<Fields> {
        let size = self.found.in_stream.size;
        let start = place.party.checked_add(self.found.in_shared.size)?;
        Fields::read(self.memory, start.checked_add(size.checked_mul(u64::from(slot))?)?, size)
    }

    fn line(&self, place: Place, slot: u32, side: u64) -> Option<Fields> {
        let size = self.found.in_line.size;
        let index = u64::from(slot) * 2 + side;
        let start = place.base.checked_add(self.found.lines_offset)?;
        Fields::read(self.memory, start.checked_add(index.checked_mul(size)?)?, size)
    }

    fn fill_socket(&self, stream: &mut Stream, index: u32) -> Option<()> {
        let (socket, layout) = (self.socket(index)?, self.found.in_socket);
        stream.descriptor = Some(socket.u32(layout.fd)? as i32);
        (stream.local, stream.peer) = ends(&socket, layout.ends);
        stream.shut = socket.flag(layout.shut)?;
        stream.over = socket.flag(layout.over)?;
        stream.peer_gone = socket.flag(layout.peer_gone)?;
        stream.watched = socket.u64(layout.watch)? != 0;
        Some(())
    }

    fn fill_table(&self, stream: &mut Stream, table: &Fields) -> Option<()> {
        let layout = self.found.in_stream;
        stream.generation = table.u8(layout.sending.checked_add(self.found.in_sending.generation)?)?;
        stream.holders = table.u32(layout.holders)?;
        stream.recovery = match table.u32(layout.recovery)? {
            0 => "none",
            1 => "returning to the kernel",
            2 => "returned to the kernel",
            4 => "nothing to return",
            _ => "failed",
        };
        Some(())
    }
}

/// The two lines of a slot.
struct Lines<'a> {
    view: &'a View<'a>,
    own: Option<Fields>,
    peer: Option<Fields>,
}

impl Lines<'_> {
    fn word(&self, line: Option<&Fields>, offset: u64) -> u32 {
        line.and_then(|line| line.u32(offset)).unwrap_or(0)
    }

    fn flag(&self, line: Option<&Fields>, flag: u32) -> bool {
        self.word(line, self.view.found.in_line.flags) & flag != 0
    }

    fn state(&self, line: Option<&Fields>, generation: u8) -> &'static str {
        let word = self.word(line, self.view.found.in_line.state);
        match (word >> 8 == u32::from(generation), word & 0xff) {
            (true, 1) => "open",
            (true, 2) => "wants kernel",
            (true, 3) => "closed",
            (true, 4) => "lost",
            _ => "free",
        }
    }

    fn position(&self, line: Option<&Fields>, number: u32) -> Option<u64> {
        let offset = self.view.found.in_line.position.checked_add(u64::from(number & 1) * 8)?;
        line?.u64(offset)
    }

    fn waiters(&self, line: Option<&Fields>, bells: &[Bell]) -> Vec<Bell> {
        let word = line.and_then(|line| line.u64(self.view.found.in_line.receive_waiters)).unwrap_or(0);
        let numbers = (0..4).map(|place| (word >> (place * 16)) as u16).filter(|number| *number != 0);
        let bell = |number: u16| {
            let known = bells.iter().find(|bell| bell.number == number).copied();
            known.unwrap_or(Bell { number, ..Bell::default() })
        };
        numbers.map(bell).collect()
    }

    fn sending(&self, table: &Fields, in_lane: Waiting) -> Option<Sending> {
        let (stream, sending, line) =
            (self.view.found.in_stream, self.view.found.in_sending, self.view.found.in_line);
        let at = |offset: u64| stream.sending.checked_add(offset);
        let credit = at(sending.credit)?;
        let (sent, limit) = (table.u64(credit)?, table.u64(credit.checked_add(8)?)?);
        // What was granted since this end last looked.
        let limit = limit.max(self.peer.as_ref().and_then(|peer| peer.u64(line.limit)).unwrap_or(0));
        let switches = table.u32(at(sending.path)?)?;
        Some(Sending {
            path: path(switches),
            stays: table.flag(at(sending.stay)?)? || self.flag(self.own.as_ref(), STAYS),
            switches,
            followed: self.word(self.peer.as_ref(), line.passed),
            switched_at: self.position(self.own.as_ref(), switches).filter(|_| switches > 0),
            sent,
            limit,
            credit: limit.saturating_sub(sent),
            in_lane,
            in_kernel: table.u32(stream.kernel_senders)? & 0xffff,
        })
    }

    fn receiving(&self, table: &Fields, in_lane: Waiting) -> Option<Receiving> {
        let (stream, receiving, line) =
            (self.view.found.in_stream, self.view.found.in_receiving, self.view.found.in_line);
        let at = |offset: u64| stream.receiving.checked_add(offset);
        let credit = at(receiving.credit)?;
        let count = |index: u64| table.u64(credit.checked_add(index * 8)?);
        let followed = table.u32(at(receiving.path)?)?;
        let switches = self.word(self.peer.as_ref(), line.announced);
        let next = followed.wrapping_add(1);
        Some(Receiving {
            path: path(followed),
            switches,
            followed,
            next_switch_at: self.position(self.peer.as_ref(), next).filter(|_| switches != followed),
            recalled: table.flag(at(receiving.recalled)?)?,
            received: count(0)?,
            read: count(1)?,
            unread: table.u64(stream.queued)?,
            kernel_read: table.u64(stream.kernel_read)?,
            limit: count(2)?,
            credit: count(2)?.saturating_sub(count(0)?),
            window: count(3)?,
            in_lane,
        })
    }
}

fn path(switches: u32) -> &'static str {
    match Path::after(switches) {
        Path::Kernel => "kernel",
        Path::Channel => "channel",
    }
}
