//! Opening everything.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use convoy_tests::kit::to_agent;

/// Descriptors of a process that are tried one by one: its list may be closed, but a number can be guessed.
const NUMBERS: i32 = 64;

#[derive(Default)]
struct Look {
    tried: u32,
}

/// See the table of the program.
pub fn look(directory: &Path, pids: &[&str]) {
    let mut look = Look::default();
    look.below(directory);
    pids.iter().for_each(|pid| look.process(pid));
    look.sockets_without_files();
    println!("tried {}", look.tried);
}

impl Look {
    fn tried(&mut self, got: bool, what: &str, of: &Path) {
        self.tried += 1;
        if got {
            println!("got {what} {}", of.display());
        }
    }

    /// Everything in a directory, which itself may be everybody's.
    fn below(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let kind = about.file_type();
            if kind.is_dir() {
                self.tried(fs::read_dir(&path).is_ok(), "names", &path);
                self.tried(is_writable(&path), "a place for files", &path);
                // Without the names they can be guessed, and lengths be asked for.
                for name in ["registry", "agent", "4026531836.registry"] {
                    let guess = path.join(name);
                    let answered = fs::metadata(&guess)
                        .map_or_else(|error| error.raw_os_error() != Some(libc::EACCES), |_| true);
                    let listed = fs::read_dir(&path).is_ok();
                    self.tried(answered && !listed, "a length", &guess);
                }
                self.below(&path);
            } else if kind.is_socket() {
                let stream = to_agent::connect(&path, libc::SOCK_STREAM);
                let packets = to_agent::connect(&path, libc::SOCK_SEQPACKET);
                self.tried(stream.or(packets).is_some(), "a connection", &path);
            } else {
                self.tried(open(&path, false), "contents", &path);
                self.tried(open(&path, true), "a writer", &path);
            }
        }
    }

    /// What /proc and the calls for debuggers give of a process.
    fn process(&mut self, pid: &str) {
        let place = Path::new("/proc").join(pid);
        for name in ["fd", "map_files", "fdinfo"] {
            let names = fs::read_dir(place.join(name)).map(Iterator::count);
            self.tried(names.is_ok_and(|count| count > 0), "names", &place.join(name));
        }
        for name in ["maps", "environ", "smaps", "stack", "syscall"] {
            let text = fs::read(place.join(name)).unwrap_or_default();
            self.tried(!text.is_empty(), "contents", &place.join(name));
        }
        self.tried(open(&place.join("mem"), true), "a writer", &place.join("mem"));
        self.tried(fs::read_link(place.join("exe")).is_ok(), "the path", &place.join("exe"));
        for number in 0..NUMBERS {
            let path = place.join(format!("fd/{number}"));
            self.tried(open(&path, true) || open(&path, false), "a descriptor", &path);
        }
        let id: i32 = pid.parse().unwrap();
        self.tried(can_attach(id), "ptrace", &place);
        self.tried(can_read_memory(id), "process_vm_readv", &place);
        self.tried(can_copy_descriptor(id), "pidfd_getfd", &place);
    }

    /// Names of sockets that have none in a file system: none should have to do with Convoy.
    fn sockets_without_files(&mut self) {
        let list = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for line in list.lines() {
            let name = line.split_whitespace().nth(7).unwrap_or_default();
            self.tried(
                name.starts_with('@') && name.contains("convoy"),
                "an abstract socket",
                Path::new(name),
            );
        }
    }
}

fn open(path: &Path, write: bool) -> bool {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path).is_ok()
}

fn is_writable(path: &Path) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a valid path.
    unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
}

fn can_attach(pid: i32) -> bool {
    // SAFETY: no pointers.
    unsafe {
        let attached = libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0;
        if attached {
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
            libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
        }
        attached
    }
}

/// The first word of the first mapping, or of any address where mappings are usual: what counts is whether it is allowed.
fn can_read_memory(pid: i32) -> bool {
    let mut word = [0_u8; 8];
    let here = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: word.len() };
    let there = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: word.len() };
    // SAFETY: one local and one remote buffer; the remote address is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    // The address is wrong, which is said only to those who may ask.
    read >= 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

fn can_copy_descriptor(pid: i32) -> bool {
    let Ok(own) = File::open("/dev/null") else { return false };
    // SAFETY: no pointers; what is got is closed with this process.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(process != i64::from(own.as_raw_fd()));
        process >= 0
            && (0..NUMBERS).any(|number| libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) >= 0)
    }
}
