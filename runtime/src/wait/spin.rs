//! How long to look before sleeping. A wake-up costs tens of microseconds, a look a fraction of one: so a thread
//! that has recently received something looks for a while, others sleep at once, and nobody spins when more
//! threads would spin than there are processors, when others want the processor, or when it is always in vain.

use crate::config::{Spin, settings};
use crate::inside::{self, Section};
use crate::{position, session, stats, sys};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Longest spin in automatic mode.
const AUTO_US: u64 = 50;
/// Traffic this recent makes spinning worth a try.
const RECENT_US: u64 = 2000;
/// Between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;
/// The processor is offered to others after this long, and again as often.
const YIELD_US: u64 = 3;

/// Times that a thread without a place to spin gives the processor to others before it sleeps.
const YIELDS_IN_A_CROWD: u32 = 32;
/// Giving the processor away took less: nobody wanted it.
const SWITCH_US: u64 = 1;
/// A gap this long between two looks means that the processor was somebody else's.
const LOST_US: u64 = 200;
/// Spins in vain after which there is a pause.
const MISSES_TO_PAUSE: u32 = 8;
const SHORTEST_PAUSE_US: u64 = 4000;
const LONGEST_PAUSE_US: u64 = 512_000;
/// A pause doubles unless the last one ended more than this many times its length ago.
const CALM_PAUSES: u64 = 4;

/// Until when (ticks) threads of this process do not spin, how long the last pause was, and spins in vain since the last
/// that was not. Written by any thread; hints.
static PAUSED_UNTIL: AtomicU64 = AtomicU64::new(0);
static PAUSE_US: AtomicU64 = AtomicU64::new(SHORTEST_PAUSE_US);
static BESIDE: AtomicBool = AtomicBool::new(false);
static MISSES: AtomicU32 = AtomicU32::new(0);
/// When this process last found what it waited for, in ticks. Written by any thread, a hint.
static LAST_FOUND: AtomicU64 = AtomicU64::new(0);
/// Ticks of [`position::ticks`] per microsecond; 0 = not measured yet.
static TICKS_PER_US: AtomicU64 = AtomicU64::new(0);

/// Looks until `ready`, or as long as it is likely to pay. True when ready. The caller has just looked.
#[inline]
pub fn until(mut ready: impl FnMut() -> bool) -> bool {
    let now = position::ticks();
    let budget = budget(now);
    if budget == 0 {
        return false;
    }
    if BESIDE.load(Ordering::Relaxed) && !paused(now) {
        // The peer was last on this processor, so it gets it at once; that takes no place of those who look.
        give_away(now);
        if ready() {
            stats::process().spin_hits.bump(1);
            MISSES.store(0, Ordering::Relaxed);
            return true;
        }
    }
    spin(budget, now, &mut ready)
}

/// Times that a sender without room gives its processor away, and sleeps.
const YIELDS_FOR_ROOM: u32 = 8;
const NAPS_FOR_ROOM: u32 = 20;
const NAP_NS: u64 = 20_000;

/// Looks until there is room for a sender, whose receiver is known to be at work: it may need this very processor. One
/// that must not block waits for a moment only, one that may for some milliseconds, as the kernel would let it.
pub fn for_room(nonblocking: bool, mut ready: impl FnMut() -> bool) -> bool {
    let budget = match settings().spin {
        Spin::Auto => AUTO_US,
        Spin::Micros(limit) => u64::from(limit),
    };
    if spin(budget, position::ticks(), &mut ready) {
        return true;
    }
    let yielded = (0..YIELDS_FOR_ROOM).any(|_| {
        sys::sched_yield();
        ready()
    });
    yielded
        || !nonblocking
            && (0..NAPS_FOR_ROOM).any(|_| {
                sys::sleep_ns(NAP_NS);
                ready()
            })
}

/// Something was received at that time: spinning is worth a try for a while.
#[inline]
pub fn found(now: u64) {
    LAST_FOUND.store(now, Ordering::Relaxed);
    if let Some(session) = session::current() {
        session.registry.note_progress(now);
    }
}

/// When something was received last, in ticks.
#[inline]
pub fn last_found() -> u64 {
    LAST_FOUND.load(Ordering::Relaxed)
}

