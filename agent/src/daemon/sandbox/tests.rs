//! In a process of its own, because nothing of this can be taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code)]

use super::*;
use std::ffi::c_long;
use std::process::Command;

/// Tells this test that it is the process of its own.
const INSIDE: &str = "TEST_SANDBOX_INSIDE";
const NAME: &str = "daemon::sandbox::tests::what_is_forbidden_is_refused_and_the_rest_goes_on";

#[test]
fn what_is_forbidden_is_refused_and_the_rest_goes_on() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all refused"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn inside() {
    // A thread that was there before, as those of libfabric are.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let before = std::thread::spawn(move || asked.recv().map(|()| refused_calls()).unwrap());
    let kept = drop_rights(Rights::needed(4792)).unwrap();
    let present = rustix::thread::capabilities(None).unwrap();
    assert_eq!((present.effective, present.permitted), (kept.0, kept.0));
    assert!(present.inheritable.is_empty());
    assert!(!kept.0.contains(CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_ADMIN));
    assert!(confine().unwrap() > 100);
    ask.send(()).unwrap();
    assert_eq!(before.join().unwrap(), Vec::<&str>::new(), "allowed in a thread that was there before");
    assert_eq!(refused_calls(), Vec::<&str>::new(), "allowed");
    // And what is needed.
    let later = std::thread::spawn(|| std::fs::read_to_string("/proc/self/status").unwrap());
    let status = later.join().expect("threads can be made");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    println!("all refused");
}

/// The names of forbidden calls that are not refused. None of them could do anything with these arguments.
fn refused_calls() -> Vec<&'static str> {
    let nothing = [0 as c_long; 4];
    let first = |value: c_long| [value, 0, 0, 0];
    let calls: [(&str, c_long, [c_long; 4]); 22] = [
        ("execve", libc::SYS_execve, nothing),
        ("execveat", libc::SYS_execveat, first(-1)),
        ("fork", libc::SYS_fork, nothing),
        ("clone of a process", libc::SYS_clone, first(c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD))),
        ("ptrace", libc::SYS_ptrace, first(-1)),
        ("process_vm_readv", libc::SYS_process_vm_readv, first(-1)),
        ("process_vm_writev", libc::SYS_process_vm_writev, first(-1)),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, first(-1)),
        ("mount", libc::SYS_mount, nothing),
        ("setns", libc::SYS_setns, first(-1)),
        ("unshare", libc::SYS_unshare, first(-1)),
        ("bpf", libc::SYS_bpf, first(-1)),
        ("io_uring_setup", libc::SYS_io_uring_setup, nothing),
        ("init_module", libc::SYS_init_module, nothing),
        ("keyctl", libc::SYS_keyctl, first(-1)),
        ("kill", libc::SYS_kill, [1, 0, 0, 0]),
        ("tgkill of another process", libc::SYS_tgkill, [1, 1, 0, 0]),
        ("setuid", libc::SYS_setuid, first(-1)),
        ("socket of packets", libc::SYS_socket, first(c_long::from(libc::AF_PACKET))),
        ("prctl", libc::SYS_prctl, first(c_long::from(libc::PR_SET_DUMPABLE))),
        ("prlimit64 of another process", libc::SYS_prlimit64, first(1)),
        ("ioctl TIOCSTI", libc::SYS_ioctl, [-1, libc::TIOCSTI as c_long, 0, 0]),
    ];
    let allowed = calls.into_iter().filter(|(_, number, [a, b, c, d])| {
        // SAFETY: no call gets a pointer that is not null, and all are refused or fail before they use one.
        let result = unsafe { libc::syscall(*number, *a, *b, *c, *d) };
        result != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM)
    });
    allowed.map(|(name, ..)| name).collect()
}
