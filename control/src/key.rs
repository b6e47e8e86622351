//! The key that all agents of one installation share: 32 random bytes in a file of one line of hex.
//! Lives here: making and reading the file. Not here: what the key proves ([`crate::secure`]).

use crate::hex;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes in a key.
pub const KEY_BYTES: usize = 32;

/// A shared key. The memory is wiped when it is dropped, and it is never printed.
#[derive(Clone)]
pub struct Key(Box<Zeroizing<[u8; KEY_BYTES]>>);

/// Why a key file cannot be used or made: one line that names the file and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// The file cannot be read; it is not a regular file; group or others have any right to it; it belongs
    /// to neither root nor the caller; it is not 64 hex digits; all its bytes are equal.
    pub fn read(path: &Path) -> Result<Key, KeyError> {
        let shown = path.display();
        let failed = |error: io::Error| KeyError(format!("key file {shown}: {error}"));
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(KeyError(format!("key file {shown}: not a regular file")));
        }
        let caller = rustix::process::geteuid().as_raw();
        if facts.uid() != 0 && facts.uid() != caller {
            return Err(KeyError(format!(
                "key file {shown} belongs to user {}, who could change it: run 'chown root {shown}'",
                facts.uid()
            )));
        }
        if facts.mode() & 0o077 != 0 {
            return Err(KeyError(format!(
                "key file {shown} is open to group or others (mode {:04o}): run 'chmod 600 {shown}'",
                facts.mode() & 0o7777
            )));
        }
        Key::parse(&mut file).map_err(|why| KeyError(format!("key file {shown}: {why}")))
    }

    fn parse(file: &mut File) -> Result<Key, String> {
        const ADVICE: &str =
            "expected one line of 64 hex digits; make a new key file and copy it to all hosts";
        // One byte more than the longest valid content, to tell longer files.
        let mut text = Zeroizing::new([0u8; KEY_BYTES * 2 + 3]);
        let mut filled = 0;
        while filled < text.len() {
            match file.read(&mut text[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let line = &text[..filled];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut key = Key(Box::new(Zeroizing::new([0; KEY_BYTES])));
        if !hex::decode_into(line, &mut **key.0) {
            return Err(ADVICE.to_owned());
        }
        if key.0.iter().all(|byte| *byte == key.0[0]) {
            return Err(format!("all bytes are equal, which is not a random key; {ADVICE}"));
        }
        Ok(key)
    }

    /// Makes the key file `path` with a new random key, readable and writable by its owner only.
    ///
    /// # Errors
    /// The file exists or cannot be written, or the kernel gives no random bytes. Nothing is left behind.
    pub fn create(path: &Path) -> Result<Key, KeyError> {
        let shown = path.display();
        let mut key = Key(Box::new(Zeroizing::new([0; KEY_BYTES])));
        getrandom::fill(&mut **key.0)
            .map_err(|error| KeyError(format!("key file {shown}: no random bytes: {error}")))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
                let existing = error.kind() == io::ErrorKind::AlreadyExists;
                let hint = if existing { "; remove it first if it is to be replaced" } else { "" };
                KeyError(format!("key file {shown}: {error}{hint}"))
            })?;
        let line = Zeroizing::new(hex::encode(&**key.0));
        let written = file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| file.sync_all()) {
            let _ = std::fs::remove_file(path);
            return Err(KeyError(format!("key file {shown}: {error}")));
        }
        Ok(key)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}
