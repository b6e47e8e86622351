//! Another user's identity for a server that refuses to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// User and group numbers.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account called `name` when this process is root; `None` when it is an ordinary user already.
    pub(crate) fn unprivileged(name: &str) -> Result<Option<Self>> {
        // SAFETY: no arguments, no failure.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(None);
        }
        let text = std::fs::read_to_string("/etc/passwd")?;
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let mut fields = line.with_context(|| format!("no user called {name}"))?.split(':').skip(2);
        let mut number =
            || fields.next().and_then(|field| field.parse().ok()).context("a malformed /etc/passwd");
        Ok(Some(Self { user: number()?, group: number()? }))
    }

    /// Makes `path` this account's.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        Ok(chown(path, Some(self.user), Some(self.group))?)
    }

    /// Makes `command` run under this account.
    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }
}
