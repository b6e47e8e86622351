//! Batches survive their bytes, and no bytes make a reader panic or run over.

use convoy_aggregator::batch::{Control, HEAD_BYTES, Head, MAX_STREAM, Record, Records, Writer};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Item {
    Data(u32, Vec<u8>),
    Block(u32, u32, u32),
    Control(u32, Control),
    Delivered(u32),
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        any::<u32>().prop_map(Control::Flags),
        (any::<u32>(), any::<u64>()).prop_map(|(number, position)| Control::Announce { number, position }),
        any::<u32>().prop_map(Control::Passed),
        any::<u64>().prop_map(Control::Limit),
        Just(Control::WantsKernel),
        Just(Control::Reopened),
        Just(Control::Closed),
        Just(Control::Lost),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let stream = || 0..=MAX_STREAM;
    prop_oneof![
        (stream(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(s, bytes)| Item::Data(s, bytes)),
        (stream(), any::<u32>(), any::<u32>()).prop_map(|(s, length, place)| Item::Block(s, length, place)),
        (stream(), control()).prop_map(|(stream, control)| Item::Control(stream, control)),
        any::<u32>().prop_map(Item::Delivered),
    ]
}

fn write(item: &Item, writer: &mut Writer<'_>) -> bool {
    match item {
        Item::Data(stream, bytes) => writer.data(*stream, bytes.len()).is_some_and(|room| {
            room.copy_from_slice(bytes);
            true
        }),
        Item::Block(stream, length, place) => writer.block(*stream, *length, *place),
        Item::Control(stream, control) => writer.control(*stream, *control),
        Item::Delivered(sequence) => writer.delivered(*sequence),
    }
}

fn same(record: &Record<'_>, item: &Item) -> bool {
    match (record, item) {
        (Record::Data { stream, bytes }, Item::Data(s, b)) => stream == s && bytes == b,
        (Record::Block { stream, length, place }, Item::Block(s, l, p)) => {
            (stream, length, place) == (s, l, p)
        }
        (Record::Control { stream, control }, Item::Control(s, c)) => (stream, control) == (s, c),
        (Record::Delivered(sequence), Item::Delivered(s)) => sequence == s,
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(items in prop::collection::vec(item(), 0..40), room in HEAD_BYTES..4096usize) {
        let mut memory = vec![0xee; room];
        let mut writer = Writer::new(&mut memory);
        let written: Vec<_> = items.iter().take_while(|item| write(item, &mut writer)).cloned().collect();
        let length = writer.len();
        let head = Head { length: length as u32, sequence: 7, consumed: u32::MAX, delivered: 1 };
        head.write(&mut memory);
        prop_assert_eq!(Head::read(&memory), Some(head));
        let records: Result<Vec<_>, _> = Records::new(&memory[..length]).collect();
        let records = records.unwrap();
        prop_assert_eq!(records.len(), written.len());
        for (record, item) in records.iter().zip(&written) {
            prop_assert!(same(record, item), "{:?} {:?}", record, item);
        }
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut payload = 0;
        for record in Records::new(&bytes).flatten() {
            if let Record::Data { bytes, .. } = record {
                payload += bytes.len();
            }
        }
        prop_assert!(payload <= bytes.len());
    }
}

#[test]
fn small_messages_cost_few_bytes() {
    let mut memory = [0; 8192];
    let mut writer = Writer::new(&mut memory);
    for stream in 0..64 {
        assert!(writer.data(stream, 64).is_some());
    }
    let overhead = writer.len() - HEAD_BYTES - 64 * 64;
    assert!(overhead <= 64 * 3, "{overhead}");
}

#[test]
fn a_full_batch_takes_no_record_of_no_bytes() {
    let mut room = [0; HEAD_BYTES + 64];
    let mut writer = Writer::new(&mut room);
    let mut records = 0;
    while writer.data(MAX_STREAM, 0).is_some() {
        records += 1;
        assert!(writer.len() <= HEAD_BYTES + 64);
    }
    assert!(records > 0);
}
