//! Whether this machine, as this user sees it, is fit for Convoy.

use super::Findings;
use crate::run;
use convoy_runtime::config::{Fabric, settings};
use convoy_runtime::sys;
use rustix::fs::{MemfdFlags, OFlags};
use rustix::process::Resource;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// The registry and the counters of some hundred processes.
const DIRECTORY_ENOUGH: u64 = 16 * MIB;
const DIRECTORY_LEAST: u64 = MIB;
/// Memory of one channel with the default settings, generously.
const MEMORY_LEAST: u64 = 16 * MIB;
/// Convoy's own descriptors in a process with many peers.
const DESCRIPTORS_ENOUGH: u64 = 1024;
/// First kernel with epoll_pwait2, without which waits are rounded up to milliseconds; nothing older has been tried.
const KERNEL_LEAST: (u32, u32) = (5, 11);

pub(super) fn examine(given: Option<&Path>) -> Findings {
    let mut findings = Findings::default();
    library(given, &mut findings);
    switched_off(&mut findings);
    kernel(&mut findings);
    directory(&mut findings);
    memory(&mut findings);
    descriptors(&mut findings);
    processors(&mut findings);
    others(&mut findings);
    findings
}

fn library(given: Option<&Path>, findings: &mut Findings) {
    match run::library(given) {
        Ok(path) => findings.fine("library", path.display().to_string()),
        Err(failure) => findings.no("library", failure.line),
    }
}

fn switched_off(findings: &mut Findings) {
    if !settings().enabled {
        findings.no("settings", "CONVOY=off: Convoy does nothing");
    } else if settings().fabric == Fabric::Off {
        findings.no("settings", "CONVOY_FABRIC=off: every connection stays on the kernel");
    }
}

fn kernel(findings: &mut Findings) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let (major, minor) = KERNEL_LEAST;
    match version(&release) {
        Some(version) if version >= KERNEL_LEAST => findings.fine("kernel", format!("Linux {release}")),
        _ => findings.no("kernel", format!("Linux {release} is older than {major}.{minor}")),
    }
    match memory_file() {
        Ok(()) => findings.fine("shared memory", "memory files can be made and reserved"),
        Err(errno) => findings.no("shared memory", format!("memory files cannot be made: {}", reason(errno))),
    }
}

/// The first two numbers of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Tries what a channel needs.
fn memory_file() -> sys::Answer<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = sys::memfd_create(c"convoy-doctor", flags.bits())?;
    let result = sys::ftruncate(fd, MIB).and_then(|()| sys::fallocate(fd, 0, 0, MIB));
    let _ = sys::close(fd);
    result
}

fn directory(findings: &mut Findings) {
    let base = Path::new(OsStr::from_bytes(settings().directory.to_bytes()));
    let shown = base.display();
    if let Err(errno) = trial(base) {
        return findings.no("directory", format!("no file can be made in {shown}: {}", reason(errno)));
    }
    let user = rustix::process::geteuid().as_raw();
    let own = base.join(format!("convoy-{user}"));
    if let Ok(meta) = fs::symlink_metadata(&own)
        && (!meta.is_dir() || meta.uid() != user || meta.mode() & 0o077 != 0)
    {
        return findings
            .no("directory", format!("{} is not a directory of yours alone (mode 0700)", own.display()));
    }
    match rustix::fs::statvfs(base) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let text = format!("{shown} is writable, {} MiB free", free / MIB);
            match free {
                DIRECTORY_ENOUGH.. => findings.fine("directory", text),
                DIRECTORY_LEAST.. => findings.note("directory", format!("{text}: little, mount it larger")),
                _ => findings.no("directory", format!("{text}: too little, mount it larger")),
            }
        }
        Err(error) => findings.no("directory", format!("{shown}: {error}")),
    }
}

/// Makes and removes a file, as a process under Convoy would.
fn trial(base: &Path) -> sys::Answer<()> {
    let name = format!(".convoy-doctor-{}", std::process::id());
    let path = CString::new(base.join(name).into_os_string().as_bytes()).unwrap_or_default();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let fd = sys::open(&path, flags.bits().cast_signed(), 0o600)?;
    let _ = sys::close(fd);
    sys::unlink(&path)
}

fn memory(findings: &mut Findings) {
    let limit = settings().memory_limit;
    let available = meminfo("MemAvailable:");
    let group = cgroup_room();
    let room = [available, group].into_iter().flatten().min();
    let Some(room) = room else { return };
    let text =
        format!("{} MiB available, CONVOY_MEMORY_LIMIT is {} MiB per process", room / MIB, limit / MIB);
    if room < MEMORY_LEAST {
        findings.no("memory", format!("{text}: too little for a channel"));
    } else if room < limit {
        findings.note("memory", format!("{text}: lower the limit"));
    } else {
        findings.fine("memory", text);
    }
    let space = rustix::process::getrlimit(Resource::As).current;
    if space.is_some_and(|bytes| bytes < limit.saturating_mul(2)) {
        findings.note(
            "memory",
            "the address space is limited (ulimit -v): connections that find none stay on the kernel",
        );
    }
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Bytes that the memory limit of this control group (version 2) leaves.
fn cgroup_room() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |file: &str| {
        let path = Path::new("/sys/fs/cgroup").join(path).join(file);
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    number("memory.max").map(|most| most.saturating_sub(number("memory.current").unwrap_or(0)))
}

fn descriptors(findings: &mut Findings) {
    match rustix::process::getrlimit(Resource::Nofile).current {
        Some(most) if most < DESCRIPTORS_ENOUGH => {
            findings
                .note("descriptors", format!("a process may have {most} only; raise it with 'ulimit -n'"));
        }
        Some(most) => findings.fine("descriptors", format!("a process may have {most}")),
        None => findings.fine("descriptors", "a process may have any number"),
    }
}

fn processors(findings: &mut Findings) {
    match sys::usable_cpus().iter().map(|word| word.count_ones()).sum::<u32>() {
        0 | 1 => findings
            .note("processors", "1: waiting programs hand it to each other, so that round trips gain less"),
        count => findings.fine("processors", count.to_string()),
    }
}

/// What keeps two processes apart.
fn others(findings: &mut Findings) {
    let user = rustix::process::geteuid().as_raw();
    findings.note(
        "other users",
        format!("only programs of one user meet (this is user {user}); others stay on the kernel"),
    );
    let entry = format!("/proc/{}/fd/0", std::process::id());
    if sys::dumpable() && fs::symlink_metadata(&entry).is_err() {
        findings.no("/proc", "processes cannot see one another's descriptors there: is /proc mounted?");
    } else if !sys::dumpable() {
        findings.note(
            "/proc",
            "processes of this user are not dumpable and cannot hand memory to one another (prctl(2))",
        );
    }
    if fs::metadata("/etc/ld.so.preload").is_ok_and(|meta| meta.len() > 0) {
        findings.note("preload", "/etc/ld.so.preload loads something into every program as well");
    }
}

fn reason(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_understood() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.11.0"), Some((5, 11)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
        assert!(version("5.10.9") < Some(KERNEL_LEAST));
    }
}
