//! The hooks, grouped by what the calls do. Each is the C ABI of one libc function and nothing more.

pub(crate) mod aio;
pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod data;
pub(crate) mod descriptor;
pub(crate) mod directory;
pub(crate) mod epoll;
pub(crate) mod identity;
pub(crate) mod message;
pub(crate) mod options;
pub(crate) mod process;
pub(crate) mod select;
pub(crate) mod signals;
pub(crate) mod stdio;
mod syscall;
mod trampoline;
pub(crate) mod uring;
pub(crate) mod vector;
pub(crate) mod wait;
