//! Models of everything that works without a common lock, run by loom in every order the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p convoy-runtime --release --test loom`.
//!
//! The lane's cursors, the waiters and the words of a bell are the library's own files, compiled here against
//! loom's atomics. What is written down again in a model (block return words, announcements) names its original.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../src/shm/bell_word.rs"]
mod bell_word;
#[allow(dead_code)]
#[path = "../src/shm/ring.rs"]
mod ring;
#[allow(dead_code)]
#[path = "../src/shm/waiters.rs"]
mod waiters;

#[path = "loom/announcement.rs"]
mod announcement;
#[path = "loom/bell.rs"]
mod bell;
#[path = "loom/blocks.rs"]
mod blocks;
#[path = "loom/lane.rs"]
mod lane;

/// Runs a model in all orders with at most `preemptions` switches away from a thread that could go on.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
