//! Records, hellos and the handshake, without the service around them.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in what tests share.

use convoy_control::Versions;
use convoy_control::hello::Hello;
use convoy_control::secure::channel::Assembler;
use convoy_control::secure::handshake::{Role, Security, handshake};
use convoy_control::secure::wire::{self, Decoder, Kind, MAX_BODY, MAX_MESSAGE, MAX_RECORD};
use convoy_control::secure::{Fault, Opener, Refusal, Sealer};
use proptest::prelude::*;
use std::os::unix::net::UnixStream;
use std::time::Duration;

mod common;

type Ends = (Result<(Sealer, Opener), Fault>, Result<(Sealer, Opener), Fault>);

/// Both ends of a handshake.
fn shake(dialer: Security, listener: Security) -> Ends {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let other = std::thread::spawn(move || handshake(&mut far, &listener, Role::Listener));
    let here = handshake(&mut near, &dialer, Role::Dialer);
    drop(near);
    (here, other.join().unwrap())
}

fn ends(security: &Security) -> ((Sealer, Opener), (Sealer, Opener)) {
    let (near, far) = shake(security.clone(), security.clone());
    (near.unwrap(), far.unwrap())
}

fn refusal<T>(end: Result<T, Fault>) -> Refusal {
    end.err().unwrap().refusal
}

#[test]
fn messages_of_all_sizes_pass_in_both_modes() {
    for security in [Security::Keyed(common::key(1)), Security::Plain] {
        let ((mut sealer, _), (_, mut opener)) = ends(&security);
        for size in [0, 1, 1000, MAX_BODY - 1, MAX_BODY, MAX_BODY + 1, 2 * MAX_BODY, MAX_MESSAGE] {
            let message: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let mut out = Vec::new();
            sealer.seal_message(&message, &mut out).unwrap();
            opener.push(&out);
            let mut assembler = Assembler::default();
            let mut whole = None;
            while let Some((kind, body)) = opener.record().unwrap() {
                whole = assembler.add(body, kind == Kind::Last).unwrap();
            }
            assert_eq!(whole.as_deref(), Some(&message[..]));
            assert!(opener.is_empty());
        }
        assert!(sealer.seal_message(&vec![0; MAX_MESSAGE + 1], &mut Vec::new()).is_err());
    }
}

#[test]
fn sealed_records_hide_their_content_and_cannot_be_changed_or_repeated() {
    let security = Security::Keyed(common::key(1));
    let ((mut sealer, _), (_, mut opener)) = ends(&security);
    let mut record = Vec::new();
    sealer.seal(Kind::Last, b"a secret of some length", &mut record).unwrap();
    assert!(!record.windows(6).any(|part| part == b"secret"));
    opener.push(&record);
    opener.record().unwrap().unwrap();
    opener.push(&record);
    assert_eq!(refusal(opener.record().map(|_| ())), Refusal::Malformed);
    for bit in 0..record.len() * 8 {
        let ((mut sealer, _), (_, mut opener)) = if bit % 97 == 0 { ends(&security) } else { continue };
        let mut record = Vec::new();
        sealer.seal(Kind::Last, b"a secret of some length", &mut record).unwrap();
        record[bit / 8] ^= 1 << (bit % 8);
        opener.push(&record);
        assert!(!matches!(opener.record(), Ok(Some(_))));
    }
}

#[test]
fn ends_that_do_not_fit_know_why() {
    let (one, other) = (Security::Keyed(common::key(1)), Security::Keyed(common::key(2)));
    let (near, far) = shake(one.clone(), other);
    assert_eq!((refusal(near), refusal(far)), (Refusal::Key, Refusal::Key));
    let (near, far) = shake(one.clone(), Security::Plain);
    assert_eq!((refusal(near), refusal(far)), (Refusal::Mode, Refusal::Mode));
    let (near, far) = shake(Security::Plain, one);
    assert_eq!((refusal(near), refusal(far)), (Refusal::Mode, Refusal::Mode));
}

#[test]
fn two_listeners_or_dialers_do_not_take_each_other() {
    let security = Security::Keyed(common::key(1));
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let mine = security.clone();
    let other = std::thread::spawn(move || handshake(&mut far, &mine, Role::Dialer).is_ok());
    assert!(handshake(&mut near, &security, Role::Dialer).is_err());
    drop(near);
    assert!(!other.join().unwrap());
}

