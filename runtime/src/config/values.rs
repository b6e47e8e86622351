//! How single values are read from text. An error is the part of the text that is wrong.

use super::{Fabric, Gather, LogLevel, LogTarget, Spin, StatsTarget};
use std::ffi::CString;
use std::ops::RangeInclusive;

/// A value, or the part of the text that is wrong.
pub(super) type Parsed<T> = Result<T, String>;

/// Providers of libfabric that Convoy knows how to ask for.
pub(super) const PROVIDERS: [&str; 12] =
    ["verbs", "efa", "cxi", "tcp", "net", "udp", "sockets", "opx", "psm2", "psm3", "ucx", "usnic"];
/// What libfabric can stack on a provider.
const UTILITIES: [&str; 2] = ["ofi_rxm", "ofi_rxd"];

fn wrong<T>(text: &str) -> Parsed<T> {
    Err(text.to_owned())
}

/// `on`/`off` and their usual synonyms.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "1" | "true" | "yes" => Ok(true),
        "off" | "0" | "false" | "no" => Ok(false),
        _ => wrong(text),
    }
}

/// `allow`/`deny`, or a switch.
pub(super) fn permission(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "allow" => Ok(true),
        "deny" => Ok(false),
        _ => switch(text),
    }
}

/// A whole number within limits.
pub(super) fn number(text: &str, allowed: RangeInclusive<u32>) -> Parsed<u32> {
    digits(text)
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| allowed.contains(value))
        .ok_or(text.into())
}

/// Bytes within limits: digits, and K, M or G (powers of 1024) behind them.
pub(super) fn size(text: &str, allowed: RangeInclusive<u64>) -> Parsed<u64> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    digits(number)
        .and_then(|value| value.checked_mul(1 << shift))
        .filter(|v| allowed.contains(v))
        .ok_or(text.into())
}

/// [`size`] for limits that fit 32 bits.
pub(super) fn size32(text: &str, allowed: RangeInclusive<u32>) -> Parsed<u32> {
    let bytes = size(text, u64::from(*allowed.start())..=u64::from(*allowed.end()))?;
    u32::try_from(bytes).or_else(|_| wrong(text))
}

/// [`size32`], a power of two.
pub(super) fn power_of_two(text: &str, allowed: RangeInclusive<u32>) -> Parsed<u32> {
    size32(text, allowed).and_then(|bytes| if bytes.is_power_of_two() { Ok(bytes) } else { wrong(text) })
}

pub(super) fn spin(text: &str) -> Parsed<Spin> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Spin::Auto);
    }
    number(text, 0..=1_000_000).map(Spin::Micros)
}

pub(super) fn fabric(text: &str) -> Parsed<Fabric> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "auto" => return Ok(Fabric::Auto),
        "shm" => return Ok(Fabric::Shm),
        "off" => return Ok(Fabric::Off),
        _ => {}
    }
    let (provider, utility) = lower.split_once(';').unwrap_or((&lower, UTILITIES[0]));
    if PROVIDERS.contains(&provider) && UTILITIES.contains(&utility) {
        return Ok(Fabric::Provider(lower));
    }
    wrong(text)
}

pub(super) fn gather(text: &str) -> Parsed<Gather> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(Gather::Auto),
        "always" => Ok(Gather::Always),
        _ => wrong(text),
    }
}

/// `level` or `level:path`.
pub(super) fn log(text: &str) -> Parsed<(LogLevel, LogTarget)> {
    let (level, path) = match text.split_once(':') {
        Some((level, path)) => (level, Some(path)),
        None => (text, None),
    };
    let level = match level.to_ascii_lowercase().as_str() {
        "off" => LogLevel::Off,
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        _ => return wrong(text),
    };
    let target = match path {
        None => LogTarget::Stderr,
        Some(path) if path.ends_with('/') => return wrong(text),
        Some(path) => LogTarget::File(from_here(path)?),
    };
    Ok((level, target))
}

/// `off`, `stderr`, a file, or a directory with `/` behind it.
pub(super) fn stats(text: &str) -> Parsed<Option<StatsTarget>> {
    match text {
        "off" => Ok(None),
        "stderr" => Ok(Some(StatsTarget::Stderr)),
        _ if text.ends_with('/') => from_here(text).map(|path| Some(StatsTarget::Directory(path))),
        _ => from_here(text).map(|path| Some(StatsTarget::File(path))),
    }
}

/// A path that is absolute as given.
pub(super) fn absolute(text: &str) -> Parsed<CString> {
    let path = if text.len() > 1 { text.trim_end_matches('/') } else { text };
    // Names of up to 70 bytes are put behind it, in buffers of 256.
    if !path.starts_with('/') || path.len() > 180 {
        return wrong(text);
    }
    CString::new(path).or_else(|_| wrong(text))
}

/// A path made absolute now: a daemon changes its directory later.
fn from_here(text: &str) -> Parsed<CString> {
    if text.is_empty() {
        return wrong(text);
    }
    let path = if text.starts_with('/') {
        text.to_owned()
    } else {
        match std::env::current_dir() {
            Ok(here) => format!("{}/{text}", here.to_string_lossy()),
            Err(_) => return wrong(text),
        }
    };
    CString::new(path).or_else(|_| wrong(text))
}

/// Text from outside as it may stand in a line: short and without control characters.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Digits only: no sign, no blanks.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
