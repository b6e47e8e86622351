//! What goes between rails besides the writes themselves: addresses, connection data, and messages. All numbers are
//! little endian. Nothing that comes from a peer is believed before it is looked at here.

use std::collections::HashSet;

use crate::Error;

/// The first byte of an address.
const VERSION: u8 = 1;

/// How peers reach a rail.
#[derive(Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub provider: &'a str,
    /// The library's number of the address format.
    pub format: u32,
    /// Writes are messages.
    pub messages: bool,
    pub name: &'a [u8],
}

impl<'a> Address<'a> {
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let length = u8::try_from(self.provider.len())
            .map_err(|_| Error(String::from("a provider's name is too long")))?;
        let mut bytes = vec![VERSION, u8::from(self.messages), length];
        bytes.extend_from_slice(self.provider.as_bytes());
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(self.name);
        Ok(bytes)
    }

    pub fn decode(bytes: &'a [u8]) -> Option<Address<'a>> {
        let (&[version, messages, length], rest) = bytes.split_first_chunk()?;
        let (provider, rest) = rest.split_at_checked(usize::from(length))?;
        let (format, name) = rest.split_first_chunk()?;
        let messages = match messages {
            0 => false,
            1 => true,
            _ => return None,
        };
        let provider = std::str::from_utf8(provider).ok().filter(|_| version == VERSION)?;
        Some(Address { provider, format: u32::from_le_bytes(*format), messages, name })
    }
}

/// What both sides of a connection tell each other: the token both know, and the tag that the peer puts into the
/// immediate data of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub token: u64,
    pub tag: u32,
}

impl Greeting {
    pub const BYTES: usize = 12;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.token.to_le_bytes());
        bytes[8..].copy_from_slice(&self.tag.to_le_bytes());
        bytes
    }

    /// Providers may add bytes to connection data.
    pub fn decode(bytes: &[u8]) -> Option<Greeting> {
        let (token, rest) = bytes.split_first_chunk()?;
        let (tag, _) = rest.split_first_chunk()?;
        Some(Greeting { token: u64::from_le_bytes(*token), tag: u32::from_le_bytes(*tag) })
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the connecting link's endpoint to the rail's: the sender's greeting and address.
    Hello,
    /// From the accepting link's endpoint back: the same.
    Welcome,
    /// The welcome has arrived.
    Confirm,
    /// To a hello that nobody waits for.
    Refuse,
    /// The sender ends the link.
    Bye,
    /// A write, whose bytes follow.
    Write,
}

const KINDS: [Kind; 6] = [Kind::Hello, Kind::Welcome, Kind::Confirm, Kind::Refuse, Kind::Bye, Kind::Write];

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// How many writes there have been before on the link, counted round.
    pub sequence: u16,
    pub immediate: Option<u32>,
    /// The sender's tag, or for a write the receiver's.
    pub tag: u32,
    /// How many bytes follow.
    pub length: u32,
    /// The token, or the key of a write.
    pub key: u64,
    /// The first byte of a write.
    pub offset: u64,
}

impl Header {
    pub const BYTES: usize = 32;

    /// A message of the handshake.
    pub fn control(kind: Kind, greeting: Greeting, length: usize) -> Header {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Header {
            kind,
            sequence: 0,
            immediate: None,
            tag: greeting.tag,
            length,
            key: greeting.token,
            offset: 0,
        }
    }

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = u8::from(self.immediate.is_some());
        bytes[2..4].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.immediate.unwrap_or(0).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tag.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.key.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Header> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let long = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        Some(Header {
            kind: *KINDS.get(usize::from(bytes[0]))?,
            sequence: u16::from_le_bytes([bytes[2], bytes[3]]),
            immediate: (bytes[1] != 0).then(|| word(4)).flatten(),
            tag: word(8)?,
            length: word(12)?,
            key: long(16)?,
            offset: long(24)?,
        })
    }
}

/// Which writes have come, of those that are messages.
#[derive(Default)]
pub struct Seen {
    /// All before this one.
    base: u16,
    /// And these.
    ahead: HashSet<u16>,
}

impl Seen {
    /// How many writes may come before one that was sent earlier.
    const AHEAD: usize = 1024;

    /// One more has come; false when it is there already, or one before it is missing.
    pub fn add(&mut self, sequence: u16, ordered: bool) -> bool {
        if sequence != self.base {
            return !ordered && self.ahead.len() < Self::AHEAD && self.ahead.insert(sequence);
        }
        self.base = self.base.wrapping_add(1);
        while self.ahead.remove(&self.base) {
            self.base = self.base.wrapping_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        let address = Address { provider: "tcp", format: 3, messages: true, name: &[1, 2, 3] };
        let bytes = address.encode().unwrap();
        assert_eq!(Address::decode(&bytes), Some(address));
        for length in 0..10 {
            assert_eq!(Address::decode(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(Address::decode(&[9, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn missing_writes_are_noticed() {
        let mut seen = Seen::default();
        assert!((0..=u16::MAX).chain(0..100).all(|sequence| seen.add(sequence, true)));
        assert!(!seen.add(101, true));
        for sequence in [102, 101, 100, 104, 103] {
            assert!(seen.add(sequence, false));
        }
        assert!(seen.add(107, false) && !seen.add(107, false), "twice");
        let accepted = (108..3000).take_while(|sequence| seen.add(*sequence, false)).count();
        assert_eq!(accepted, Seen::AHEAD - 1);
    }

    #[test]
    fn headers_come_back() {
        let header = Header {
            kind: Kind::Write,
            sequence: 0x1234,
            immediate: Some(7),
            tag: 8,
            length: 9,
            key: u64::MAX,
            offset: 1 << 40,
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let greeting = Greeting { token: 1 << 60, tag: 4 };
        assert_eq!(Greeting::decode(&greeting.encode()), Some(greeting));
        let control = Header::control(Kind::Bye, greeting, 0);
        assert_eq!(Header::decode(&control.encode()), Some(control));
        assert_eq!(Header::decode(&[0xff; Header::BYTES]), None);
    }
}
