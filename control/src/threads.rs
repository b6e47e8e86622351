//! Starting the crate's threads: named, and with every signal blocked. Not here: what they do.
//!
//! Signals are for the agent's own threads. No safe interface to a thread's signal mask exists in std or
//! rustix, so this is the one file of the crate with unsafe code.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread named `name` (at most 15 bytes are visible outside the process).
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // Blocked before the thread exists: it inherits the mask, so there is no moment at which it could
    // take a signal. The starter's own mask is put back afterwards.
    let before = block_all();
    let started = Builder::new().name(name.to_owned()).spawn(body);
    restore(&before);
    started
}

#[allow(unsafe_code)]
fn block_all() -> libc::sigset_t {
    // SAFETY: sigset_t is a plain array of integers, for which zeros are a value; sigfillset and
    // pthread_sigmask get pointers to such values that live through the calls.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    }
}

#[allow(unsafe_code)]
fn restore(mask: &libc::sigset_t) {
    // SAFETY: the mask is one that pthread_sigmask wrote; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn name_is_set_and_signals_are_blocked() {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = super::spawn("cv-test", move || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            tell.send((std::thread::current().name().map(str::to_owned), status)).unwrap();
        });
        thread.unwrap().join().unwrap();
        let (name, status) = told.recv().unwrap();
        assert_eq!(name.as_deref(), Some("cv-test"));
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        // SIGKILL and SIGSTOP cannot be blocked, and the C library keeps 32 to 34 for itself.
        let ordinary: u64 = (1..=31).filter(|n| ![9, 19].contains(n)).map(|n| 1u64 << (n - 1)).sum();
        assert_eq!(mask & ordinary, ordinary);
    }
}
