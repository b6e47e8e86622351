//! Printing to standard output, also where nobody reads it to the end.

use crate::Failure;
use std::io::{self, ErrorKind, Write};

/// Writes a text; a reader that has gone away (`| head`) ends the command quietly with status 0.
///
/// # Errors
/// Any other error of writing, with status 1.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(1, format!("cannot write to standard output: {error}"))),
    }
}
