//! What agents say to each other over their control connection beside hello and heartbeats: JSON, so that agents of
//! different age understand each other. Bytes of streams never come this way.

use convoy_fabric::RemoteMemory;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A message. Addresses are the sender's view: `local` is its own program's end of the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Message {
    /// One rail of the sender, and the ring that it has made for batches of the receiver. The one with the smaller
    /// instance begins, and connects when it is answered; both messages carry the token of the first.
    Rail {
        token: u64,
        provider: String,
        at: Option<IpAddr>,
        /// Of the rail, in hexadecimal digits.
        address: String,
        key: u64,
        base: u64,
        bytes: u64,
        /// The rail has had a link to the receiver before, which is gone.
        #[serde(default)]
        again: bool,
        /// Where large payloads may be written beside the batches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        places: Option<Places>,
    },
    /// The answer to a rail that no rail of the sender goes with.
    NoRail { token: u64 },
    /// A program here wants to accelerate this connection.
    Offer { local: SocketAddr, remote: SocketAddr },
    /// It does not want so any more.
    Withdraw { local: SocketAddr, remote: SocketAddr },
    /// Both ends want it: this is its number on the link with the token.
    Open { local: SocketAddr, remote: SocketAddr, token: u64, stream: u32 },
    /// The answer to [`Message::Open`].
    Opened { local: SocketAddr, remote: SocketAddr, token: u64, stream: u32 },
    /// The other answer.
    Refused { local: SocketAddr, remote: SocketAddr, token: u64, stream: u32, reason: String },
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// Memory of the sender for large payloads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Places {
    key: u64,
    base: u64,
    bytes: u64,
}

impl From<RemoteMemory> for Places {
    fn from(memory: RemoteMemory) -> Self {
        Self { key: memory.key, base: memory.base, bytes: memory.bytes }
    }
}

impl From<Places> for RemoteMemory {
    fn from(places: Places) -> Self {
        Self { key: places.key, base: places.base, bytes: places.bytes }
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings, numbers and addresses: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits && text.len() <= 1024 && text.len().is_multiple_of(2)).then_some(())?;
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn newer_messages_and_fields_do_no_harm() {
        assert_eq!(Message::decode(br#"{"kind":"dance","steps":3}"#), Some(Message::Unknown));
        let offer = br#"{"kind":"offer","local":"10.0.0.1:5","remote":"[fd00::2]:6","colour":"red"}"#;
        assert!(matches!(Message::decode(offer), Some(Message::Offer { .. })));
        for bad in [&b"{}"[..], b"offer", br#"{"kind":"offer"}"#, b"\xff\xff"] {
            assert_eq!(Message::decode(bad), None);
        }
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(from_hex(&to_hex(&[0, 15, 255])).unwrap(), [0, 15, 255]);
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
        assert_eq!(from_hex("+1"), None, "a sign is no digit");
    }
}
