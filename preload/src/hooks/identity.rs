//! Changes of user and group. The registry belongs to a user, so the runtime settles its affairs first.

use core::ffi::c_int;

use convoy_runtime::api;
use libc::{gid_t, uid_t};
use redhook::hook;

resolve! {
    setuid seteuid setreuid setresuid setgid setegid setregid setresgid
}

macro_rules! identity {
    ($($name:ident ( $($argument:ident : $type:ty),* ) => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type),*) -> c_int => $hook {
                if !api::in_vfork_child() {
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
