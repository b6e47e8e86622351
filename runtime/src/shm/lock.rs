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

/// The thread that ends the process, once there is one: no other takes a lock from then on.
///
/// Written by that thread before it takes and releases a lock; read by others after they have taken that lock, whose order
/// lets them see it.
static LAST: AtomicU64 = AtomicU64::new(0);

/// This thread is about to end the process. A lock that it takes and releases now is held by no other thread at the end.
pub fn last_thread() {
    LAST.store(own_mark(), Ordering::Relaxed);
}

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
        if last != 0 && last != own {
            self.give_up_for_good();
        }
        Ok(())
    }

    /// The process ends, and another thread sees to it: this one must not hold a lock then.
    #[cold]
    fn give_up_for_good(&self) -> ! {
        self.release();
        loop {
            sys::sleep_ns(1_000_000_000);
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
