//! What a user has when something goes wrong: `convoy dump`, `convoy trace`, core files, log lines. Two programs of our own talk
//! to each other and are looked at from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cores;
mod dump;
mod logs;
mod talk;
mod trace;
