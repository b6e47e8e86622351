//! `convoy run`: the environment for a program under Convoy, and exec.
//!
//! Not here: an agent for it, if there is none ([`agent`]).

mod agent;

use crate::cli::Run;
use crate::doctor::{self, Prospects};
use crate::{Failure, Outcome};
use convoy_runtime::config::{self, LogLevel, Settings, VARIABLES};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit status when the command itself fails, as with env(1).
pub(crate) const FAILED: u8 = 125;
/// The program is there but cannot be run.
const CANNOT_RUN: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

const LIBRARY: &str = "libconvoy.so";
const PRELOAD: &str = "LD_PRELOAD";
/// Options of AddressSanitizer.
const SANITIZER: &str = "ASAN_OPTIONS";
/// Libraries that have to stay in front: sanitizers look whether they are, and libfaketime stretches the time limits of the
/// calls that it sees first.
const FIRST: [&str; 6] = ["libasan", "liblsan", "libtsan", "libubsan", "libclang_rt.", "libfaketime"];

/// Replaces this process by the program; returns only if that fails.
pub(crate) fn run(options: &Run) -> Outcome {
    let settings: Vec<_> = options.settings.iter().map(|text| setting(text)).collect::<Result<_, _>>()?;
    let library = library(options.library.as_deref())?;
    let Some((program, arguments)) = options.program.split_first() else {
        return Err(Failure::new(FAILED, "which program shall run?"));
    };
    let effective = effective(&settings);
    let prospects = doctor::prospects(Path::new(program));
    warn_of_obstacle(Path::new(program), &effective, &prospects);
    agent::ensure(&effective, &settings);
    let mut command = Command::new(program);
    command.args(arguments).envs(settings);
    let existing = std::env::var_os(PRELOAD);
    if prospects.unloadable {
        let rest = existing.map(|list| without(&library, &list)).filter(|list| !list.is_empty());
        command.env_remove(PRELOAD).envs(rest.map(|list| (PRELOAD, list)));
    } else {
        command.env(PRELOAD, preload(&library, existing.as_deref()));
    }
    if prospects.address_sanitizer {
        command.env(SANITIZER, any_order(std::env::var_os(SANITIZER)));
    }
    let error = command.exec();
    let status = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    Err(Failure::new(status, format!("cannot run '{}': {reason}", program.to_string_lossy())))
}

/// The settings that the program will have, of which the library tells what is wrong.
fn effective(given: &[(String, String)]) -> Settings {
    // The first value of a variable counts.
    let given = given.iter().map(|(name, value)| (name.into(), value.into()));
    config::read(given.chain(std::env::vars_os()).collect()).0
}

/// Says so if the library cannot have any effect in the program, unless CONVOY_LOG wants no warnings.
fn warn_of_obstacle(program: &Path, settings: &Settings, prospects: &Prospects) {
    if settings.log >= LogLevel::Warn
        && let Some(reason) = &prospects.obstacle
    {
        eprintln!("convoy: warn: '{}' will not be accelerated: {reason}", program.display());
    }
}

/// `NAME=VALUE` as a variable of the environment.
fn setting(text: &str) -> Result<(String, String), Failure> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::new(FAILED, format!("--set '{text}' is not of the form NAME=VALUE")));
    };
    let upper = name.trim().to_ascii_uppercase();
    let full = format!("CONVOY_{upper}");
    let known = VARIABLES.iter().find(|variable| variable.name == upper || variable.name == full);
    let Some(variable) = known else {
        let names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        return Err(Failure::new(
            FAILED,
            format!("--set '{text}': there is no setting '{name}'; there are {}", names.join(", ")),
        ));
    };
    config::check(variable.name, value).map_err(|line| Failure::new(FAILED, format!("--set: {line}")))?;
    Ok((variable.name.to_owned(), value.to_owned()))
}

/// The library to load, as an absolute path that LD_PRELOAD can hold.
///
/// # Errors
/// None is there, or its path cannot be written in LD_PRELOAD.
pub(crate) fn library(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let given = given.map(Path::to_path_buf);
    let given = given
        .or_else(|| std::env::var_os("CONVOY_LIBRARY").filter(|path| !path.is_empty()).map(PathBuf::from));
    let path = match given {
        Some(path) if path.is_file() => path,
        Some(path) => {
            return Err(Failure::new(FAILED, format!("there is no library '{}'", path.display())));
        }
        None => installed()?,
    };
    let path = path.canonicalize().unwrap_or(path);
    if path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        return Err(Failure::new(
            FAILED,
            format!(
                "'{}' cannot be preloaded: LD_PRELOAD allows no blank and no ':' in a path",
                path.display()
            ),
        ));
    }
    Ok(path)
}

