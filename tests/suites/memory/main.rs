//! Memory: very many slow readers beside a fast one, and what happens when there is none left. The whole number of readers, with
//! figures, is run by `./dev memory`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crowd;
mod exhausted;
