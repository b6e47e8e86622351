//! Signals: how a handler is set, how one is sent to this very thread, and the mask.

use super::{KERNEL_SIGSET_BYTES, Sysno, answer, getpid, gettid, syscall};
use core::ffi::c_int;

/// The kernel's `struct sigaction` (rt_sigaction(2)).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Action {
    /// 0 default, 1 ignored, otherwise an address.
    pub handler: usize,
    pub flags: u64,
    pub restorer: usize,
    pub mask: u64,
}

/// tgkill(pid, tid, signal): used for SIGPIPE, which belongs to the calling thread, and for what was put back.
pub fn signal_thread(pid: i32, tid: i32, signal: c_int) {
    let _ = call!(tgkill, pid, tid, signal);
}

/// How a signal is handled.
pub fn signal_action(signal: c_int) -> Action {
    let mut action = Action::default();
    let _ = call!(rt_sigaction, signal, 0, &raw mut action, KERNEL_SIGSET_BYTES);
    action
}

/// Sets how a signal is handled: an action that [`signal_action`] gave, with another handler.
pub fn set_signal_action(signal: c_int, action: &Action) {
    let _ = call!(rt_sigaction, signal, core::ptr::from_ref(action), 0, KERNEL_SIGSET_BYTES);
}

/// rt_tgsigqueueinfo: the signal comes to this thread again, with the same information; false when it cannot be queued.
///
/// # Safety
/// `info` is null or what the kernel gave a handler.
pub unsafe fn queue_signal_to_self(signal: c_int, info: *const libc::siginfo_t) -> bool {
    call!(rt_tgsigqueueinfo, getpid(), gettid(), signal, info).is_ok()
}

/// rt_sigprocmask(SIG_UNBLOCK) of the signals whose bits (`signal - 1`) are set; they are delivered before it returns.
pub fn unblock_signals(signals: u64) {
    let _ = call!(rt_sigprocmask, libc::SIG_UNBLOCK, &raw const signals, 0, KERNEL_SIGSET_BYTES);
}
