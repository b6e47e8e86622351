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
//! `unsafe` stands in `shm`, `sys`, `channel`, `iov`, and where kernel calls take the program's pointers; only in modules that are
//! allowed it here.
#![deny(unsafe_code)]
// What only the fuzz targets see links to what they do not.
#![cfg_attr(feature = "fuzz", allow(rustdoc::private_intra_doc_links))]

#[allow(unsafe_code)]
pub mod agent;
#[allow(unsafe_code)]
pub mod anchor;
#[allow(unsafe_code)]
pub mod api;
#[allow(unsafe_code)]
mod background;
#[allow(unsafe_code)]
mod bell;
#[allow(unsafe_code)]
mod channel;
#[allow(unsafe_code)]
mod close;
pub mod config;
mod confine;
mod demote;
#[allow(unsafe_code)]
mod epoll;
mod flusher;
#[allow(unsafe_code)]
mod fork;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[allow(unsafe_code)]
mod inside;
#[allow(unsafe_code)]
mod iov;
mod listing;
#[allow(unsafe_code)]
mod lock;
pub mod log;
mod memory;
mod naps;
#[allow(unsafe_code)]
mod options;
#[allow(unsafe_code)]
pub mod port;
#[allow(unsafe_code)]
mod position;
mod process;
mod promote;
#[allow(unsafe_code)]
mod registry;
#[allow(unsafe_code)]
mod room;
#[allow(unsafe_code)]
mod session;
#[allow(unsafe_code)]
mod shm;
#[allow(unsafe_code)]
mod socket;
#[allow(unsafe_code)]
pub mod stats;
#[allow(unsafe_code)]
mod stream;
mod sync;
#[allow(unsafe_code)]
pub mod sys;
mod table;
#[allow(unsafe_code)]
pub mod trace;
#[allow(unsafe_code)]
mod transfer;
#[allow(unsafe_code)]
mod wait;
