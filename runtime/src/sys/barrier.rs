//! membarrier(2): a full memory barrier in all threads of all processes that have registered, paid for by the caller.

use super::{Answer, answer};
use syscalls::{Sysno, syscall};

/// From now on this process passes the barriers that others ask for.
pub fn register_for_barriers() -> Answer<()> {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)
}

/// Every thread of a registered process that runs at this moment passes a full barrier before this returns.
pub fn barrier_everywhere() -> Answer<()> {
    membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)
}

fn membarrier(command: i32) -> Answer<()> {
    call!(membarrier, command, 0, 0).map(drop)
}
