//! Key files: what is made, what is refused, and that nothing of it is shown.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

use convoy_control::Key;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

const GOOD: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

fn with(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

fn refused(content: &str, mode: u32) -> String {
    let (_folder, path) = with(content, mode);
    let line = Key::read(&path).unwrap_err().to_string();
    assert!(!line.contains('\n') && line.contains(path.to_str().unwrap()), "{line}");
    line
}

#[test]
fn a_made_key_is_private_and_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = Key::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.len(), text.lines().count()), (65, 1));
    for key in [key, Key::read(&path).unwrap()] {
        let shown = format!("{key:?}");
        assert!(!shown.contains(&text[..8]) && shown.len() < 20, "{shown}");
    }
    let line = Key::create(&path).unwrap_err().to_string();
    assert!(line.contains("exists") && line.contains("remove"), "{line}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let other = folder.path().join("other");
    Key::create(&other).unwrap();
    assert_ne!(fs::read_to_string(&other).unwrap(), text);
}

#[test]
fn one_line_of_hex_is_read_with_or_without_its_end() {
    for content in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n")] {
        for mode in [0o600, 0o400] {
            let (_folder, path) = with(&content, mode);
            Key::read(&path).unwrap();
        }
    }
}

#[test]
fn files_open_to_others_are_refused_with_the_remedy() {
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
        let line = refused(GOOD, mode);
        assert!(line.contains("chmod 600"), "{line}");
    }
}

#[test]
fn malformed_and_weak_keys_are_refused() {
    let long = format!("{GOOD}00");
    let two = format!("{GOOD}\n{GOOD}\n");
    let foreign = GOOD.replace('0', "g");
    for content in ["", "\n", &GOOD[1..], &GOOD[2..], &long, &two, &foreign, " ", &format!("{GOOD}\n\n")] {
        let line = refused(content, 0o600);
        assert!(line.contains("64 hex digits"), "{line}");
        assert!(!line.contains("0011"), "the content is shown: {line}");
    }
    for weak in ["00", "ff", "a5"] {
        let line = refused(&weak.repeat(32), 0o600);
        assert!(line.contains("equal"), "{line}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Key::read(folder.path()).is_err());
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&fifo).status().unwrap();
    assert!(made.success());
    let line = Key::read(&fifo).unwrap_err().to_string();
    assert!(line.contains("regular"), "{line}");
    assert!(Key::read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn files_of_another_user_are_refused() {
    let (_folder, path) = with(GOOD, 0o600);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
        return;
    }
    let line = Key::read(&path).unwrap_err().to_string();
    assert!(line.contains("65534") && line.contains("chown root"), "{line}");
}
