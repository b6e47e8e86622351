//! Whether LD_PRELOAD takes effect in a program: its kind, its interpreter and its privileges.

use super::Findings;
use super::elf::{self, Sanitizer};
use crate::Failure;
use crate::cli::USAGE;
use object::elf::{EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, Machine};
use rustix::fs::Access;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest chain of scripts; the kernel has a similar limit.
const DEEPEST: usize = 5;
/// As much of the first line of a script as the kernel looks at.
const FIRST_LINE: u64 = 256;

const OWN_MACHINE: Machine = if cfg!(target_arch = "x86_64") { EM_X86_64 } else { EM_AARCH64 };
/// Topics of what is said about sanitizers.
pub(super) const ADDRESS_SANITIZER: &str = "AddressSanitizer";
const THREAD_SANITIZER: &str = "ThreadSanitizer";
const OWN_LIBC: &str = if cfg!(target_env = "musl") { "musl" } else { "glibc" };

/// The path of a program, and what there is to say about it.
///
/// # Errors
/// There is no such program, or it cannot be executed.
pub(super) fn examine(name: &Path) -> Result<(String, Findings), Failure> {
    let path = find(name)?;
    let mut findings = Findings::default();
    look(&path, &mut findings, DEEPEST);
    Ok((path.display().to_string(), findings))
}

/// A path as it is, a name as execvp(3) finds it.
fn find(name: &Path) -> Result<PathBuf, Failure> {
    let usage = |line: String| Failure::new(USAGE, line);
    if name.as_os_str().as_bytes().contains(&b'/') {
        let meta = fs::metadata(name).map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound;
            let reason = if missing { "there is no such file".to_owned() } else { error.to_string() };
            usage(format!("'{}': {reason}", name.display()))
        })?;
        if !meta.is_file() || rustix::fs::access(name, Access::EXEC_OK).is_err() {
            return Err(usage(format!("'{}' is not an executable file", name.display())));
        }
        return Ok(name.to_path_buf());
    }
    in_path(name).ok_or_else(|| usage(format!("there is no program '{}' in PATH", name.display())))
}

fn in_path(name: &Path) -> Option<PathBuf> {
    if name.as_os_str().is_empty() {
        return None;
    }
    let list = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&list).map(|directory| directory.join(name));
    candidates.find(|path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok())
}

fn look(path: &Path, findings: &mut Findings, depth: usize) {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return findings.no("readable", format!("{} cannot be read: {error}", path.display())),
    };
    match interpreter_line(&file) {
        Some(line) => script(&line, findings, depth),
        None => {
            binary(file, findings);
            privileges(path, findings);
        }
    }
}

/// What stands behind `#!` in the first line.
fn interpreter_line(file: &File) -> Option<String> {
    let mut start = Vec::new();
    file.take(FIRST_LINE).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

fn script(line: &str, findings: &mut Findings, depth: usize) {
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return findings.no("script", "it begins with #! but names no interpreter");
    };
    findings.fine("script", format!("it is a script for {line}; what counts is the interpreter"));
    // env(1) is only the way to the interpreter: it passes the environment on.
    let target = if interpreter.ends_with("/env") {
        words.find(|word| !word.starts_with('-') && !word.contains('='))
    } else {
        Some(interpreter)
    };
    let found = target.map(Path::new).map(find);
    match found {
        Some(Ok(path)) if depth > 0 => look(&path, findings, depth - 1),
        Some(Ok(_)) => findings.no("script", "too many scripts call one another"),
        Some(Err(failure)) => findings.no("script", format!("its interpreter is missing: {}", failure.line)),
        None => findings.no("script", "it names no interpreter"),
    }
}

fn binary(file: File, findings: &mut Findings) {
    let facts = match elf::read(file) {
        Ok(facts) => facts,
        Err(reason) => return findings.no("format", reason),
    };
    let kind = format!("{}-bit {}", facts.bits, machine(facts.machine));
    if facts.bits == 64 && facts.machine == OWN_MACHINE {
        findings.fine("processor", kind);
    } else {
        let text = format!("it is made for {kind}, libconvoy.so for 64-bit {}", machine(OWN_MACHINE));
        let ignores = facts.interpreter.as_deref().is_none_or(|path| libc_of(path) == Some(OWN_LIBC));
        if ignores { findings.no("processor", text) } else { findings.never("processor", text) }
    }
    if facts.go {
        findings.no(
            "language",
            "it is a Go program: Go calls the kernel itself, past libc, so nothing can be intercepted",
        );
    }
    let Some(interpreter) = facts.interpreter else {
        return findings.no("linking", "it is statically linked: LD_PRELOAD has no effect");
    };
    linking(&interpreter, findings);
    if let Some(kind) = facts.sanitizer {
        sanitizer(kind, findings);
    }
    if facts.sockets == Some(false) {
        findings.note("sockets", "it makes no socket calls itself; libraries or modules that it loads may");
    }
}

