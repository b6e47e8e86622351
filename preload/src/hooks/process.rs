//! Processes: fork and its relatives, exec, spawn, and the exits that run no destructors. vfork is not
//! intercepted (it returns twice); its child is recognised instead.

use core::ffi::{c_char, c_int, c_void};

use convoy_runtime::api::{self, Reason};
use libc::pid_t;
use redhook::hook;

use super::{create, descriptor, identity};
use crate::{calls, errno};

resolve! {
    fork __fork __libc_fork _Fork clone __clone posix_spawn posix_spawnp posix_spawn_file_actions_adddup2
    execve execv execvp execvpe execveat fexecve _exit _Exit quick_exit
}

/// Makes a child process with its own copy of memory by `make`, which returns 0 in the child, and runs no fork handlers.
pub(crate) fn fork_with(make: impl FnOnce() -> pid_t) -> pid_t {
    if api::passive() {
        return make();
    }
    api::before_fork();
    let child = make();
    if child == 0 {
        api::after_fork_in_child();
    } else {
        api::after_fork_in_parent();
    }
    told(child)
}

/// Passes on what a fork returned.
fn told(child: pid_t) -> pid_t {
    if child < 0 && !api::passive() {
        api::fork_failed();
    }
    child
}

macro_rules! fork_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            // The runtime has registered fork handlers; only a failure is not told to them.
            unsafe fn $name() -> pid_t => $hook {
                told(original!($name()))
            }
        }
    };
}
fork_hook!(fork => on_fork);
fork_hook!(__fork => on_fork_alias);
fork_hook!(__libc_fork => on_libc_fork);

hook! {
    // Before glibc 2.34 there is no _Fork: fork does the same and more.
    unsafe fn _Fork() -> pid_t => on_bare_fork {
        if calls::exists(c"_Fork") { fork_with(|| original!(_Fork())) } else { told(original!(fork())) }
    }
}

/// What a clone child was to run.
struct Child {
    run: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

/// First function of a clone child that has its own copy of memory, and so of the parent's stack.
extern "C" fn begin_child(child: *mut c_void) -> c_int {
    api::after_fork_in_child();
    // SAFETY: points to the `Child` in the copied stack frame of `clone_with`.
    let child = unsafe { &*child.cast::<Child>() };
    (child.run)(child.argument)
}

macro_rules! clone_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            // clone of a thread or a vfork-like child (CLONE_VM) shares memory and passes through.
            unsafe fn $name(
                run: extern "C" fn(*mut c_void) -> c_int, stack: *mut c_void, flags: c_int, argument: *mut c_void,
                parent_id: *mut pid_t, tls: *mut c_void, child_id: *mut pid_t
            ) -> c_int => $hook {
                if flags & libc::CLONE_VM != 0 || stack.is_null() || api::passive() {
                    return original!($name(run, stack, flags, argument, parent_id, tls, child_id));
                }
                identity::before_namespaces(flags);
                let mut child = Child { run, argument };
                let child: *mut c_void = (&raw mut child).cast();
                api::before_fork();
                let id = original!($name(begin_child, stack, flags, child, parent_id, tls, child_id));
                api::after_fork_in_parent();
                told(id)
            }
        }
    };
}
clone_hook!(clone => on_clone);
clone_hook!(__clone => on_clone_alias);

hook! {
    // libc's daemon forks inside libc, where no hook sees it.
    unsafe fn daemon(stay: c_int, keep: c_int) -> c_int => on_daemon {
        // SAFETY: the hooks of calls that the program could make itself.
        unsafe {
            match on_fork() {
                -1 => return -1,
                0 => {}
                _ => on_exit_now(0),
            }
            if libc::setsid() == -1 {
                return -1;
            }
            if stay == 0 {
                libc::chdir(c"/".as_ptr());
            }
            if keep == 0 { silence() } else { 0 }
        }
    }
}

/// Puts /dev/null in place of the standard descriptors; ENODEV where it is something else.
fn silence() -> c_int {
    // SAFETY: plain descriptor calls, a local stat buffer.
    unsafe {
        let null = create::on_open(c"/dev/null".as_ptr(), libc::O_RDWR, 0);
        if null < 0 {
            return -1;
        }
        let mut stat: libc::stat = core::mem::zeroed();
        if libc::fstat(null, &mut stat) != 0 {
            errno::preserved(|| descriptor::on_close(null));
            return -1;
        }
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
            descriptor::on_close(null);
            return errno::fail(libc::ENODEV);
        }
        for standard in libc::STDIN_FILENO..=libc::STDERR_FILENO {
            descriptor::on_dup2(null, standard);
        }
        if null > libc::STDERR_FILENO {
            descriptor::on_close(null);
        }
        0
    }
}

/// Replaces this process's image by `replace`, which returns only when it failed.
pub(crate) fn exec_with(replace: impl FnOnce() -> c_int) -> c_int {
    if api::passive() {
        return replace();
    }
    api::before_exec();
    let result = replace();
    api::after_failed_exec();
    result
}

/// A list of strings that ends with null.
pub(crate) type List = *const *const c_char;

macro_rules! exec {
    ($($name:ident ( $($argument:ident : $type:ty),* ) => $hook:ident;)*) => {
        $(hook! {
            unsafe fn $name($($argument: $type),*) -> c_int => $hook {
                exec_with(|| original!($name($($argument),*)))
            }
        })*
    };
}

exec! {
    execve(path: *const c_char, arguments: List, environment: List) => on_execve;
    execv(path: *const c_char, arguments: List) => on_execv;
    execvp(file: *const c_char, arguments: List) => on_execvp;
    execvpe(file: *const c_char, arguments: List, environment: List) => on_execvpe;
    execveat(folder: c_int, path: *const c_char, arguments: List, environment: List, flags: c_int) => on_execveat;
    fexecve(fd: c_int, arguments: List, environment: List) => on_fexecve;
}

// A spawned child runs no code of Convoy before its own image starts, and the parent goes on as before.

macro_rules! spawn {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(
                child: *mut pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void,
                arguments: List, environment: List
            ) -> c_int => $hook {
                original!($name(child, path, actions, attributes, arguments, environment))
            }
        }
    };
}
spawn!(posix_spawn => on_posix_spawn);
spawn!(posix_spawnp => on_posix_spawnp);

hook! {
    // The spawned image, which may know nothing of Convoy, is to use the descriptor.
    unsafe fn posix_spawn_file_actions_adddup2(actions: *mut c_void, fd: c_int, new: c_int) -> c_int => on_adddup2 {
        if api::tracked(fd) {
            api::demote(fd, Reason::Exec);
        }
        original!(posix_spawn_file_actions_adddup2(actions, fd, new))
    }
}

macro_rules! exit_hook {
    ($name:ident => $hook:ident) => {
        hook! {
            unsafe fn $name(status: c_int) => $hook {
                if !api::in_vfork_child() {
                    api::before_exit();
                }
                original!($name(status))
            }
        }
    };
}
exit_hook!(_exit => on_exit_now);
exit_hook!(_Exit => on_exit_now_c);
exit_hook!(quick_exit => on_quick_exit);
