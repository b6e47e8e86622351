//! The process side of Convoy: from a descriptor number to bytes in shared memory.
//!
//! ```text
//!   api            what the preload library asks for, one function per intercepted call
//!   table, socket  descriptor -> connection (candidate, then promoted)
//!   promote        the two ends of a connection meet in the `registry` and open a stream
//!   channel        shared memory between two processes: `send`, `receive`, `queue`
//!   agent          the program's side of its host's agent, for connections to other hosts
//!   stream         send and recv on a connection, wherever its bytes travel at the moment
//!   flusher        publishes held frames in time, where the user lets frames be held
//!   wait, epoll    spinning, sleeping, poll, epoll; `bell` wakes sleepers in other processes
//!   close, fork, demote, options, transfer    the rest of a connection's life
//!   confine        programs that confine themselves
//!   listing        what /proc/self/fd shows
//!   anchor, trace  what can be looked at from outside: state, events
//!   inside         where a signal handler has to wait
//!   session        what a process joins at its first connection
//!   memory, room   how much peers may send ahead; memory that may not be had
//!   shm, sys       memory layouts, locks, raw system calls
//! ```
//! Framing, credit and path switching are in `convoy-aggregator`; C types and errno are in `convoy-preload`.
//! `unsafe` stands in `shm`, `sys`, `channel`, `iov`, and where kernel calls take the program's pointers.

// What only the fuzz targets see links to what they do not.
#![cfg_attr(feature = "fuzz", allow(rustdoc::private_intra_doc_links))]

pub mod agent;
pub mod anchor;
pub mod api;
mod background;
mod bell;
mod channel;
mod close;
pub mod config;
mod confine;
mod demote;
mod epoll;
mod flusher;
mod fork;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inside;
mod iov;
mod listing;
mod lock;
pub mod log;
mod memory;
mod options;
pub mod port;
mod position;
mod process;
mod promote;
mod registry;
mod room;
mod session;
mod shm;
mod socket;
pub mod stats;
mod stream;
mod sync;
pub mod sys;
mod table;
pub mod trace;
mod transfer;
mod wait;
