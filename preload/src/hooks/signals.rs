//! Signal handlers. The program's handler stands behind one of ours, which lets it wait while the thread is inside one
//! of Convoy's locks (`convoy_runtime::api::signal`); the program never sees ours.
//!
//! Only what the kernel calls is replaced: with SIG_DFL and SIG_IGN nothing changes, so a vfork child that resets
//! its signals changes nothing of its parent's.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use convoy_runtime::api;
use libc::{SIG_DFL, SIG_ERR, SIG_IGN, sighandler_t, siginfo_t};
use redhook::hook;

resolve! {
    sigaction __sigaction signal bsd_signal ssignal sysv_signal __sysv_signal sigset
}

/// `SIG_HOLD` of sigset(3): not a handler.
const SIG_HOLD: sighandler_t = 2;
const SIGNALS: usize = 65;

/// The program's handlers by number. Written before the kernel is told of ours, so that it never runs without.
static HANDLERS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];

/// A handler as the kernel calls it, whether or not the program's wants all three arguments.
type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

unsafe extern "C" fn ours(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let run = || {
        let handler = HANDLERS[number as usize % SIGNALS].load(Ordering::Acquire);
        if handler > SIG_HOLD {
            // SAFETY: the program has set this address as a handler; the kernel's calling convention is C's.
            unsafe { core::mem::transmute::<usize, Handler>(handler)(number, info, context) };
        }
    };
    // SAFETY: the kernel's arguments.
    unsafe { api::signal(number, info, context, ours as *const () as usize, run) };
}

/// Whether `handler` is a function that the kernel shall call.
fn is_function(handler: sighandler_t) -> bool {
    !matches!(handler, SIG_DFL | SIG_IGN | SIG_ERR | SIG_HOLD) && handler != ours as *const () as usize
}

/// Where a signal's handler is kept. A vfork child has actions of its own and its parent's memory: nothing is kept there.
fn followed(number: c_int) -> Option<&'static AtomicUsize> {
    if api::in_vfork_child() { None } else { HANDLERS.get(number as usize) }
}

/// What the program is told instead of our own handler.
fn shown(told: sighandler_t, before: usize) -> sighandler_t {
    if told == ours as *const () as usize { before } else { told }
}

macro_rules! actions {
    ($($name:ident => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name(number: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int => $hook {
                let Some(place) = followed(number) else {
                    return original!($name(number, new, old));
                };
                let before = place.load(Ordering::Acquire);
                // SAFETY: null, or the program's action.
                let mut action = unsafe { new.as_ref() }.copied();
                if let Some(action) = &mut action
                    && is_function(action.sa_sigaction)
                {
                    place.store(action.sa_sigaction, Ordering::Release);
                    action.sa_sigaction = ours as *const () as usize;
                }
                let given = action.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
                let result = original!($name(number, given, old));
                if result != 0 {
                    place.store(before, Ordering::Release);
                // SAFETY: null, or filled by the kernel.
                } else if let Some(old) = unsafe { old.as_mut() } {
                    old.sa_sigaction = shown(old.sa_sigaction, before);
                }
                result
            }
        })*
    };
}

actions! {
    sigaction => on_sigaction;
    __sigaction => on_sigaction_alias;
}

macro_rules! simple {
    ($($name:ident => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name(number: c_int, handler: sighandler_t) -> sighandler_t => $hook {
                let Some(place) = followed(number) else {
                    return original!($name(number, handler));
                };
                let before = place.load(Ordering::Acquire);
                let mut given = handler;
                if is_function(handler) {
                    place.store(handler, Ordering::Release);
                    given = ours as *const () as usize;
                }
                let told = original!($name(number, given));
                if told == SIG_ERR {
                    place.store(before, Ordering::Release);
                }
                shown(told, before)
            }
        })*
    };
}

simple! {
    signal => on_signal;
    bsd_signal => on_bsd_signal;
    ssignal => on_ssignal;
    sysv_signal => on_sysv_signal;
    __sysv_signal => on_sysv_signal_alias;
    sigset => on_sigset;
}
