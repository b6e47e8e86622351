//! Changes of user and group, of the root directory and of namespaces, and confinement. The registry belongs to a user and
//! is found by a path, and processes are known by their numbers, so the runtime settles its affairs first.

use core::ffi::{c_char, c_int, c_ulong};

use convoy_runtime::api;
use libc::{gid_t, uid_t};
use redhook::hook;

resolve! {
    setuid seteuid setreuid setresuid setgid setegid setregid setresgid chroot unshare setns prctl
}

macro_rules! identity {
    ($($name:ident ( $($argument:ident : $type:ty),* ) => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type),*) -> c_int => $hook {
                if !api::passive() {
                    api::before_identity_change();
                }
                original!($name($($argument),*))
            }
        })*
    };
}

identity! {
    setuid(id: uid_t) => on_setuid;
    seteuid(id: uid_t) => on_seteuid;
    setreuid(id: uid_t, effective: uid_t) => on_setreuid;
    setresuid(id: uid_t, effective: uid_t, saved: uid_t) => on_setresuid;
    setgid(id: gid_t) => on_setgid;
    setegid(id: gid_t) => on_setegid;
    setregid(id: gid_t, effective: gid_t) => on_setregid;
    setresgid(id: gid_t, effective: gid_t, saved: gid_t) => on_setresgid;
}

/// Before prctl(PR_SET_SECCOMP) and seccomp(2) with a mode and its program. Without a program, somebody only asks
/// whether the kernel has filters.
pub(crate) fn before_seccomp(filters: bool, program: usize) {
    let asks = filters && program == 0;
    if !asks && !api::passive() {
        api::before_confinement();
    }
}

hook! {
    // libc's takes as many arguments as the option has; unused ones are whatever the registers hold, as there.
    unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int => on_prctl {
        if option == libc::PR_SET_SECCOMP {
            before_seccomp(a == c_ulong::from(libc::SECCOMP_MODE_FILTER), b as usize);
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

/// Before chroot or pivot_root.
pub(crate) fn before_other_root() {
    if !api::passive() {
        api::before_chroot();
    }
}

hook! {
    unsafe fn chroot(path: *const c_char) -> c_int => on_chroot {
        before_other_root();
        original!(chroot(path))
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
