//! Leaves nothing behind when the driver is interrupted: its private directories go, its children die with it.

use std::path::{Path, PathBuf};

/// The directories of one driver begin with this and its process id.
const PREFIX: &str = "convoy-bench-";

/// The prefix for this process's own directories.
pub(crate) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Where they are made: in memory where that is possible.
pub(crate) fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// From here on SIGINT and SIGTERM clear up before they end the process. Called before there are threads.
pub(crate) fn on_interrupt() {
    // SAFETY: the set is a live local, initialised by sigemptyset before use.
    let signals = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        signals
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both arguments are live locals of this thread.
        unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
        remove_own();
        std::process::exit(128 + signal);
    });
}

/// In a child before exec: the mask is inherited, and the program expects its signals.
pub(crate) fn unblock() {
    // SAFETY: the set is a live local, initialised by sigemptyset before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn remove_own() {
    let prefix = prefix();
    for directory in [place(), std::env::temp_dir()] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // What cannot be removed stays: there is nobody left to tell.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
