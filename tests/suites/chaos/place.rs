//! What a run may hurt without hurting the machine: a small file system for Convoy's files, a memory cgroup without memory, a
//! clock that is only some programs'.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use convoy_tests::hosts::World;

/// Version 1 of the memory controller, where it is mounted.
const MEMORY: &str = "/sys/fs/cgroup/memory";
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
/// Of the file system for Convoy's files.
const BYTES: &CStr = c"size=8m,mode=1777";

/// Gives this thread, and what it starts, mounts of their own, and a /dev/shm: what killed programs leave there ends with them.
pub fn leave_mounts() {
    let (none, root) = (c"none", c"/");
    // SAFETY: no memory beside two strings.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                none.as_ptr(),
                root.as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && mount_memory(c"/dev/shm", c"mode=1777")
    };
    assert!(done, "mounts of its own: {}", std::io::Error::last_os_error());
}

/// Mounts a tmpfs; false when that is not possible.
fn mount_memory(place: &CStr, options: &CStr) -> bool {
    // SAFETY: strings that live.
    unsafe {
        libc::mount(c"convoy".as_ptr(), place.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) == 0
    }
}

/// The places of one run.
pub struct Place {
    /// Where Convoy's files are; a file system of its own.
    directory: PathBuf,
    cgroup: Option<PathBuf>,
    clock: PathBuf,
}

impl Place {
    pub fn new(world: &World) -> Self {
        let directory = world.directory().to_owned();
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        assert!(mount_memory(&path, BYTES), "a tmpfs: {}", std::io::Error::last_os_error());
        let clock = world.file("clock", "+0");
        Self { directory, cgroup: cgroup(), clock }
    }

    /// Fills the file system; what was there stays usable.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.directory.join("full")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn empty(&self) {
        fs::remove_file(self.directory.join("full")).expect("the file is there");
    }

    /// Whether processes can be made to run out of memory here.
    pub fn has_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// The process gets no more memory: the kernel kills it when it wants some.
    pub fn starve(&self, pid: u32) {
        let place = self.cgroup.as_ref().expect("a cgroup").join("cgroup.procs");
        // It may have ended.
        let _ = fs::write(place, pid.to_string());
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn killed(&self) -> u64 {
        let text = self.cgroup.as_ref().map(|path| fs::read_to_string(path.join("memory.oom_control")));
        let text = text.and_then(Result::ok).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Sets the clock that some clients see, in seconds beside the real one.
    pub fn set_clock(&self, seconds: i64) {
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).expect("a file");
        fs::rename(new, &self.clock).expect("a file");
    }

    /// Puts a command under that clock: CLOCK_REALTIME only. False when libfaketime is not installed.
    pub fn under_clock(&self, command: &mut Command) -> bool {
        let Some(library) = FAKETIME.iter().find(|path| Path::new(path).exists()) else { return false };
        let known = command.get_envs().find(|(name, _)| *name == "LD_PRELOAD").and_then(|(_, value)| value);
        let known = known.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        command.env("LD_PRELOAD", format!("{known} {library}").trim());
        command.env("FAKETIME_TIMESTAMP_FILE", &self.clock).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        true
    }
}

/// A cgroup that gives no memory.
fn cgroup() -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("convoy-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(MEMORY).join(name);
    fs::create_dir(&path).ok()?;
    let made = fs::write(path.join("memory.limit_in_bytes"), "65536").is_ok();
    if !made {
        let _ = fs::remove_dir(&path);
    }
    made.then_some(path)
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = CString::new(self.directory.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that lives.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        if let Some(cgroup) = &self.cgroup {
            // Who was in it has ended; the kernel may need a moment.
            let removed = || fs::remove_dir(cgroup).is_ok();
            let _ = convoy_tests::hosts::until(removed);
        }
    }
}
