//! How long to look before sleeping. A wake-up costs tens of microseconds, a look a fraction of one: so a thread
//! that has recently received something looks for a while, others sleep at once, and nobody spins when more
//! threads would spin than there are processors.

use crate::config::{Spin, settings};
use crate::{position, session, stats, sys};
use core::sync::atomic::{AtomicU64, Ordering};

/// Longest spin in automatic mode.
const AUTO_US: u64 = 50;
/// Traffic this recent makes spinning worth a try.
const RECENT_US: u64 = 2000;
/// Between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;
/// The processor is offered to others after this long, and again as often.
const YIELD_US: u64 = 3;

/// When this process last found what it waited for, in ticks. Written by any thread, a hint.
static LAST_FOUND: AtomicU64 = AtomicU64::new(0);
/// Ticks of [`position::ticks`] per microsecond; 0 = not measured yet.
static TICKS_PER_US: AtomicU64 = AtomicU64::new(0);

/// Looks until `ready`, or as long as it is likely to pay. True when ready.
#[inline]
pub fn until(mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        found();
        return true;
    }
    let budget = budget();
    if budget == 0 {
        return false;
    }
    spin(budget, &mut ready)
}

/// Looks until `ready` for a while even without recent traffic: the other end is known to be at work.
pub fn patiently(mut ready: impl FnMut() -> bool) -> bool {
    match settings().spin {
        Spin::Auto if cpus() > 1 => spin(AUTO_US, &mut ready),
        Spin::Auto => ready(),
        Spin::Micros(limit) => spin(u64::from(limit), &mut ready),
    }
}

/// Something was received: spinning is worth a try for a while.
#[inline]
pub fn found() {
    LAST_FOUND.store(position::ticks(), Ordering::Relaxed);
}

fn spin(budget: u64, ready: &mut dyn FnMut() -> bool) -> bool {
    let Some(session) = session::current() else {
        return false;
    };
    let Some(place) = session.registry.begin_spin(session.identity) else {
        return crowded(session, ready);
    };
    stats::process().spins.add(1);
    let per_us = ticks_per_us();
    let start = position::ticks();
    let mut next_yield = YIELD_US * per_us;
    let mut looks = 0u32;
    let hit = loop {
        if ready() {
            break true;
        }
        core::hint::spin_loop();
        looks = looks.wrapping_add(1);
        if !looks.is_multiple_of(LOOKS_PER_CLOCK) {
            continue;
        }
        let elapsed = position::ticks().wrapping_sub(start);
        if elapsed > budget * per_us {
            break false;
        }
        if elapsed > next_yield {
            sys::sched_yield();
            next_yield = position::ticks().wrapping_sub(start) + YIELD_US * per_us;
        }
    };
    place.store(0, Ordering::Relaxed);
    if hit {
        stats::process().spin_hits.add(1);
        found();
    }
    hit
}

/// As many threads spin as there are processors: let one of them, or whoever has work, run.
#[cold]
fn crowded(session: &session::Session, ready: &mut dyn FnMut() -> bool) -> bool {
    if stats::process().yields.get().is_multiple_of(1024) {
        session.registry.sweep_spinners();
    }
    stats::process().yields.add(1);
    sys::sched_yield();
    ready()
}

/// Microseconds to spin now; 0 = sleep at once.
fn budget() -> u64 {
    match settings().spin {
        Spin::Micros(limit) => u64::from(limit),
        Spin::Auto if cpus() < 2 => 0,
        Spin::Auto => {
            let since = position::ticks().wrapping_sub(LAST_FOUND.load(Ordering::Relaxed));
            if since < RECENT_US * ticks_per_us() { AUTO_US } else { 0 }
        }
    }
}

/// Processors for all processes that meet: one that is bound to a single one may well wait for another elsewhere.
fn cpus() -> usize {
    session::current().map_or(0, |session| session.registry.cpus())
}

/// Measured once, over about 20 us.
fn ticks_per_us() -> u64 {
    match TICKS_PER_US.load(Ordering::Relaxed) {
        0 => {
            let (time, ticks) = (sys::now_ns(), position::ticks());
            while sys::now_ns() - time < 20_000 {
                core::hint::spin_loop();
            }
            let per_us = ((position::ticks() - ticks) * 1000 / (sys::now_ns() - time).max(1)).max(1);
            TICKS_PER_US.store(per_us, Ordering::Relaxed);
            per_us
        }
        known => known,
    }
}