#[test]
fn hellos_of_older_and_newer_agents_are_understood() {
    let old = Hello::decode(br#"{"protocol":{"min":1,"max":2},"instance":"ff"}"#).unwrap();
    assert_eq!((old.instance, old.protocol.max), (255, 2));
    assert!(
        old.features.is_empty() && old.name.is_empty() && old.addresses.is_empty() && old.payload.is_empty()
    );
    let text =
        br#"{"future":[1,{}],"protocol":{"min":2,"max":9,"beta":true},"instance":"1","features":["a","b"],
                    "name":"n","addresses":["10.0.0.1","fd00::1"],"payload":"00ff"}"#;
    let new = Hello::decode(text).unwrap();
    assert_eq!((new.payload.as_slice(), new.addresses.len()), (&[0, 255][..], 2));
    let agreed = old.agree(&new).unwrap();
    assert_eq!((agreed.protocol, agreed.features.len()), (2, 0));
    for wrong in ["", "{}", "[]", r#"{"protocol":{"min":1,"max":2},"instance":"zz"}"#, "GET / HTTP/1.1"] {
        assert_eq!(refusal(Hello::decode(wrong.as_bytes())), Refusal::Malformed);
    }
}

#[test]
fn a_hello_that_cannot_be_sent_is_refused() {
    let mut hello = common::hello("a");
    hello.payload = vec![1; 40_000];
    assert_eq!(refusal(hello.encode()), Refusal::Oversized);
    hello.payload = vec![1; 30_000];
    assert_eq!(Hello::decode(&hello.encode().unwrap()).unwrap(), hello);
    hello.protocol = Versions { min: 2, max: 1 };
    assert!(hello.encode().is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_limits_hold(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        limit in 0usize..300,
    ) {
        let mut decoder = Decoder::default();
        'pieces: for piece in pieces {
            decoder.push(&piece);
            loop {
                match decoder.record(limit) {
                    Ok(Some(record)) => prop_assert!(record.len() <= limit),
                    Ok(None) => break,
                    Err(fault) => {
                        prop_assert_eq!(fault.refusal, Refusal::Oversized);
                        break 'pieces;
                    }
                }
            }
        }
    }

    #[test]
    fn records_come_out_as_they_went_in_however_they_are_cut(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        cuts in prop::collection::vec(1usize..100, 1..50),
    ) {
        let mut bytes = Vec::new();
        for record in &records {
            wire::frame(record, &mut bytes);
        }
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        let mut cuts = cuts.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = more;
            decoder.push(piece);
            while let Some(record) = decoder.record(MAX_RECORD).unwrap() {
                found.push(record.to_vec());
            }
        }
        prop_assert!(decoder.is_empty());
        prop_assert_eq!(found, records);
    }

    #[test]
    fn arbitrary_bytes_are_opened_safely(bytes: Vec<u8>, keyed: bool) {
        let security = if keyed { Security::Keyed(common::key(1)) } else { Security::Plain };
        let (_, (_, mut opener)) = ends(&security);
        let mut framed = Vec::new();
        wire::frame(&bytes, &mut framed);
        opener.push(&framed);
        opener.push(&bytes);
        while let Ok(Some(_)) = opener.record() {}
    }

    #[test]
    fn arbitrary_hellos_are_looked_at_safely(bytes: Vec<u8>) {
        let _ = Hello::decode(&bytes);
    }

    #[test]
    fn agents_agree_on_the_same(a in 0u32..6, b in 0u32..6, c in 0u32..6, d in 0u32..6) {
        let (mut one, mut other) = (common::hello("one"), common::hello("other"));
        one.protocol = Versions { min: a.min(b), max: a.max(b) };
        other.protocol = Versions { min: c.min(d), max: c.max(d) };
        one.features = ["x", "y"].map(str::to_owned).into();
        other.features = ["y", "z"].map(str::to_owned).into();
        match (one.agree(&other), other.agree(&one)) {
            (Ok(agreed), Ok(same)) => {
                prop_assert_eq!(&agreed, &same);
                prop_assert!(agreed.features.iter().eq(["y"]));
                for versions in [one.protocol, other.protocol] {
                    prop_assert!((versions.min..=versions.max).contains(&agreed.protocol));
                }
            }
            (Err(fault), Err(_)) => {
                prop_assert_eq!(fault.refusal, Refusal::Version);
                prop_assert!(a.max(b) < c.min(d) || c.max(d) < a.min(b));
            }
            _ => prop_assert!(false),
        }
    }
}
