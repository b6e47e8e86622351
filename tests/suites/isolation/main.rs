//! Who can read or write what: the claims of docs/security.md, each tried by real processes of other users and of containers.
//!
//! Needs root, to become others; a test that cannot run here says so and passes. In each test the same attempt is also made by
//! somebody who may, and must succeed: otherwise it would show nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod common;
mod containers;
mod listed;
mod rights;
mod sandbox;
mod secrets;
mod squatters;
mod strangers;