fn spin(budget: u64, start: u64, ready: &mut dyn FnMut() -> bool) -> bool {
    let Some(session) = session::current() else {
        return false;
    };
    let per_us = ticks_per_us();
    let auto = settings().spin == Spin::Auto;
    if auto && paused(start) {
        return false;
    }
    // A single processor for all who meet here: looking is in vain, giving it away is not.
    let alone = auto && session.registry.cpus() < 2;
    // A place must not be left by a jump; a signal ends the spin.
    let _section = Section::new();
    let place = if alone { None } else { session.registry.begin_spin(session.identity) };
    let Some(place) = place else {
        return crowded(session, start, ready);
    };
    stats::process().spins.bump(1);
    // Where the peer was last on this processor, it gets it soon again.
    let first = if BESIDE.load(Ordering::Relaxed) { 0 } else { YIELD_US * per_us };
    let (mut now, mut next_yield) = (start, start + first);
    let mut yielded = false;
    let mut looks = 0u32;
    let hit = loop {
        if ready() {
            note_where(yielded);
            break true;
        }
        looks = looks.wrapping_add(1);
        if first != 0 || yielded {
            yielded = false;
            core::hint::spin_loop();
            if !looks.is_multiple_of(LOOKS_PER_CLOCK) {
                continue;
            }
        }
        let before = core::mem::replace(&mut now, position::ticks());
        if was_lost(before, now) {
            pause_longer(now);
            break ready();
        }
        if inside::pending() {
            break false;
        }
        if now.wrapping_sub(start) > budget * per_us {
            missed(now);
            break false;
        }
        if now > next_yield {
            now = give_away(now);
            yielded = true;
            next_yield = now + YIELD_US * per_us;
        }
    };
    place.store(0, Ordering::Relaxed);
    if hit {
        stats::process().spin_hits.bump(1);
        MISSES.store(0, Ordering::Relaxed);
        found(now);
    }
    hit
}

/// Something came `beside`, that is while this processor was given away: its sender runs here too.
#[inline]
fn note_where(beside: bool) {
    if BESIDE.load(Ordering::Relaxed) != beside {
        BESIDE.store(beside, Ordering::Relaxed);
    }
}

/// As many threads spin as there are processors: let one of them, or whoever has work, run, as long as somebody has. That is cheaper
/// than to sleep and be woken, and what comes meanwhile is found together.
#[cold]
fn crowded(session: &session::Session, start: u64, ready: &mut dyn FnMut() -> bool) -> bool {
    if stats::process().yields.get().is_multiple_of(1024) {
        session.registry.sweep_spinners();
    }
    let mut now = start;
    for _ in 0..YIELDS_IN_A_CROWD {
        stats::process().yields.bump(1);
        let before = now;
        now = give_away(before);
        if ready() {
            return true;
        }
        let unused = now.wrapping_sub(before) < SWITCH_US * ticks_per_us();
        if unused || inside::pending() || paused(now) {
            return false;
        }
    }
    false
}

/// Gives the processor to whoever waits for it; a pause begins when that was a stranger for long. The time after it, in ticks.
#[inline]
fn give_away(before: u64) -> u64 {
    sys::sched_yield();
    let now = position::ticks();
    if was_lost(before, now) {
        pause_longer(now);
    }
    now
}

/// Whether the processor was a stranger's between two moments (ticks) for long. Where threads that wait for each other share the
/// processors, one of them has found something lately.
#[inline]
fn was_lost(before: u64, now: u64) -> bool {
    let gap = now.wrapping_sub(before);
    // Another processor's may be later than `now`.
    let since = |session: &session::Session| now.wrapping_sub(session.registry.last_progress()) as i64;
    let quiet = |session| since(session) > (gap / 2) as i64;
    gap > LOST_US * ticks_per_us() && session::current().is_none_or(quiet)
}

/// Whether spinning has lately cost more than it gave.
#[inline]
fn paused(now: u64) -> bool {
    (PAUSED_UNTIL.load(Ordering::Relaxed).wrapping_sub(now) as i64) > 0
}

/// Somebody else was given the processor for long: a thread that sleeps is woken before such a one, a thread that spins
/// or yields is not. Each time in a row the pause doubles.
#[cold]
fn pause_longer(now: u64) {
    let per_us = ticks_per_us();
    let ended = PAUSED_UNTIL.load(Ordering::Relaxed);
    let last = PAUSE_US.load(Ordering::Relaxed);
    let in_a_row = now.wrapping_sub(ended) < CALM_PAUSES * last * per_us;
    let pause = if in_a_row { (last * 2).min(LONGEST_PAUSE_US) } else { SHORTEST_PAUSE_US };
    PAUSE_US.store(pause, Ordering::Relaxed);
    PAUSED_UNTIL.store(now + pause * per_us, Ordering::Relaxed);
    stats::process().spin_pauses.add(1);
}

/// A spin was in vain. After some in a row the traffic is of a kind that comes later than a spin lasts.
#[cold]
fn missed(now: u64) {
    if MISSES.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES_TO_PAUSE {
        MISSES.store(0, Ordering::Relaxed);
        PAUSED_UNTIL.store(now + SHORTEST_PAUSE_US * ticks_per_us(), Ordering::Relaxed);
        stats::process().spin_pauses.add(1);
    }
}

/// Microseconds to spin now; 0 = sleep at once.
fn budget(now: u64) -> u64 {
    match settings().spin {
        Spin::Micros(limit) => u64::from(limit),
        Spin::Auto => {
            let since = now.wrapping_sub(LAST_FOUND.load(Ordering::Relaxed));
            if since < RECENT_US * ticks_per_us() { AUTO_US } else { 0 }
        }
    }
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
