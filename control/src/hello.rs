//! What two agents tell each other first, and what they agree on. Pure.
//! Not here: sending it ([`crate::peers`]) and who may see it ([`crate::secure`]).
//!
//! All is JSON, so that agents of different age understand each other: unknown fields are ignored, missing
//! ones have defaults. Only `protocol` and `instance` must be there.

use crate::hex;
use crate::secure::wire::MAX_BODY;
use crate::secure::{Fault, Refusal};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest version spoken.
    pub min: u32,
    /// The newest version spoken.
    pub max: u32,
}

/// What an agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions it speaks.
    pub protocol: Versions,
    /// What it can do beyond its version.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// A random number that tells this run of the agent from every other run.
    #[serde(with = "as_hex")]
    pub instance: u128,
    /// What humans call the host.
    #[serde(default)]
    pub name: String,
    /// The addresses of the host.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The caller's own, at most about 30 KiB: a hello must fit into one record.
    #[serde(default, serialize_with = "payload_out", deserialize_with = "payload_in")]
    pub payload: Vec<u8>,
}

/// What follows from the hellos of two agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The newest version that both speak.
    pub protocol: u32,
    /// What both can do.
    pub features: BTreeSet<String>,
}

impl Hello {
    /// A hello with a new random instance and nothing optional in it.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new(name: impl Into<String>, protocol: Versions) -> std::io::Result<Hello> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        Ok(Hello {
            protocol,
            features: BTreeSet::new(),
            instance: u128::from_ne_bytes(random),
            name: name.into(),
            addresses: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// The hello as it travels.
    ///
    /// # Errors
    /// It does not fit into one record, or its version range is empty.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        if self.protocol.min > self.protocol.max {
            let Versions { min, max } = self.protocol;
            return Err(Fault::new(Refusal::Malformed, format!("protocol versions {min}..{max} are none")));
        }
        let text = encode_json(self)?;
        if text.len() > MAX_BODY {
            let reason =
                format!("a hello of {} bytes where at most {MAX_BODY} fit: shorten its payload", text.len());
            return Err(Fault::new(Refusal::Oversized, reason));
        }
        Ok(text)
    }

    /// The hello that `text` says.
    ///
    /// # Errors
    /// It is not JSON, or says no version or instance.
    pub fn decode(text: &[u8]) -> Result<Hello, Fault> {
        decode_json(text, "hello")
    }

    /// What this agent and the one with hello `theirs` use: the newest common version, the features of both.
    ///
    /// # Errors
    /// No version in common, with the ranges in the reason; or both hellos are of one and the same agent.
    pub fn agree(&self, theirs: &Hello) -> Result<Agreement, Fault> {
        if self.instance == theirs.instance {
            return Err(Fault::new(Refusal::Myself, "this is a connection of the agent to itself"));
        }
        let protocol = self.protocol.max.min(theirs.protocol.max);
        if protocol < self.protocol.min.max(theirs.protocol.min) {
            let Versions { min, max } = self.protocol;
            let Versions { min: least, max: most } = theirs.protocol;
            return Err(Fault::new(
                Refusal::Version,
                format!(
                    "no common protocol version: one agent speaks {min} to {max}, the other {least} to {most}"
                ),
            ));
        }
        Ok(Agreement { protocol, features: self.features.intersection(&theirs.features).cloned().collect() })
    }
}

/// A value as JSON.
pub(crate) fn encode_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::new(Refusal::System, format!("JSON: {error}")))
}

/// The value that JSON `text` from a peer says; `what` names it in errors.
pub(crate) fn decode_json<T: de::DeserializeOwned>(text: &[u8], what: &str) -> Result<T, Fault> {
    serde_json::from_slice(text)
        .map_err(|error| Fault::new(Refusal::Malformed, format!("the peer's {what} cannot be read: {error}")))
}

mod as_hex {
    use super::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(|_| de::Error::custom("an instance that is no hex number"))
    }
}

fn payload_out<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(payload))
}

fn payload_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(&text).ok_or_else(|| de::Error::custom("a payload that is not hex"))
}
