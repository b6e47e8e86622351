//! Fuzz targets: whatever Convoy reads and did not write itself, as functions of arbitrary bytes.
//!
//! Each target feeds its input to the real code and asserts what must hold for any input: a value that is read can be
//! written and read again, a refused one leaves the state as it was, no more comes out than went in, memory stays
//! bounded. `./dev fuzz` runs them under libFuzzer and ASan (`main`); as ordinary tests they see the corpus and
//! random changes of it (`mutate`, `tests/short.rs`). Inputs that found something stay in `corpus/TARGET`.
//!
//! Whole processes against each other are not here: see the package convoy-tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod input;
pub mod memory;
pub mod mutate;
mod targets;

pub use targets::TARGETS;

/// Something that is fed with arbitrary bytes.
pub struct Target {
    /// As `./dev fuzz` and the corpus call it.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
}
