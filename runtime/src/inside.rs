//! Sections of the runtime that a program's signal handler must not interrupt: while this thread holds one of
//! Convoy's locks, a handler that sends, receives or leaves with siglongjmp(3) would find it locked, or leave it so.
//!
//! [`enter`] and [`leave`] stand in the locks. A signal that arrives in between is put back, blocked, and let through
//! at the end of the section; in all other places, sleeping ones above all, handlers run at once. Also here: how many
//! handlers have run in this thread, so that a wait ends with EINTR even if one ran before the kernel was asked.
//! May contain `unsafe`: the thread's words are reached through the thread pointer, without a call.

use crate::sys;
use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// A thread's own words: written by the thread and by signal handlers that run in it, read by nobody else. Handlers
/// leave `depth` as they found it, so plain loads and stores do.
#[repr(C)]
struct Words {
    /// Sections entered and not left.
    depth: AtomicU32,
    /// Handlers that have run, and those of them without SA_RESTART.
    handlers: AtomicU32,
    breaking: AtomicU32,
    /// The bell that a sleep in this thread has borrowed: see `bell::Borrowed`.
    bell: AtomicU64,
    /// Where on the stack the innermost handler of the program began, 0 for none; may be stale after a jump.
    handler: AtomicU64,
    /// Signals put back: bit `signal - 1`.
    deferred: AtomicU64,
}

