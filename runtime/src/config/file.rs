//! The settings file of CONVOY_CONFIG: TOML, one `NAME = value` in a line.
//!
//! A strict subset is read here rather than all of TOML by a parser crate, because this code is loaded into every
//! program: the settings are flat, so tables, arrays and dates could only be mistakes. Values are basic strings
//! (`"..."` with `\\`, `\"`, `\t`, `\n`), literal strings (`'...'`), whole numbers (`_` between digits) and
//! `true`/`false`. Everything else is reported with its line and skipped.

use super::values::shown;
use super::{Complaint, LogLevel, variables};
use crate::sys;
use std::ffi::CString;

/// The variable that names the file.
pub(super) const VARIABLE: &str = "CONVOY_CONFIG";
/// Longest file that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// The settings in the file, by name; what is wrong with it becomes complaints.
pub(super) fn load(path: &str, complaints: &mut Vec<Complaint>) -> Vec<(String, String)> {
    match contents(path) {
        Ok(text) => {
            let mut wrong = Vec::new();
            let pairs = parse(&text, &mut wrong);
            complaints.extend(wrong.into_iter().map(|(line, text)| Complaint {
                level: LogLevel::Error,
                text: format!("{VARIABLE}='{}', line {line}: {text}", shown(path)),
            }));
            pairs
        }
        Err(reason) => {
            let text = format!("{VARIABLE}='{}' is wrong: {reason}; no file is used", shown(path));
            complaints.push(Complaint { level: LogLevel::Error, text });
            Vec::new()
        }
    }
}

fn contents(path: &str) -> Result<String, String> {
    let path = CString::new(path).map_err(|_| "a path has no zero byte".to_owned())?;
    let mut bytes = vec![0; LONGEST + 1];
    let length = sys::read_file(&path, &mut bytes)
        .map_err(|errno| format!("cannot read it ({})", std::io::Error::from_raw_os_error(errno)))?;
    if length > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// The settings in a text; `wrong` gets the lines that are wrong (counted from 1) with the reason.
pub(super) fn parse(text: &str, wrong: &mut Vec<(usize, String)>) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match statement(line.trim()) {
            Ok(None) => {}
            Ok(Some((name, _))) if pairs.iter().any(|(known, _)| *known == name) => {
                wrong.push((index + 1, format!("{name} is set twice; the first one counts")));
            }
            Ok(Some(pair)) => pairs.push(pair),
            Err(reason) => wrong.push((index + 1, reason)),
        }
    }
    pairs
}

fn statement(line: &str) -> Result<Option<(String, String)>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((name, rest)) = line.split_once('=') else {
        return Err(format!("'{}' is not of the form NAME = value", shown(line)));
    };
    let name = name.trim();
    if name == VARIABLE || variables::named(name).is_none() {
        return Err(format!("'{}' is not a setting", shown(name)));
    }
    let value = value(rest.trim()).ok_or_else(|| {
        format!(
            "the value of {name} must be a \"string\", a whole number, true or false: '{}'",
            shown(rest.trim())
        )
    })?;
    // As in the environment, an empty value is no value.
    Ok((!value.is_empty()).then(|| (name.to_owned(), value)))
}

/// The text of a TOML value with an optional comment behind it.
fn value(text: &str) -> Option<String> {
    let (value, rest) = match text.chars().next()? {
        '"' => basic_string(&text[1..])?,
        '\'' => {
            let (inner, rest) = text[1..].split_once('\'')?;
            (inner.to_owned(), rest)
        }
        _ => bare(text)?,
    };
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(value)
}

fn basic_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                '\\' => '\\',
                '"' => '"',
                't' => '\t',
                'n' => '\n',
                _ => return None,
            }),
            _ => value.push(character),
        }
    }
    None
}

fn bare(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| c == '#' || c.is_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word == "true" || word == "false" {
        return Some((word.to_owned(), rest));
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    word.split('_').all(digits).then(|| (word.replace('_', ""), rest))
}
