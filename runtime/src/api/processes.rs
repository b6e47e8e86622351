//! What the hooks tell of the process itself: its beginning and end, forks, images, signals, places. Descriptors are not here.

use crate::config::{self, settings};
use crate::{bell, close, confine, fork, inside, session, stats, sys};
use core::ffi::{c_int, c_void};

/// Before fork and _Fork (not vfork): takes what must not be held by another thread.
pub fn before_fork() {
    fork::before();
}
/// In the parent afterwards, also when there is no child: then [`fork_failed`] is to follow.
pub fn after_fork_in_parent() {
    fork::after_in_parent();
}
/// fork gave an error.
pub fn fork_failed() {
    fork::failed();
}
/// In the child afterwards.
pub fn after_fork_in_child() {
    fork::after_in_child();
}

/// Before exec of another image in this process, and in posix_spawn for descriptors that the child inherits.
pub fn before_exec() {
    close::before_exec();
}
/// After an exec that failed.
pub fn after_failed_exec() {
    close::after_failed_exec();
}
/// At exit, _exit, quick_exit: everything published, nothing left behind. A process that has confined itself stays counted as a holder
/// of its connections, which then stay with the kernel: neither it nor its children could say when the last of them is gone.
pub fn before_exit() {
    if !confine::confined() {
        close::at_exit();
    }
}

/// True in a child made by vfork (or clone with shared memory): hooks must then only make the real call. Not asked in a
/// process that has confined itself, which might not be allowed to.
pub fn in_vfork_child() -> bool {
    !confine::confined() && fork::in_vfork_child()
}

/// True where Convoy takes no part in what becomes of the process: in such a child, and in a process that has confined
/// itself.
pub fn passive() -> bool {
    confine::confined() || fork::in_vfork_child()
}

/// Before the process confines itself by seccomp(2): whatever the runtime might do later could be forbidden.
pub fn before_confinement() {
    confine::before();
}

/// A signal has arrived for which the program has a handler, which `run` runs, unless that has to wait: then it comes
/// again. `ours` is the address of the handler that asks.
///
/// # Safety
/// The first three are a signal handler's arguments, as the kernel gave them.
pub unsafe fn signal(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    ours: usize,
    run: impl FnOnce(),
) {
    // SAFETY: the caller's promise.
    if unsafe { inside::defer(signal, info, context, ours) } {
        return;
    }
    let frame = 0u8;
    let before = inside::handler_begins(signal, &raw const frame as u64);
    run();
    inside::handler_ends(before);
}

/// Before setuid, setreuid, setresuid, seteuid, setgid..., for the registry belongs to a user; and before the process's
/// children, or the process, are put into other namespaces of processes or users.
pub fn before_identity_change() {
    session::before_identity_change();
}

/// Before chroot: what is found by a path is lost. For [`after_failed_chroot`], gives what was before.
pub fn before_chroot() -> u8 {
    session::before_chroot()
}

/// After a chroot that failed.
pub fn after_failed_chroot(before: u8) {
    session::after_failed_chroot(before);
}

/// Once, when the library is loaded. Reads the settings; opens nothing.
pub fn start() {
    sys::find_clock();
    config::load();
    fork::start();
    sys::at_thread_end(bell::at_thread_end);
}

/// What `CONVOY_IO_URING` says: false (the default) lets io_uring_setup fail with ENOSYS, and is counted.
pub fn io_uring_allowed() -> bool {
    let allowed = settings().io_uring_allow;
    stats::process().bypasses_io_uring.add(u64::from(!allowed));
    allowed
}
