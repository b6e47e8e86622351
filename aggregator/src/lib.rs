//! The core of Convoy: what two ends of a channel agree on, as pure state machines.
//!
//! Nothing in this crate does I/O, reads a clock, starts a thread or contains `unsafe`, and it builds
//! without `std` to keep it so. The caller moves the bytes, holds the locks and passes the time in.
//!
//! ```text
//!   program's bytes                                              program's bytes
//!         |                                                             ^
//!   stream::SendHalf          announcements, positions  ->    stream::ReceiveHalf
//!    path::SendPath           <-  passed switches, limits      path::ReceivePath
//!    credit::SendCredit                                        credit::ReceiveCredit
//!         |                                                             ^
//!   gather (when a batch leaves)                         batch (taken apart)
//!         |                                                             |
//!         +------ wire (frames on one host), batch (between hosts) ----+
//! ```
//!
//! - [`wire`]: the header word of a frame, the reference to a pool block, and how much room a frame takes.
//! - [`batch`]: what one write between hosts carries; [`link`]: the ring of batches, as each end keeps it.
//! - [`queue`]: what one end of a link has to send, and when it answers; [`relay`]: a stream as an agent passes it on.
//! - [`unsettled`]: what is kept of batches until they are delivered.
//! - [`gather`]: when a batch leaves: at once on an idle link, together on a busy one.
//! - [`credit`]: how many bytes a stream may have outstanding on the channel.
//! - [`path`]: which path, kernel or channel, a direction is on, and where it changes over.
//! - [`record`]: what the ends tell each other when the way to another host is gone, and how bytes are put in order then.
//! - [`overhead`]: what a batch costs on the wire, for the counters.
//! - [`stream`]: one direction's credit and path with its byte counts, the whole protocol in one object.
//!
//! **Two kinds of state.** The types of [`credit`], [`path`] and [`stream`] are plain `repr(C)` integers:
//! the runtime places them in memory shared by every process that holds the socket, under its locks. Any
//! bit pattern is a value of theirs, and arithmetic on them saturates or wraps, so that memory which a
//! faulty peer scribbled over leads to an error or to wrong bytes on that peer's own stream, never to a
//! panic. [`gather`] belongs to one process.
//!
//! **Nothing from the other end is trusted.** Header words, limits, announcements and positions are
//! checked where they enter, and a refused value leaves the state as it was. The caller ends the channel
//! on an error that names a lie.
//!
//! Sequence numbers do not travel: a channel keeps order, the kernel keeps order, and the only places
//! where one follows the other are the announced positions.

#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;

pub mod batch;
pub mod credit;
pub mod gather;
pub mod link;
pub mod overhead;
pub mod path;
pub mod queue;
pub mod record;
pub mod relay;
pub mod stream;
pub mod unsettled;
pub mod wire;
