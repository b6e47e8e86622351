//! How many descriptors this process may have.

use std::io::{Error, Result};

/// Makes the soft limit as high as the hard one, for programs that open very many sockets.
///
/// # Errors
/// What getrlimit and setrlimit give.
pub fn raise_descriptors() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live rlimit, read and then written back with its own hard limit.
    let result = unsafe {
        match libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) {
            0 => {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
            }
            error => error,
        }
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