/// The library that belongs to this command.
fn installed() -> Result<PathBuf, Failure> {
    let command = std::env::current_exe().unwrap_or_default();
    let directory = command.parent().unwrap_or(Path::new("/"));
    let places = [
        directory.join(LIBRARY),
        directory.join("../lib/convoy").join(LIBRARY),
        directory.join("../lib").join(LIBRARY),
    ];
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let directory = directory.display();
        Failure::new(
            FAILED,
            format!("{LIBRARY} is neither in {directory} nor in {directory}/../lib/convoy; name it with --library PATH"),
        )
    })
}

/// LD_PRELOAD with the library in front of what is there, unless it is there; behind what has to be first.
fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let Some(existing) = existing.filter(|list| !list.is_empty()) else {
        return library.into();
    };
    if entries(existing).any(|entry| entry == library.as_os_str().as_bytes()) {
        return existing.to_owned();
    }
    let first = entries(existing).filter(|entry| stays_first(entry));
    let last = entries(existing).filter(|entry| !stays_first(entry));
    join(first.chain([library.as_os_str().as_bytes()]).chain(last))
}

/// LD_PRELOAD without the library.
fn without(library: &Path, existing: &OsStr) -> OsString {
    join(entries(existing).filter(|entry| *entry != library.as_os_str().as_bytes()))
}

fn entries(list: &OsStr) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|byte| matches!(byte, b' ' | b':')).filter(|entry| !entry.is_empty())
}

fn join<'a>(entries: impl Iterator<Item = &'a [u8]>) -> OsString {
    OsString::from_vec(entries.collect::<Vec<_>>().join(&b':'))
}

fn stays_first(entry: &[u8]) -> bool {
    let name = entry.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    FIRST.iter().any(|first| name.starts_with(first.as_bytes()))
}

/// Options of AddressSanitizer with which its library need not be the first; what the user has said wins.
fn any_order(given: Option<OsString>) -> OsString {
    let mut options = OsString::from("verify_asan_link_order=0");
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        options.push(":");
        options.push(given);
    }
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn settings_are_found_with_and_without_their_prefix() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(setting("SPIN_US=20").unwrap(), pair("CONVOY_SPIN_US", "20"));
        assert_eq!(setting("convoy_spin_us=auto").unwrap(), pair("CONVOY_SPIN_US", "auto"));
        assert_eq!(setting("CONVOY=off").unwrap(), pair("CONVOY", "off"));
        assert_eq!(setting("RULES=-port:22,+prog:a=b").unwrap(), pair("CONVOY_RULES", "-port:22,+prog:a=b"));
    }

    #[test]
    fn wrong_settings_are_one_line() {
        for text in ["SPIN_US", "SPINS=1", "SPIN_US=x", "=1"] {
            let failure = setting(text).unwrap_err();
            assert_eq!(failure.status, FAILED);
            assert!(!failure.line.contains('\n'));
        }
        assert!(setting("SPIN_US=x").unwrap_err().line.contains("CONVOY_SPIN_US"));
    }

    #[test]
    fn an_existing_preload_stays() {
        let library = Path::new("/x/libconvoy.so");
        assert_eq!(preload(library, None), "/x/libconvoy.so");
        assert_eq!(preload(library, Some(OsStr::new(""))), "/x/libconvoy.so");
        assert_eq!(preload(library, Some(OsStr::new("a.so b.so"))), "/x/libconvoy.so:a.so:b.so");
        assert_eq!(preload(library, Some(OsStr::new("a.so /x/libconvoy.so"))), "a.so /x/libconvoy.so");
    }

    #[test]
    fn what_has_to_be_first_stays_first() {
        let library = Path::new("/x/libconvoy.so");
        let list = preload(library, Some(OsStr::new("a.so:/y/libasan.so.8")));
        assert_eq!(list, "/y/libasan.so.8:/x/libconvoy.so:a.so");
        let list = preload(library, Some(OsStr::new("libfaketime.so.1 b.so")));
        assert_eq!(list, "libfaketime.so.1:/x/libconvoy.so:b.so");
    }

    #[test]
    fn the_library_can_be_left_out() {
        let library = Path::new("/x/libconvoy.so");
        assert_eq!(without(library, OsStr::new("/x/libconvoy.so")), "");
        assert_eq!(without(library, OsStr::new("a.so /x/libconvoy.so:b.so")), "a.so:b.so");
    }
}