/// Signals of the faulting instruction itself: they cannot wait.
const FAULTS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// Begins a section.
#[inline(always)]
pub fn enter() {
    let depth = &words().depth;
    depth.store(depth.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// Ends it, and lets through what arrived meanwhile.
#[inline(always)]
pub fn leave() {
    compiler_fence(Ordering::SeqCst);
    let words = words();
    let depth = words.depth.load(Ordering::Relaxed).wrapping_sub(1);
    words.depth.store(depth, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if depth == 0 && words.deferred.load(Ordering::Relaxed) != 0 {
        let_through(words);
    }
}

/// A section as long as the value lives: around a lock and what has to follow its release without a handler in between,
/// which might never return.
pub struct Section;

impl Section {
    #[inline(always)]
    pub fn new() -> Self {
        enter();
        Self
    }
}

impl Drop for Section {
    #[inline(always)]
    fn drop(&mut self) {
        leave();
    }
}

/// Whether a signal waits for the end of this thread's section.
#[inline]
pub fn pending() -> bool {
    words().deferred.load(Ordering::Relaxed) != 0
}

#[cold]
fn let_through(words: &Words) {
    let signals = words.deferred.swap(0, Ordering::Relaxed);
    sys::unblock_signals(signals);
}

/// Memory of one call: allocated and freed inside sections, because a handler that leaves by siglongjmp out of the
/// allocator leaves that locked.
pub struct Heap<T>(ManuallyDrop<T>);

impl<T> Heap<T> {
    pub fn new(make: impl FnOnce() -> T) -> Self {
        let _section = Section::new();
        Self(ManuallyDrop::new(make()))
    }
}

impl<T> Drop for Heap<T> {
    fn drop(&mut self) {
        let _section = Section::new();
        // SAFETY: dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

impl<T> Deref for Heap<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Heap<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Where this thread notes the bell it has borrowed.
pub fn bell() -> &'static AtomicU64 {
    &words().bell
}

/// A handler is about to run: whether it has to wait. It then returns at once, and comes again.
///
/// `handler` is the address of the one that asks.
///
/// # Safety
/// The first three are the arguments of a signal handler, as the kernel gave them.
pub unsafe fn defer(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, handler: usize) -> bool {
    let words = words();
    if words.depth.load(Ordering::Relaxed) == 0 || FAULTS.contains(&signal) {
        return false;
    }
    let action = sys::signal_action(signal);
    if action.flags as c_int & libc::SA_RESETHAND != 0 {
        // The kernel has reset it; it has not run yet.
        sys::set_signal_action(signal, &sys::Action { handler, ..action });
    }
    let bit = 1u64 << (signal - 1);
    // SAFETY: the kernel's context; sigreturn(2) takes its mask over, of which the first word counts.
    unsafe {
        let mask = &raw mut (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        *mask.cast::<u64>() |= bit;
    }
    words.deferred.fetch_or(bit, Ordering::Relaxed);
    let told = action.flags as c_int & libc::SA_SIGINFO != 0;
    // SAFETY: with SA_SIGINFO the kernel has filled the information.
    let queued = told && unsafe { sys::queue_signal_to_self(signal, info) };
    if !queued {
        sys::signal_thread(sys::getpid(), sys::gettid(), signal);
    }
    true
}

/// A stack is not larger than this, for telling a stale note of a handler from a true one.
const STACK_BYTES: u64 = 8 << 20;

/// Whether a handler of the program runs in this thread. It may have interrupted the allocator, so what allocates is
/// not done then, where it can be left.
pub fn in_handler() -> bool {
    let handler = &words().handler;
    let began = handler.load(Ordering::Relaxed);
    if began == 0 {
        return false;
    }
    let here = 0u8;
    let runs = began.wrapping_sub(&raw const here as u64) < STACK_BYTES;
    if !runs {
        handler.store(0, Ordering::Relaxed);
    }
    runs
}

/// A handler runs now, from `frame` on the stack; what to give [`handler_ends`].
pub fn handler_begins(signal: c_int, frame: u64) -> u64 {
    let words = words();
    words.handlers.fetch_add(1, Ordering::Relaxed);
    if sys::signal_action(signal).flags as c_int & libc::SA_RESTART == 0 {
        words.breaking.fetch_add(1, Ordering::Relaxed);
    }
    words.handler.swap(frame, Ordering::Relaxed)
}

/// The handler has returned.
pub fn handler_ends(before: u64) {
    words().handler.store(before, Ordering::Relaxed);
}

/// Handlers that have run in this thread up to a moment.
#[derive(Clone, Copy)]
pub struct Interruptions {
    handlers: u32,
    breaking: u32,
}

impl Interruptions {
    #[inline]
    pub fn so_far() -> Self {
        let words = words();
        Self {
            handlers: words.handlers.load(Ordering::Relaxed),
            breaking: words.breaking.load(Ordering::Relaxed),
        }
    }

    /// Whether one has run since: poll and epoll_wait end then.
    #[inline]
    pub fn any_since(self) -> bool {
        words().handlers.load(Ordering::Relaxed) != self.handlers
    }

    /// Whether one without SA_RESTART has run since: recv ends then (signal(7)).
    #[inline]
    pub fn breaking_since(self) -> bool {
        words().breaking.load(Ordering::Relaxed) != self.breaking
    }
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .tbss.convoy_inside,\"awT\",@nobits",
    ".balign 16",
    ".globl convoy_inside",
    ".hidden convoy_inside",
    ".type convoy_inside,@object",
    ".size convoy_inside,{bytes}",
    "convoy_inside:",
    ".zero {bytes}",
    ".popsection",
    bytes = const size_of::<Words>(),
);

/// Thread-local in the initial-exec model (ELF TLS specification, section 4.3.6): the library is there from the
/// start of the program, so its block is part of the static ones and no call is needed to find it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn words() -> &'static Words {
    let words: *const Words;
    // SAFETY: reads the thread pointer (fs:0 in the x86-64 ABI) and the variable's offset from it.
    unsafe {
        core::arch::asm!(
            "mov {words}, qword ptr fs:[0]",
            "add {words}, qword ptr [rip + convoy_inside@gottpoff]",
            words = out(reg) words,
            options(nostack, pure, readonly)
        );
        &*words
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn words() -> &'static Words {
    std::thread_local! {
        static WORDS: Words = const { Words {
            depth: AtomicU32::new(0),
            handlers: AtomicU32::new(0),
            breaking: AtomicU32::new(0),
            bell: AtomicU64::new(0),
            handler: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
        } };
    }
    // SAFETY: the words live as long as the thread that uses them.
    WORDS.with(|words| unsafe { &*core::ptr::from_ref(words) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_own_depth() {
        enter();
        assert_eq!(words().depth.load(Ordering::Relaxed), 1);
        std::thread::spawn(|| assert_eq!(words().depth.load(Ordering::Relaxed), 0)).join().unwrap();
        enter();
        leave();
        assert_eq!(words().depth.load(Ordering::Relaxed), 1);
        leave();
        assert_eq!(words().depth.load(Ordering::Relaxed), 0);
    }
}
