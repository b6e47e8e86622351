//! The control connection between agents: records, the handshake, messages in parts, hellos.

use crate::input::Input;
use convoy_control::hello::Hello;
use convoy_control::secure::channel::Assembler;
use convoy_control::secure::handshake::{Role, Security, handshake};
use convoy_control::secure::wire::{Decoder, Kind, MAX_BODY, MAX_MESSAGE, MAX_RECORD, PREFIX, frame};
use convoy_control::secure::{Opener, Sealer};
use std::io::{self, Read, Write};

/// Records in whatever pieces they arrive, then as a connection's first bytes.
pub(super) fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (limit, piece, kind) = (usize::from(input.short()), 1 + usize::from(input.byte()), input.byte());
    let stream = input.rest();
    let whole = taken(stream, stream.len().max(1), limit);
    assert_eq!(taken(stream, piece, limit), whole, "it matters in which pieces they come");
    let length: usize = whole.0.iter().map(|record| record.len() + PREFIX).sum();
    assert!(length <= stream.len(), "more bytes than came");
    let mut again = Vec::new();
    whole.0.iter().for_each(|record| frame(record, &mut again));
    assert_eq!(again, stream[..length]);
    connection(stream, kind);
}

/// The records of a stream that comes in pieces, and whether one was refused.
fn taken(stream: &[u8], piece: usize, limit: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Decoder::default();
    let mut records = Vec::new();
    for arrived in stream.chunks(piece) {
        decoder.push(arrived);
        loop {
            match decoder.record(limit) {
                Ok(Some(record)) => {
                    assert!(record.len() <= limit);
                    records.push(record.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (records, true),
            }
        }
    }
    (records, false)
}

/// One end of a connection on which these bytes arrive.
fn connection(stream: &[u8], choice: u8) {
    let role = if choice & 1 == 0 { Role::Listener } else { Role::Dialer };
    let mut greeted = Vec::new();
    let mut peer = Peer { arriving: stream, said: 0 };
    if choice & 2 == 0 {
        // Behind an honest greeting, so that what follows is looked at.
        frame(b"convoy-control/1 plain", &mut greeted);
        greeted.extend_from_slice(stream);
        peer.arriving = &greeted;
        let Ok((sealer, mut opener)) = handshake(&mut peer, &Security::Plain, role) else {
            unreachable!("an honest greeting")
        };
        opener.push(peer.arriving);
        messages(sealer, opener);
    } else {
        let result = handshake(&mut peer, &Security::Plain, role);
        assert!(result.is_err() || stream.starts_with(b"\0\0\0\x16convoy-control/1 plain"));
    }
    assert!(peer.said < 256, "an answer of {} bytes to a stranger", peer.said);
}

/// What has arrived, and how much was answered.
struct Peer<'a> {
    arriving: &'a [u8],
    said: usize,
}

impl Read for Peer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // In pieces of an odd size.
        let most = into.len().min(7);
        self.arriving.read(&mut into[..most])
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.said += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn messages(mut sealer: Sealer, mut opener: Opener) {
    let mut assembler = Assembler::default();
    while let Ok(Some((kind, body))) = opener.record() {
        assert!(body.len() < MAX_RECORD);
        let last = match kind {
            Kind::Part => false,
            Kind::Last => true,
            _ => continue,
        };
        match assembler.add(body, last) {
            Ok(Some(message)) => {
                assert!(message.len() <= MAX_MESSAGE);
                let mut out = Vec::new();
                assert!(sealer.seal_message(&message, &mut out).is_ok());
                assert!(out.len() <= message.len() + (message.len() / MAX_BODY + 1) * (PREFIX + 1));
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// What an agent says about itself.
pub(super) fn hello(bytes: &[u8]) {
    let Ok(hello) = Hello::decode(bytes) else { return };
    let Ok(text) = hello.encode() else {
        assert!(hello.protocol.min > hello.protocol.max || bytes.len() > MAX_BODY / 8);
        return;
    };
    assert!(text.len() <= MAX_BODY);
    assert_eq!(Hello::decode(&text).as_ref(), Ok(&hello));
    assert!(hello.agree(&hello).is_err(), "an agent that talks to itself");
    let other = Hello { instance: !hello.instance, ..hello.clone() };
    let (one, two) = (hello.agree(&other), other.agree(&hello));
    assert_eq!(one.as_ref().ok(), two.as_ref().ok(), "both ends decide alike");
    if let Ok(agreed) = one {
        assert!((hello.protocol.min..=hello.protocol.max).contains(&agreed.protocol));
    }
}
