//! The targets under libFuzzer: `CONVOY_FUZZ_TARGET=NAME convoy-fuzz CORPUS.. -max_total_time=60`, as `./dev fuzz` does.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use convoy_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn target() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("CONVOY_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            panic!("CONVOY_FUZZ_TARGET={name} is none of {}", names.join(" "))
        })
    })
}

fuzz_target!(|bytes: &[u8]| (target().run)(bytes));
