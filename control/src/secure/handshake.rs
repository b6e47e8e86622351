//! The first records of a connection: greetings, and the Noise handshake when there is a key.
//! Not here: what follows under the keys, and the deadline, which the caller's stream keeps.

use super::channel::{Opener, Sealer};
use super::refusal::{Fault, Refusal};
use super::wire::{self, Decoder};
use crate::key::Key;
use snow::{Builder, HandshakeState};
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::sync::Arc;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"convoy-control/1 keyed; the dialer initiates, the listener responds";
const PROTOCOL: &[u8] = b"convoy-control/";
const KEYED: &[u8] = b"convoy-control/1 keyed";
const PLAIN: &[u8] = b"convoy-control/1 plain";
/// The longest greeting of any version. Text protocols and noise announce more in their first bytes.
const MAX_GREETING: usize = 64;
/// The longest Noise message of the handshake: an ephemeral key and a tag.
const MAX_NOISE: usize = 32 + wire::TAG;
const CHUNK: usize = 4096;

/// How connections are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// Encrypted, and both ends prove that they have the key.
    Keyed(Key),
    /// In the clear, and anyone may connect.
    Plain,
}

/// Who opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Speaks first.
    Dialer,
    /// Answers.
    Listener,
}

/// Makes a secure connection of `stream`, whose reads and writes must fail with `TimedOut` or `WouldBlock`
/// when the handshake has taken too long.
///
/// # Errors
/// The other end is not an agent, does not have the key, is too slow, or is gone.
pub fn handshake<S: Read + Write>(
    stream: &mut S,
    security: &Security,
    role: Role,
) -> Result<(Sealer, Opener), Fault> {
    let mut decoder = Decoder::default();
    let greeting = match security {
        Security::Keyed(_) => KEYED,
        Security::Plain => PLAIN,
    };
    let mut noise = match security {
        Security::Keyed(key) => Some(noise(key, role)?),
        Security::Plain => None,
    };
    match role {
        Role::Dialer => {
            let mut first = Vec::new();
            wire::frame(greeting, &mut first);
            if let Some(noise) = &mut noise {
                wire::frame(&write_noise(noise)?, &mut first);
            }
            send(stream, &first)?;
            greet(stream, &mut decoder, greeting)?;
            if let Some(noise) = &mut noise {
                let answer =
                    receive(stream, &mut decoder, MAX_NOISE).map_err(|fault| match fault.refusal {
                        // The listener says nothing to those whose key is wrong.
                        Refusal::Closed => different_keys(),
                        _ => fault,
                    })?;
                read_noise(noise, &answer)?;
            }
        }
        Role::Listener => {
            let answered = greet(stream, &mut decoder, greeting);
            let mut reply = Vec::new();
            wire::frame(greeting, &mut reply);
            if let Err(fault) = answered {
                if fault.refusal == Refusal::Mode && noise.is_none() {
                    // A dialer with a key sends more at once. Closing the connection with that unread
                    // would take the answer back.
                    let _ = receive(stream, &mut decoder, MAX_NOISE);
                }
                if matches!(fault.refusal, Refusal::Mode | Refusal::Version) {
                    // So that the dialer can say what is wrong.
                    let _ = send(stream, &reply);
                }
                return Err(fault);
            }
            let Some(noise) = &mut noise else {
                send(stream, &reply)?;
                return Ok(channel(None, decoder));
            };
            let first = receive(stream, &mut decoder, MAX_NOISE)?;
            if let Err(fault) = read_noise(noise, &first) {
                let _ = send(stream, &reply);
                return Err(fault);
            }
            wire::frame(&write_noise(noise)?, &mut reply);
            send(stream, &reply)?;
        }
    }
    let keys = match noise {
        Some(noise) => Some(Arc::new(noise.into_stateless_transport_mode().map_err(cipher)?)),
        None => None,
    };
    Ok(channel(keys, decoder))
}