fn linking(interpreter: &str, findings: &mut Findings) {
    let libc = libc_of(interpreter);
    if !Path::new(interpreter).exists() {
        findings
            .no("linking", format!("its dynamic linker {interpreter} is missing: it cannot be started here"));
    } else if libc == Some(OWN_LIBC) {
        findings.fine("linking", format!("dynamically linked, {OWN_LIBC} ({interpreter})"));
    } else {
        let libc = libc.unwrap_or("a libc that Convoy does not know");
        let text = format!(
            "it uses {libc} ({interpreter}), libconvoy.so is made for {OWN_LIBC}: with that in LD_PRELOAD it does not \
             start ('convoy run' leaves it out)"
        );
        findings.never("linking", text);
    }
}

fn sanitizer(kind: Sanitizer, findings: &mut Findings) {
    match kind {
        Sanitizer::Address => findings.note(
            ADDRESS_SANITIZER,
            "its library wants to be the first: 'convoy run' sets ASAN_OPTIONS=verify_asan_link_order=0, without which \
             the program does not start",
        ),
        Sanitizer::Thread => findings.note(
            THREAD_SANITIZER,
            "set TSAN_OPTIONS=ignore_noninstrumented_modules=1, or it reports what goes on inside libconvoy.so",
        ),
    }
}

fn libc_of(interpreter: &str) -> Option<&'static str> {
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    if name.starts_with("ld-musl") {
        Some("musl")
    } else if name.starts_with("ld-linux") || name.starts_with("ld64") || name.starts_with("ld-2") {
        Some("glibc")
    } else {
        None
    }
}

fn machine(number: Machine) -> String {
    match number {
        EM_X86_64 => "x86-64".to_owned(),
        EM_AARCH64 => "ARM".to_owned(),
        EM_386 => "x86".to_owned(),
        EM_ARM => "ARM".to_owned(),
        EM_RISCV => "RISC-V".to_owned(),
        Machine(other) => format!("processor number {other}"),
    }
}

/// The dynamic linker ignores LD_PRELOAD in a program that gets more rights than whoever starts it.
fn privileges(path: &Path, findings: &mut Findings) {
    const SET_UID: u32 = 0o4000;
    const SET_GID: u32 = 0o2010;
    let Ok(meta) = fs::metadata(path) else { return };
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let set_user = meta.mode() & SET_UID != 0;
    // Without the group's execute bit the bit means mandatory locking, not privilege.
    let set_group = meta.mode() & SET_GID == SET_GID;
    let capabilities = rustix::fs::getxattr(path, "security.capability", &mut [0u8; 64]).is_ok();
    let mut gained = Vec::new();
    if set_user && meta.uid() != user {
        gained.push(format!("it is setuid to user {}", meta.uid()));
    }
    if set_group && meta.gid() != group {
        gained.push(format!("it is setgid to group {}", meta.gid()));
    }
    if capabilities && user != 0 {
        gained.push("it has file capabilities".to_owned());
    }
    if !gained.is_empty() {
        findings.no("privileges", format!("{}: LD_PRELOAD has no effect in it", gained.join(" and ")));
    } else if set_user || set_group || capabilities {
        findings.note(
            "privileges",
            "it gains rights when other users start it; for them it would not be accelerated",
        );
    } else {
        findings.fine("privileges", "none beyond those of whoever starts it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_linkers_tell_the_libc() {
        assert_eq!(libc_of("/lib64/ld-linux-x86-64.so.2"), Some("glibc"));
        assert_eq!(libc_of("/lib/ld-linux-aarch64.so.1"), Some("glibc"));
        assert_eq!(libc_of("/lib/ld-musl-x86_64.so.1"), Some("musl"));
        assert_eq!(libc_of("/system/bin/linker64"), None);
    }

    #[test]
    fn what_is_missing_is_wrong_usage() {
        for name in ["/nonexistent/x", "no-such-program-anywhere", "/", ""] {
            assert!(find(Path::new(name)).is_err_and(|failure| failure.status == USAGE), "{name}");
        }
    }
}
