//! `convoy agent`: one per host. It carries streams of this host's programs to other hosts' agents, over RDMA.
//!
//! - [`setup`]: from the command line to a running engine.
//! - [`engine`]: the thread that turns from rails to programs and back; [`wait`] is how it sleeps.
//! - [`sessions`], [`program`]: programs of this host and their channels.
//! - [`hosts`], [`link`]: other agents, and the links to them over rails; [`message`] is what agents say.
//! - [`broker`]: which connections are offered at both ends; [`users`]: how much each user takes.
//! - [`transmit`], [`receive`]: from programs' rings into batches, and back.
//! - [`status`], [`metrics`], [`serve`]: what the agent tells about itself; [`wire`] is how bytes on the wire are counted.
//! - [`sandbox`]: what the agent gives up when it serves.
//! - [`background`]: an agent that nobody has started by hand; [`notify`]: what its service manager is told.
//! - [`sockets`]: what others connect to; [`take_over`], [`hand_over`]: a new agent takes the place of the running one.
//!
//! Not here: devices (`convoy-fabric`), control connections, keys and policy (`convoy-control`), the layout of a
//! channel (`convoy_runtime::port`), the format of batches (`convoy-aggregator`).

mod background;
mod broker;
mod closer;
mod deliver;
mod engine;
mod hand_over;
mod hosts;
mod joint;
mod large;
mod link;
mod memory;
mod message;
mod metrics;
mod notify;
mod program;
mod receive;
mod registrations;
mod sandbox;
mod serve;
mod sessions;
pub(crate) mod setup;
mod signals;
mod slot;
mod sockets;
pub(crate) mod status;
mod take_over;
mod transmit;
mod users;
mod wait;
mod wire;
mod worth;