fn channel(keys: Option<Arc<snow::StatelessTransportState>>, decoder: Decoder) -> (Sealer, Opener) {
    (Sealer::new(keys.clone()), Opener::new(keys, decoder))
}

/// Receives the other end's greeting and compares it with this end's.
fn greet<S: Read>(stream: &mut S, decoder: &mut Decoder, mine: &[u8]) -> Result<(), Fault> {
    let theirs = receive(stream, decoder, MAX_GREETING).map_err(|fault| match fault.refusal {
        Refusal::Oversized => not_convoy(),
        _ => fault,
    })?;
    if theirs == mine {
        return Ok(());
    }
    if theirs == KEYED {
        return Err(Fault::new(Refusal::Mode, "the peer requires a key and this agent has none"));
    }
    if theirs == PLAIN {
        return Err(Fault::new(Refusal::Mode, "the peer has no key and this agent requires one"));
    }
    if theirs.starts_with(PROTOCOL) {
        let shown = String::from_utf8_lossy(&theirs).escape_debug().to_string();
        return Err(Fault::new(Refusal::Version, format!("the peer greets as '{shown}'")));
    }
    Err(not_convoy())
}

fn noise(key: &Key, role: Role) -> Result<HandshakeState, Fault> {
    let pattern = PATTERN.parse().map_err(cipher)?;
    let builder = Builder::new(pattern).prologue(PROLOGUE).map_err(cipher)?;
    let builder = builder.psk(0, key.bytes()).map_err(cipher)?;
    match role {
        Role::Dialer => builder.build_initiator(),
        Role::Listener => builder.build_responder(),
    }
    .map_err(cipher)
}

fn write_noise(noise: &mut HandshakeState) -> Result<Vec<u8>, Fault> {
    let mut message = vec![0; MAX_NOISE];
    let length = noise.write_message(&[], &mut message).map_err(cipher)?;
    message.truncate(length);
    Ok(message)
}

fn read_noise(noise: &mut HandshakeState, message: &[u8]) -> Result<(), Fault> {
    match noise.read_message(message, &mut [0; MAX_NOISE]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Fault::new(Refusal::Malformed, "a handshake message with something in it")),
        Err(_) => Err(different_keys()),
    }
}

/// Writes all of `bytes`.
///
/// # Errors
/// The other end is gone, or too slow.
pub(crate) fn send<S: Write>(stream: &mut S, bytes: &[u8]) -> Result<(), Fault> {
    stream.write_all(bytes).map_err(|error| broken(&error))
}

fn receive<S: Read>(stream: &mut S, decoder: &mut Decoder, limit: usize) -> Result<Vec<u8>, Fault> {
    loop {
        if let Some(record) = decoder.record(limit)? {
            return Ok(record.to_vec());
        }
        let mut chunk = [0; CHUNK];
        let count = read_some(stream, &mut chunk)?;
        decoder.push(&chunk[..count]);
    }
}

/// Reads at least one byte.
///
/// # Errors
/// The other end is gone, or too slow.
pub(crate) fn read_some<S: Read>(stream: &mut S, into: &mut [u8]) -> Result<usize, Fault> {
    loop {
        match stream.read(into) {
            Ok(0) => return Err(Fault::new(Refusal::Closed, "the peer closed the connection")),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}

fn broken(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Fault::new(Refusal::Slow, "the peer did not answer in time")
        }
        _ => Fault::new(Refusal::Closed, format!("the connection broke: {error}")),
    }
}

fn not_convoy() -> Fault {
    Fault::new(Refusal::NotConvoy, "what answers is not a Convoy agent")
}

fn different_keys() -> Fault {
    Fault::new(Refusal::Key, "the peer has a different key: give both hosts the same key file")
}

fn cipher(error: impl Display) -> Fault {
    Fault::new(Refusal::System, format!("the cipher could not be set up: {error}"))
}
