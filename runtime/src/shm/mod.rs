//! Memory shared between processes: the segment of a channel, the memory of one side, rings and locks.
//!
//! Every word states who writes it, who reads it and which ordering pairs with which. Values another process
//! wrote are checked by the reader before use. This module tree may contain `unsafe`.

pub mod bell_page;
pub mod bell_word;
pub mod blocks;
pub mod changes;
pub mod frames;
pub mod line;
pub mod load;
pub mod lock;
pub mod party;
pub mod ring;
pub mod segment;
pub mod sleep_word;
pub mod waiters;
