//! How many descriptors a process may have: thousands of connections need more than the usual limits allow.

/// What a load program may need: connections by the tens of thousands.
const WANTED: libc::rlim_t = 1 << 17;

/// Raises the soft limit as far as everybody may, and the hard one as far as root may where it is allowed. Children inherit
/// both; only the load programs that need it go up to the hard one.
pub(crate) fn raise_limits() {
    let limit = limits();
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    let more = libc::rlimit { rlim_max: limit.rlim_max.max(WANTED), ..raised };
    // SAFETY: live values. What is not allowed changes nothing, and programs that lack descriptors say so.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) < 0 {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised);
        }
    }
}

/// How many a load program may have at most.
pub(crate) fn most() -> usize {
    usize::try_from(limits().rlim_max).unwrap_or(usize::MAX)
}

fn limits() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live rlimit; the call cannot fail for this resource.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit
}
