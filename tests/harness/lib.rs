//! Shared parts of the tests package.
//!
//! Two halves. The *harness* (this level) is what the suites use: it finds the preload library, runs a
//! program natively and preloaded, watches over it, reads its counters and compares the transcripts.
//! The *kit* ([`kit`]) is what our own test programs are made of: plain libc calls with results that print,
//! a byte pattern that proves every byte, and a peer that can be told what to do. The suites live in
//! `suites/`, the programs in `programs/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod arena;
pub mod compare;
pub mod counters;
pub mod fuzz;
pub mod hosts;
pub mod json;
pub mod kit;
pub mod library;
pub mod run;
pub mod scratch;
pub mod user;

pub use arena::{Arena, Output, Service};
pub use compare::{ALL_VARIANTS, Check, HOST_VARIANTS, PROCESS_VARIANTS, WARMTHS};
pub use counters::Counters;
pub use run::{Mode, Run, Task};
pub use scratch::Scratch;

/// The path of one of this package's own test programs.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        env!(concat!("CARGO_BIN_EXE_", $name))
    };
}

/// One test for every named case of a program: `cases!("calls", check, [a, b])`, where `check` is a function
/// that turns the program's path and the case's name into a [`Check`].
#[macro_export]
macro_rules! cases {
    ($program:literal, $check:expr, [$($case:ident),* $(,)?]) => {
        $(
            #[test]
            fn $case() {
                let check: $crate::Check = $check($crate::program!($program), stringify!($case));
                check.compare();
            }
        )*

        #[test]
        fn every_case_is_listed() {
            $crate::compare::assert_listed($crate::program!($program), &[$(stringify!($case)),*]);
        }
    };
}
