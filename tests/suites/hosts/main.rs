//! Programs on different hosts with an agent on each: network namespaces on this machine, natively and under Convoy.
//!
//! Needs root, `ip`, and libfabric; a test that cannot run here says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod cases;
mod common;
mod data;
mod faults;
mod field;
mod hostile;
mod networks;
mod partly;
mod programs;
mod random;
mod services;
mod upgrades;
mod users;
