//! The one place atomics come from in code that is model-checked. The models (`tests/loom.rs`) compile the same
//! files in a crate whose `sync` has loom's, so nothing here depends on loom.

pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
