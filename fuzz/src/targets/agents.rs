//! What an agent is told: by other agents over the control connection, and by those who ask how it is.
//!
//! The agent is a program, not a library: its own files are compiled here.

#[allow(dead_code)]
#[path = "../../../agent/src/daemon/message.rs"]
mod message;
#[path = "../../../agent/src/daemon/serve/request.rs"]
mod request_file;

use message::Message;
use request_file::{Asked, LONGEST, Page, asked};

/// A message of another agent.
pub(super) fn messages(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(raw) = message::from_hex(text)
    {
        assert_eq!(message::to_hex(&raw), text.to_lowercase());
    }
    let Some(message) = Message::decode(bytes) else { return };
    if message != Message::Unknown {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
}

/// A request by HTTP, whole and as it comes byte by byte.
pub(super) fn request(bytes: &[u8]) {
    let answer = asked(bytes);
    match answer {
        Asked::More => assert!(bytes.len() <= LONGEST),
        Asked::Page(page) => {
            let names: [&[u8]; 3] = [b"/health", b"/metrics", b"/status"];
            let name = names[match page {
                Page::Health => 0,
                Page::Metrics => 1,
                Page::Status => 2,
            }];
            assert!(bytes.windows(name.len()).any(|part| part == name), "a page that nobody named");
        }
        Asked::Refused(status) => assert!(status.starts_with('4')),
    }
    // The answer is given at the first byte at which it is clear, and does not change.
    let first = (1..=bytes.len()).map(|end| asked(&bytes[..end])).find(|answer| *answer != Asked::More);
    if let Some(first) = first
        && bytes.len() <= LONGEST
    {
        assert_eq!(first, answer);
    }
}
