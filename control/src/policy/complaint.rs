//! What is wrong with a policy file, in one line: where, what, and what is allowed. Not here: finding it.

use super::PolicyError;

/// A complaint about the byte at `at` of the file `name`.
pub(super) fn complain(name: &str, text: &str, at: Option<usize>, what: &str) -> PolicyError {
    let place = match at {
        Some(at) => {
            let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
            format!("{name}:{line}")
        }
        None => name.to_owned(),
    };
    let what = what.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ");
    PolicyError(format!("{place}: {what}"))
}

/// A complaint of the TOML reader. Those about unknown words get a hint of the right one.
pub(super) fn from_toml(name: &str, text: &str, error: &toml::de::Error) -> PolicyError {
    let message = error.message();
    let at = error.span().map(|span| span.start);
    let known = ["unknown field ", "unknown variant "].iter().any(|start| message.starts_with(start));
    // In serde's messages, the words are between backquotes: the wrong one, then those that are allowed.
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let what = match words.split_first() {
        Some((wrong, allowed)) if known && !allowed.is_empty() => {
            let near = allowed.iter().map(|word| (distance(wrong, word), word)).min();
            let hint = match near {
                // More than half of it wrong is no misspelling.
                Some((steps, word)) if steps * 2 <= word.len() => format!("did you mean '{word}'? "),
                _ => String::new(),
            };
            format!("unknown word '{wrong}'; {hint}allowed: {}", allowed.join(", "))
        }
        _ => message.replace('`', "'"),
    };
    complain(name, text, at, &what)
}

/// How many letters must be added, taken away or changed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, compared) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *compared);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
