//! An agent for programs that want one: started when CONVOY_FABRIC names a provider and none is there. Whatever comes
//! of it, the program starts.

use crate::contact;
use convoy_runtime::config::{Fabric, LogLevel, Settings};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the program waits for its agent.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);
/// An agent that nobody has needed for so many seconds ends.
const IDLE_EXIT: &str = "600";
/// Where the key is, below the home directory.
const KEY: &str = ".config/convoy/key";

/// Starts an agent if this program wants one and there is none; says in one line why not.
pub(super) fn ensure(settings: &Settings, given: &[(String, String)]) {
    if !settings.enabled
        || !matches!(settings.fabric, Fabric::Provider(_))
        || contact::find(settings).is_some()
    {
        return;
    }
    if let Err(reason) = start(settings, given)
        && settings.log >= LogLevel::Warn
    {
        eprintln!("convoy: warn: connections to other hosts are not accelerated: {reason}");
    }
}

fn start(settings: &Settings, given: &[(String, String)]) -> Result<(), String> {
    let trust = trust(std::env::var_os("HOME").as_deref(), settings.agent_insecure)?;
    let (log, path) =
        log(settings).map_err(|error| format!("the agent has no place for its log: {error}"))?;
    let command = std::env::current_exe().map_err(|error| format!("no agent can be started: {error}"))?;
    let mut agent = Command::new(command);
    agent.args(["agent", "--background", "--idle-exit", IDLE_EXIT]).args(trust);
    agent.envs(given.iter().map(|(name, value)| (name, value))).env_remove("LD_PRELOAD");
    agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = agent.spawn().map_err(|error| format!("no agent can be started: {error}"))?;
    match wait(&mut child) {
        Some(status) if status.success() => Ok(()),
        _ if contact::find(settings).is_some() => Ok(()),
        _ => Err(format!("the agent has not started, see {}", path.display())),
    }
}

/// How the agent knows others: by the user's key, or not at all where that was said to be right.
fn trust(home: Option<&OsStr>, insecure: bool) -> Result<Vec<OsString>, String> {
    let key = home.filter(|home| !home.is_empty()).map(|home| Path::new(home).join(KEY));
    match key {
        Some(key) if key.exists() => Ok(vec!["--key".into(), key.into()]),
        _ if insecure => Ok(vec!["--insecure".into()]),
        _ => Err(format!(
            "no agent runs here, and there is no key for one: 'convoy agent --new-key ~/{KEY}' makes it, to be copied \
             to all hosts (CONVOY_AGENT_INSECURE=1 does without)"
        )),
    }
}

/// The agent's log, in the user's directory, which is nobody else's.
fn log(settings: &Settings) -> io::Result<(File, PathBuf)> {
    let user = rustix::process::geteuid().as_raw();
    let base = Path::new(OsStr::from_bytes(settings.directory.to_bytes()));
    let directory = base.join(format!("convoy-{user}"));
    // It may be there already.
    let _ = DirBuilder::new().mode(0o700).create(&directory);
    let about = fs::symlink_metadata(&directory)?;
    if !about.is_dir() || about.uid() != user || about.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not a directory of yours alone", directory.display())));
    }
    let path = directory.join("agent.log");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    Ok((file, path))
}

/// Waits for the process that starts the agent. It is gone in the end, so that the program has no child that it does
/// not know; the agent itself goes on.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(PAUSE);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn without_a_key_it_must_be_allowed() {
        let home = std::env::temp_dir().join(format!("convoy-home-{}", std::process::id()));
        let of = |insecure| trust(Some(home.as_os_str()), insecure);
        assert!(of(false).unwrap_err().contains("--new-key"));
        assert_eq!(of(true).unwrap(), ["--insecure"]);
        assert!(trust(None, false).is_err());
        fs::create_dir_all(home.join(".config/convoy")).unwrap();
        fs::write(home.join(KEY), "").unwrap();
        let key = home.join(KEY).into_os_string();
        assert_eq!(of(true).unwrap(), ["--key".into(), key], "a key is used where there is one");
        fs::remove_dir_all(&home).unwrap();
    }
}
