//! What one write between hosts carries.

use convoy_aggregator::batch::{HEAD_BYTES, Head, MAX_STREAM, Record, Records, Writer};

pub(super) fn run(bytes: &[u8]) {
    match Head::read(bytes) {
        Some(head) => {
            let mut again = [0; HEAD_BYTES];
            head.write(&mut again);
            assert_eq!(again, bytes[..HEAD_BYTES]);
        }
        None => assert!(bytes.len() < HEAD_BYTES),
    }
    let mut read = Vec::new();
    let mut errors = 0;
    for record in Records::new(bytes) {
        assert_eq!(errors, 0, "something behind an error");
        match record {
            Ok(record) => read.push(record),
            Err(_) => errors += 1,
        }
    }
    let payload: usize = read.iter().map(|record| payload(record).len()).sum();
    assert!(payload <= bytes.len().saturating_sub(HEAD_BYTES), "more bytes than came");
    assert!(read.len() <= bytes.len(), "records of nothing");
    // Whatever was read can be written in no more room, and is read again as the same.
    let mut room = vec![0xee; bytes.len().max(HEAD_BYTES) + 16];
    let mut writer = Writer::new(&mut room);
    for record in &read {
        assert!(stream(record) <= MAX_STREAM);
        assert!(write(&mut writer, record), "no room for {record:?}");
    }
    let length = writer.len();
    assert!(length <= bytes.len().max(HEAD_BYTES), "longer than it was");
    let again: Result<Vec<_>, _> = Records::new(&room[..length]).collect();
    assert_eq!(again.as_ref(), Ok(&read));
    cramped(&read, bytes.len());
}

/// With too little room, what was taken is whole and nothing lies beyond it.
fn cramped(records: &[Record<'_>], size: usize) {
    let mut room = vec![0; HEAD_BYTES + size / 2];
    let end = room.len();
    let mut writer = Writer::new(&mut room);
    let fit = records.iter().take_while(|record| write(&mut writer, record)).count();
    let length = writer.len();
    assert!(length <= end);
    let again: Result<Vec<_>, _> = Records::new(&room[..length]).collect();
    assert_eq!(again.as_deref(), Ok(&records[..fit]));
}

fn payload<'a>(record: &Record<'a>) -> &'a [u8] {
    match record {
        Record::Data { bytes, .. } => bytes,
        _ => &[],
    }
}

fn stream(record: &Record<'_>) -> u32 {
    match record {
        Record::Data { stream, .. } | Record::Block { stream, .. } | Record::Control { stream, .. } => {
            *stream
        }
        Record::Delivered(_) => 0,
    }
}

fn write(writer: &mut Writer<'_>, record: &Record<'_>) -> bool {
    match *record {
        Record::Data { stream, bytes } => writer.data(stream, bytes.len()).is_some_and(|place| {
            place.copy_from_slice(bytes);
            true
        }),
        Record::Block { stream, length, place } => writer.block(stream, length, place),
        Record::Control { stream, control } => writer.control(stream, control),
        Record::Delivered(sequence) => writer.delivered(sequence),
    }
}
