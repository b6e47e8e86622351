//! A lock in shared memory that survives the death of its holder and notices its own thread.

use crate::{inside, process, sys};
use core::sync::atomic::{AtomicU64, Ordering};

/// 0 when free, otherwise the holder: process id in the upper 24 bits, a mark of the thread below.
///
/// Written by whoever takes or releases it. Taking it is an Acquire that pairs with the Release of the
/// previous holder, so all that is guarded by the lock is ordered by it.
#[repr(transparent)]
pub struct SharedLock(AtomicU64);

/// Why a lock could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockError {
    /// The holding process died: what the lock guards may be half changed.
    Abandoned,
    /// This very thread holds it: a signal handler called us in the middle of a call.
    Reentered,
}

/// The thread that ends the process, once there is one: for a moment no other takes a lock. Until when, in nanoseconds of the
/// monotonic clock.
///
/// Written by that thread before it looks whether a lock is free; read by others after they have taken that lock. One that does
/// not see it yet is not kept away, and its death with the lock ends a channel, as that of a process that is killed.
static LAST: AtomicU64 = AtomicU64::new(0);
static LAST_UNTIL: AtomicU64 = AtomicU64::new(0);

/// This thread is about to end the process. What it finds free then ([`SharedLock::await_free`]) no other thread is likely to hold at
/// the end; and none is kept for long, because code that waits for it may still run before the end.
pub fn last_thread() {
    LAST_UNTIL.store(sys::now_ns() + GRACE_NS, Ordering::Relaxed);
    LAST.store(own_mark(), Ordering::SeqCst);
}

/// A process that ends has forked: its child goes on.
pub fn after_fork_in_child() {
    LAST.store(0, Ordering::Relaxed);
}

/// How long other threads keep away from locks at the end, and how long the last one waits for each.
const GRACE_NS: u64 = 100_000_000;
const PATIENCE_NS: u64 = 5_000_000;
const SPINS: u32 = 64;
const YIELDS_BEFORE_LOOKING: u32 = 256;

impl SharedLock {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the lock; waits as long as its holder lives.
    #[inline]
    pub fn acquire(&self) -> Result<(), LockError> {
        let own = own_mark();
        inside::enter();
        match self.0.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(holder) => self.contend(own, holder).inspect_err(|_| inside::leave())?,
        }
        let last = LAST.load(Ordering::Relaxed);
        if last == 0 || last == own { Ok(()) } else { self.give_way(own) }
    }

    /// The process ends, and another thread sees to it: most likely it has ended before this thread would hold the lock again.
    #[cold]
    fn give_way(&self, own: u64) -> Result<(), LockError> {
        let end = LAST_UNTIL.load(Ordering::Relaxed);
        let now = sys::now_ns();
        if now >= end {
            return Ok(());
        }
        self.release();
        sys::sleep_ns(end - now);
        inside::enter();
        self.contend(own, self.0.load(Ordering::Relaxed)).inspect_err(|_| inside::leave())
    }

    /// Waits a little until nobody holds the lock.
    pub fn await_free(&self) {
        let end = sys::now_ns() + PATIENCE_NS;
        while self.0.load(Ordering::Acquire) != 0 && sys::now_ns() < end {
            sys::sched_yield();
        }
    }

    /// Releases the lock; only its holder may call this.
    #[inline]
    pub fn release(&self) {
        self.0.store(0, Ordering::Release);
        inside::leave();
    }

    #[cold]
    fn contend(&self, own: u64, mut holder: u64) -> Result<(), LockError> {
        let mut turns: u32 = 0;
        loop {
            if holder == own {
                return Err(LockError::Reentered);
            }
            if holder == 0 {
                match self.0.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(now) => holder = now,
                }
                continue;
            }
            turns = turns.wrapping_add(1);
            if turns < SPINS {
                core::hint::spin_loop();
            } else {
                // Nothing is held: a handler may run.
                inside::leave();
                sys::sched_yield();
                inside::enter();
                if turns.is_multiple_of(YIELDS_BEFORE_LOOKING)
                    && !process::pid_alive((holder >> PID_SHIFT) as i32)
                {
                    return Err(LockError::Abandoned);
                }
            }
            holder = self.0.load(Ordering::Relaxed);
        }
    }
}

impl Default for SharedLock {
    fn default() -> Self {
        Self::new()
    }
}

const PID_SHIFT: u32 = 40;

/// Process and thread in one word. The thread's part is the address of its control block, which costs one
/// instruction; blocks are at least 256 bytes apart.
#[inline(always)]
fn own_mark() -> u64 {
    let thread = (thread_address() >> 8) & ((1 << PID_SHIFT) - 1);
    (process::own().0 >> 32) << PID_SHIFT | thread
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn thread_address() -> u64 {
    let address: u64;
    // SAFETY: reads the thread pointer, which the x86-64 ABI keeps at fs:0 in every thread.
    unsafe {
        core::arch::asm!("mov {}, fs:0", out(reg) address, options(nostack, pure, readonly, preserves_flags))
    };
    address
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn thread_address() -> u64 {
    (sys::gettid() as u64) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_others_and_notices_itself() {
        process::remember();
        static LOCK: SharedLock = SharedLock::new();
        static mut VALUE: u64 = 0;
        LOCK.acquire().unwrap();
        assert_eq!(LOCK.acquire(), Err(LockError::Reentered));
        LOCK.release();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        LOCK.acquire().unwrap();
                        // SAFETY: guarded by the lock.
                        unsafe { VALUE += 1 };
                        LOCK.release();
                    }
                });
            }
        });
        // SAFETY: the threads have ended.
        assert_eq!(unsafe { VALUE }, 40_000);
    }
}
