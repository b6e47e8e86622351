//! Shared parts of the load programs: arguments, plain sockets, epoll and the leash to the driver.
//!
//! The programs know nothing of Convoy: they make the libc calls an ordinary program would make. Starting
//! them, measuring and reporting is the driver's work (`driver/`).

pub mod args;
pub mod buffer;
pub mod epoll;
pub mod leash;
pub mod limits;
pub mod net;
pub mod poll;
pub mod ring;
pub mod warm;
