//! `--name value` arguments of the load programs; the driver's command line is richer and lives there.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

/// Which half of a load program this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// The arguments of one load program.
pub struct Args {
    values: BTreeMap<String, String>,
}

impl Args {
    /// Reads the process's own arguments.
    ///
    /// # Errors
    /// An argument that is not `--name value`.
    pub fn from_env() -> Result<Self> {
        let mut values = BTreeMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                bail!("unexpected argument {word:?}: arguments are --name value");
            };
            let value = words.next().ok_or_else(|| anyhow!("--{name} needs a value"))?;
            values.insert(name.to_owned(), value);
        }
        Ok(Self { values })
    }

    /// The value of `--name`, or `default` when it was not given.
    ///
    /// # Errors
    /// A value that does not parse.
    pub fn get<T>(&self, name: &str, default: T) -> Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.values.get(name) {
            None => Ok(default),
            Some(text) => text.parse().with_context(|| format!("--{name} {text:?}")),
        }
    }

    /// The value of `--name` as text.
    ///
    /// # Errors
    /// The argument is missing.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.values.get(name).map(String::as_str).ok_or_else(|| anyhow!("--{name} is missing"))
    }

    /// `--role server|client`.
    ///
    /// # Errors
    /// Missing or another word.
    pub fn role(&self) -> Result<Role> {
        match self.text("role")? {
            "server" => Ok(Role::Server),
            "client" => Ok(Role::Client),
            other => bail!("--role {other:?}: server or client"),
        }
    }
}
