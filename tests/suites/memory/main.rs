//! Memory: very many slow readers beside a fast one, and what happens when there is none left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
