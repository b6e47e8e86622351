//! Log lines: `convoy: level: text`, one raw write each, to stderr or the file of CONVOY_LOG.
//!
//! Never called on the data path. A line is formatted into a buffer on the stack, so that logging neither allocates
//! nor takes a lock and may happen in any call. The file is opened for each line: no descriptor is kept.

use crate::config::{LogLevel, LogTarget, settings};
use crate::sys;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

/// Longest line in bytes, with its end; longer ones are cut.
const LINE_BYTES: usize = 512;

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Warn as u8);

/// Lines above this level are dropped.
pub(crate) fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level would be written.
#[inline]
pub fn enabled(level: LogLevel) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line if its level is enabled; use the macros.
#[cold]
pub fn line(level: LogLevel, text: fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    match &settings().log_target {
        LogTarget::Stderr => to_stderr(level, text),
        LogTarget::File(path) => {
            let line = Line::of(level, text);
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
            let _ = sys::with_open(path, flags, 0o600, |fd| sys::write_text(fd, line.bytes()));
        }
    }
}

/// Writes one line to stderr, whatever the level and target.
pub(crate) fn to_stderr(level: LogLevel, text: fmt::Arguments<'_>) {
    let _ = sys::write_text(libc::STDERR_FILENO, Line::of(level, text).bytes());
}

/// A line under construction.
struct Line {
    buffer: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    fn of(level: LogLevel, text: fmt::Arguments<'_>) -> Line {
        let mut line = Line { buffer: [0; LINE_BYTES], length: 0 };
        // An error only says that the line was cut.
        let _ = write!(line, "convoy: {}: {text}", name(level));
        line.buffer[line.length] = b'\n';
        line.length += 1;
        line
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays free for the line's end.
        let room = LINE_BYTES - 1 - self.length;
        let taken = text.len().min(room);
        self.buffer[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// An errno in words, as log lines give it: `Permission denied (EACCES)`.
pub struct Reason(pub sys::Errno);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = syscalls::Errno::new(self.0);
        match errno.name().zip(errno.description()) {
            Some((name, description)) => write!(f, "{description} ({name})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// Logs at level error, with the arguments of `format!`.
#[macro_export]
macro_rules! log_error {
    ($($text:tt)*) => { $crate::log::line($crate::config::LogLevel::Error, format_args!($($text)*)) };
}

/// Logs at level warn, with the arguments of `format!`.
#[macro_export]
macro_rules! log_warn {
    ($($text:tt)*) => { $crate::log::line($crate::config::LogLevel::Warn, format_args!($($text)*)) };
}

/// Logs at level info, with the arguments of `format!`.
#[macro_export]
macro_rules! log_info {
    ($($text:tt)*) => {
        if $crate::log::enabled($crate::config::LogLevel::Info) {
            $crate::log::line($crate::config::LogLevel::Info, format_args!($($text)*))
        }
    };
}

/// Logs at level debug, with the arguments of `format!`.
#[macro_export]
macro_rules! log_debug {
    ($($text:tt)*) => {
        if $crate::log::enabled($crate::config::LogLevel::Debug) {
            $crate::log::line($crate::config::LogLevel::Debug, format_args!($($text)*))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_level_and_ends() {
        let line = Line::of(LogLevel::Warn, format_args!("{} is {}", "a", 1));
        assert_eq!(line.bytes(), b"convoy: warn: a is 1\n");
    }

    #[test]
    fn reasons_are_words() {
        assert_eq!(Reason(libc::EACCES).to_string(), "Permission denied (EACCES)");
        assert_eq!(Reason(9999).to_string(), "errno 9999");
    }

    #[test]
    fn a_long_line_is_cut_and_still_ends() {
        let long = "x".repeat(2 * LINE_BYTES);
        let line = Line::of(LogLevel::Error, format_args!("{long}"));
        assert_eq!(line.bytes().len(), LINE_BYTES);
        assert_eq!(line.bytes().last(), Some(&b'\n'));
    }
}
