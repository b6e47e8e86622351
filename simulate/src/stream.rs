//! A connection between two programs: the kernel's bytes both ways, and what each end keeps.

use crate::channel::Place;
use crate::kernel::Wire;
use crate::pattern::Pattern;
use crate::returning::Returning;
use convoy_aggregator::stream::{ReceiveHalf, SendHalf};
use std::collections::VecDeque;

/// How the return to the kernel of an end stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    #[default]
    None,
    Running,
    Done,
    /// It could not: the program reads what is in order and then of a reset.
    Failed,
    /// There was nothing to settle.
    Quiet,
}

/// How an end has stopped reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was read up to the end.
    Whole,
    /// The program was told of a reset or of an early end.
    Visibly,
}

/// One end.
pub struct End {
    pub program: u32,
    pub at: Option<Place>,
    pub send: SendHalf,
    pub receive: ReceiveHalf,
    /// Bytes of the kernel connection sent and read before the stream was on this channel.
    pub kernel_sent: u64,
    pub kernel_read: u64,
    /// No more switches to the channel.
    pub stay: bool,
    /// Frames that still come are dropped.
    pub recalled: bool,
    pub recovery: Recovery,
    pub returning: Option<Box<Returning>>,
    pub window: u64,
    /// Bytes that have arrived on the channel: those not read, and how many in all.
    pub queue: VecDeque<u8>,
    pub arrived: u64,
    /// Of the program's bytes, on whatever path: to send, sent, read.
    pub total: u64,
    pub sent: u64,
    pub read: u64,
    pub calls: u32,
    /// It does not read until then.
    pub asleep_until: u64,
    pub act_at: Option<u64>,
    /// It has ended what it sends.
    pub finished: bool,
    pub ended: Option<Ended>,
    pub closed: bool,
}

impl End {
    fn new(program: u32, total: u64) -> Self {
        Self {
            program,
            at: None,
            send: SendHalf::default(),
            receive: ReceiveHalf::default(),
            kernel_sent: 0,
            kernel_read: 0,
            stay: false,
            recalled: false,
            recovery: Recovery::None,
            returning: None,
            window: 0,
            queue: VecDeque::new(),
            arrived: 0,
            total,
            sent: 0,
            read: 0,
            calls: 0,
            asleep_until: 0,
            act_at: None,
            finished: false,
            ended: None,
            closed: false,
        }
    }
}

/// A connection.
pub struct Stream {
    /// Counted over the whole run.
    pub serial: u64,
    /// Tells apart streams that had the same place in the table.
    pub epoch: u32,
    pub patterns: [Pattern; 2],
    pub ends: [End; 2],
    /// What each end sends through the kernel.
    pub wires: [Wire; 2],
    /// A liar has to do with it: its bytes are not checked.
    pub tainted: bool,
    /// Both ends are on one host.
    pub local: bool,
    /// A place on a channel is being made for it.
    pub joining: bool,
}

impl Stream {
    /// A new connection between two programs that are to send so many bytes each.
    pub fn new(serial: u64, epoch: u32, programs: [u32; 2], totals: [u64; 2], local: bool) -> Self {
        Self {
            serial,
            epoch,
            patterns: [Pattern::new(serial, 0), Pattern::new(serial, 1)],
            ends: [End::new(programs[0], totals[0]), End::new(programs[1], totals[1])],
            wires: [Wire::default(), Wire::default()],
            tainted: false,
            local,
            joining: false,
        }
    }
}
