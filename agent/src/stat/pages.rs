//! Finding the pages of counters of this user's processes, and removing those of dead ones.

use super::NONE;
use crate::Failure;
use convoy_runtime::config::settings;
use convoy_runtime::stats::{self, Snapshot};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The pages of living processes (or of one), by process id.
///
/// # Errors
/// The user's directory cannot be read, or is not only this user's.
pub(crate) fn find(pid: Option<u32>) -> Result<Vec<Snapshot>, Failure> {
    let directory = directory();
    if !usable(&directory)? {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
    let names = entries.flatten().filter(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_file())
            && owner(&entry.file_name()).is_some_and(|owner| pid.is_none_or(|pid| pid == owner))
    });
    let mut found: Vec<Snapshot> = names.filter_map(|entry| living(entry.path())).collect();
    found.sort_by_key(|page| (page.pid, page.start_time));
    Ok(found)
}

/// The file with a living process's page, and when that process started.
///
/// # Errors
/// As for [`find`].
pub(crate) fn find_one(pid: u32) -> Result<Option<(PathBuf, u64)>, Failure> {
    let directory = directory();
    if !usable(&directory)? {
        return Ok(None);
    }
    let entries = fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
    let mut paths = entries.flatten().filter(|entry| owner(&entry.file_name()) == Some(pid));
    Ok(paths.find_map(|entry| living(entry.path()).map(|page| (entry.path(), page.start_time))))
}

/// The registries of this user: one for each pid namespace and layout.
///
/// # Errors
/// As for [`find`].
pub(crate) fn registries() -> Result<Vec<PathBuf>, Failure> {
    let directory = directory();
    if !usable(&directory)? {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
    let files = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let paths = files.map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "registry")).collect())
}

/// Where this user's processes meet.
fn directory() -> PathBuf {
    let base = OsStr::from_bytes(settings().directory.to_bytes());
    Path::new(base).join(format!("convoy-{}", rustix::process::geteuid().as_raw()))
}

/// False if it does not exist yet. It must be a directory of this user alone: what is in it gets swept.
fn usable(directory: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unreadable(directory, &error)),
        Ok(meta) => {
            let ours = meta.is_dir()
                && meta.uid() == rustix::process::geteuid().as_raw()
                && meta.mode() & 0o077 == 0;
            let line = || format!("'{}' is not a directory of yours alone", directory.display());
            if ours { Ok(true) } else { Err(Failure::new(NONE, line())) }
        }
    }
}

fn unreadable(directory: &Path, error: &std::io::Error) -> Failure {
    Failure::new(NONE, format!("cannot read '{}': {error}", directory.display()))
}

/// The process id in a name like `SCOPE.stats.PID`.
fn owner(name: &OsStr) -> Option<u32> {
    let (front, pid) = name.to_str()?.rsplit_once('.')?;
    if front.ends_with(".stats") { pid.parse().ok() } else { None }
}

/// The page in a file, if its process lives; the file of a dead process is removed.
fn living(path: PathBuf) -> Option<Snapshot> {
    let path = CString::new(path.into_os_string().into_vec()).ok()?;
    let page = stats::read(&path).ok()?;
    if page.alive() {
        return Some(page);
    }
    let _ = fs::remove_file(OsStr::from_bytes(path.to_bytes()));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_its_name() {
        assert_eq!(owner(OsStr::new("4026531836.stats.17")), Some(17));
        assert_eq!(owner(OsStr::new("4026531836.bell.17")), None);
        assert_eq!(owner(OsStr::new("x.stats.")), None);
        assert_eq!(owner(OsStr::new("registry")), None);
    }
}
