//! Changes of user and group, of the root directory and of namespaces, and confinement. The registry belongs to a user and
//! is found by a path, and processes are known by their numbers, so the runtime settles its affairs first.

use core::ffi::{c_char, c_int, c_ulong};

use convoy_runtime::api;
use libc::{gid_t, uid_t};
use redhook::hook;

resolve! {
    setuid seteuid setreuid setresuid setgid setegid setregid setresgid chroot unshare setns prctl
}

/// Before a call that makes `wanted` the effective id, which is what `now` gives; -1 leaves it.
fn before_change(wanted: u32, now: impl FnOnce() -> u32) {
    if wanted != u32::MAX && !api::passive() && wanted != now() {
        api::before_identity_change();
    }
}

macro_rules! identity {
    ($($name:ident ( $($argument:ident : $type:ty),* ) sets $effective:ident of $now:ident => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type),*) -> c_int => $hook {
                // SAFETY: no memory is involved.
                before_change($effective, || unsafe { libc::$now() });
                original!($name($($argument),*))
            }
        })*
    };
}

identity! {
    setuid(id: uid_t) sets id of geteuid => on_setuid;
    seteuid(id: uid_t) sets id of geteuid => on_seteuid;
    setreuid(id: uid_t, effective: uid_t) sets effective of geteuid => on_setreuid;
    setresuid(id: uid_t, effective: uid_t, saved: uid_t) sets effective of geteuid => on_setresuid;
    setgid(id: gid_t) sets id of getegid => on_setgid;
    setegid(id: gid_t) sets id of getegid => on_setegid;
    setregid(id: gid_t, effective: gid_t) sets effective of getegid => on_setregid;
    setresgid(id: gid_t, effective: gid_t, saved: gid_t) sets effective of getegid => on_setresgid;
}

/// Before prctl(PR_SET_SECCOMP).
pub(crate) fn before_prctl_seccomp(mode: usize, program: usize) {
    // Without a program for a filter somebody only asks whether the kernel has filters. The strict mode has none.
    if mode != libc::SECCOMP_MODE_FILTER as usize || program != 0 {
        confine();
    }
}

/// Before seccomp(2), which for the strict mode has neither flags nor a program.
pub(crate) fn before_seccomp(operation: usize, flags: usize, program: usize) {
    let confines = match operation as u32 {
        libc::SECCOMP_SET_MODE_FILTER => program != 0,
        libc::SECCOMP_SET_MODE_STRICT => flags == 0 && program == 0,
        _ => false,
    };
    if confines {
        confine();
    }
}

fn confine() {
    if !api::passive() {
        api::before_confinement();
    }
}

hook! {
    // libc's takes as many arguments as the option has; unused ones are whatever the registers hold, as there.
    unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int => on_prctl {
        if option == libc::PR_SET_SECCOMP {
            before_prctl_seccomp(a as usize, b as usize);
        }
        original!(prctl(option, a, b, c, d))
    }
}

/// Namespaces in which the numbers of processes and users are others.
const OTHER_NUMBERS: c_int = libc::CLONE_NEWPID | libc::CLONE_NEWUSER;

/// Before a call with clone's flags for namespaces.
pub(crate) fn before_namespaces(flags: c_int) {
    if flags & OTHER_NUMBERS != 0 && !api::passive() {
        api::before_identity_change();
    }
}

/// Changes the root directory by `change`, which gives 0 when it has.
pub(crate) fn change_root(change: impl FnOnce() -> c_int) -> c_int {
    if api::passive() {
        return change();
    }
    let before = api::before_chroot();
    let result = change();
    if result != 0 {
        api::after_failed_chroot(before);
    }
    result
}

hook! {
    unsafe fn chroot(path: *const c_char) -> c_int => on_chroot {
        change_root(|| original!(chroot(path)))
    }
}

hook! {
    unsafe fn unshare(flags: c_int) -> c_int => on_unshare {
        before_namespaces(flags);
        original!(unshare(flags))
    }
}

hook! {
    // Which namespace the descriptor stands for is the kernel's knowledge where the program does not say.
    unsafe fn setns(namespace: c_int, kind: c_int) -> c_int => on_setns {
        before_namespaces(if kind == 0 { OTHER_NUMBERS } else { kind });
        original!(setns(namespace, kind))
    }
}
