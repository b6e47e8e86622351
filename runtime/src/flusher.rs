//! The flusher: a thread that publishes held frames whose time is up while the program computes.
//!
//! It exists only where the user set CONVOY_BATCH_DELAY_US, from the first held frame until nothing has been held for
//! [`LINGER_US`]: a process whose own threads have all ended must not be kept alive by it. It has all signals blocked,
//! and touches nothing but send locks and bells; fork finds it outside of both. What is held and how it is published is
//! in `channel::hold`.
//!
//! A sender stores a batch's deadline and then looks how long the flusher sleeps; the flusher says that it sleeps for
//! ever, looks for deadlines, and only then says how long it really sleeps. So one of the two sees the other.

use crate::background::Background;
use crate::channel::hold;
use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// How long it stays without anything to do.
const LINGER_US: u64 = 100_000;
/// Until the next try when fork is at work.
const PAUSE_US: u64 = 500;

/// The thread.
pub static THREAD: Background = Background::new("convoy-flusher");
/// Changed by senders to wake the thread.
static WORD: AtomicU32 = AtomicU32::new(0);
/// Until when the thread sleeps if nobody wakes it, in microseconds; written by the thread.
static SLEEPS_UNTIL: AtomicU64 = AtomicU64::new(u64::MAX);

/// A batch leaves at that time; false when there is no thread that could do it. The deadline is stored already.
pub fn arm(until_us: u64) -> bool {
    fence(Ordering::SeqCst);
    if !THREAD.is_running() && !THREAD.start(run) {
        return false;
    }
    if SLEEPS_UNTIL.load(Ordering::SeqCst) > until_us {
        WORD.fetch_add(1, Ordering::SeqCst);
        sys::futex_wake(&WORD, 1);
    }
    true
}

/// After fork, in the child.
pub fn after_fork_in_child() {
    THREAD.after_fork_in_child();
    SLEEPS_UNTIL.store(u64::MAX, Ordering::Relaxed);
}

fn run() {
    loop {
        let word = WORD.load(Ordering::SeqCst);
        SLEEPS_UNTIL.store(u64::MAX, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let next = match THREAD.try_work() {
            Some(_work) => hold::release_due(),
            None => Some(hold::now_us() + PAUSE_US),
        };
        if let Some(until) = next {
            SLEEPS_UNTIL.store(until, Ordering::SeqCst);
            sleep(word, until.saturating_sub(hold::now_us()));
            continue;
        }
        sleep(word, LINGER_US);
        if WORD.load(Ordering::SeqCst) == word && ends() {
            return;
        }
    }
}

fn sleep(word: u32, microseconds: u64) {
    let limit = libc::timespec {
        tv_sec: (microseconds / 1_000_000) as i64,
        tv_nsec: (microseconds % 1_000_000 * 1000) as i64,
    };
    sys::futex_wait(&WORD, word, &limit);
}

/// Whether the thread may end: not when a batch began meanwhile whose sender still saw the thread.
fn ends() -> bool {
    THREAD.end();
    fence(Ordering::SeqCst);
    hold::next_due().is_none() || !THREAD.end_is_off()
}
