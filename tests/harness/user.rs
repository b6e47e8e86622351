//! Users of this machine, for commands that are not to run as root.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// PostgreSQL's server refuses to run as root: user and group that its package has made.
pub fn postgres() -> (u32, u32) {
    named("postgres")
        .expect("there is no user postgres: ./dev test installs it, or apt-get install postgresql")
}

/// User and group of a name in the passwd database (getpwnam(3)).
fn named(name: &str) -> Option<(u32, u32)> {
    let name = CString::new(name).ok()?;
    // SAFETY: a valid name; the result is copied before anybody else asks.
    let entry = unsafe { libc::getpwnam(name.as_ptr()).as_ref() }?;
    Some((entry.pw_uid, entry.pw_gid))
}

/// The command gives up its rights before it runs; it enters its host's namespace first, for which it needs them.
pub fn become_user(command: &mut Command, user: u32, group: u32) {
    let give_up = move || {
        // SAFETY: no memory is involved.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(group) == 0 && libc::setuid(user) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: three system calls between fork and exec.
    unsafe { command.pre_exec(give_up) };
}
