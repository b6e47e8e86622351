//! Filters for system calls (seccomp(2)), made by a program for itself or found in place as in a sandbox.

use std::ffi::c_int;

use super::sys::status;

/// A program for the kernel's filter.
#[derive(Debug)]
pub struct Filter {
    steps: Vec<libc::sock_filter>,
}

const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const GIVE: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

impl Filter {
    /// Ends the process at any call but these.
    pub fn allowing(calls: &[libc::c_long]) -> Self {
        let mut steps = vec![step(LOAD_NUMBER, 0, 0, 0)];
        for &call in calls {
            steps.extend([step(IS, 0, 1, call as u32), step(GIVE, 0, 0, libc::SECCOMP_RET_ALLOW)]);
        }
        steps.push(step(GIVE, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
        Self { steps }
    }

    /// Answers one call with an error.
    pub fn refusing(call: libc::c_long, errno: c_int) -> Self {
        let steps = vec![
            step(LOAD_NUMBER, 0, 0, 0),
            step(IS, 0, 1, call as u32),
            step(GIVE, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            step(GIVE, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        Self { steps }
    }

    /// Puts it in place by `prctl`.
    pub fn by_prctl(self) {
        self.put(|program| {
            // SAFETY: a valid program.
            status(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) })
                .expect("a filter");
        });
    }

    /// Puts it in place by `seccomp`.
    pub fn by_seccomp(self) {
        self.put(|program| {
            // SAFETY: a valid program.
            let result =
                unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, program) };
            assert_eq!(result, 0, "a filter: {}", super::Errno::last());
        });
    }

    /// Puts it in place unseen by anything that is preloaded, as if it had been there when the program began.
    pub fn from_outside(self) {
        self.put(|program| {
            let result: isize;
            // SAFETY: the kernel's calling convention, and a valid program.
            unsafe {
                core::arch::asm!(
                    "syscall",
                    inlateout("rax") libc::SYS_seccomp as isize => result,
                    in("rdi") libc::SECCOMP_SET_MODE_FILTER, in("rsi") 0, in("rdx") program,
                    lateout("rcx") _, lateout("r11") _,
                );
            }
            assert_eq!(result, 0, "a filter");
        });
    }

    fn put(mut self, put: impl FnOnce(*const libc::sock_fprog)) {
        // SAFETY: no memory is involved.
        status(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).expect("no new privileges");
        let len = u16::try_from(self.steps.len()).expect("a short program");
        let program = libc::sock_fprog { len, filter: self.steps.as_mut_ptr() };
        put(&raw const program);
    }
}
