//! Authenticated control connections between agents, peer discovery and policy.
//!
//! One agent runs on each host. Agents keep one connection per peer host, over which they agree on
//! everything that is not data: RDMA addresses, offers of TCP connections, heartbeats. This crate carries
//! messages between agents and does not look into them.
//!
//! - [`key`]: the file with the key that all agents of one installation share.
//! - [`secure`]: records on a byte stream, and the Noise handshake by which both ends prove that key.
//! - [`hello`]: what two agents tell each other first, and which protocol and features follow from it.
//! - [`peers`]: the service: listening, dialing, heartbeats, one connection per peer, messages.
//! - [`policy`]: which connections may be accelerated, and how much a user may take.
//! - [`rate`]: a token bucket for limits per second.
//!
//! Not here: what messages mean, RDMA, shared memory, and the sockets of programs.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod hex;
mod lock;
mod threads;

pub mod hello;
pub mod key;
pub mod peers;
pub mod policy;
pub mod rate;
pub mod secure;

pub use hello::{Hello, Versions};
pub use key::Key;
pub use peers::{Config, Event, Events, PeerId, Peers};
pub use policy::Policy;
pub use rate::Rate;
