//! The codecs: header words, batches between hosts, and the decision to gather.

use std::hint::black_box;

use convoy_aggregator::batch::{Record, Records, Writer};
use convoy_aggregator::gather::{Gather, Thresholds};
use convoy_aggregator::wire::{Header, Kind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MESSAGE_BYTES: u32 = 64;
const FRAMES: u32 = 64;

fn header(slot: u32) -> Header {
    Header { kind: Kind::Data, generation: 1, slot, length: MESSAGE_BYTES }
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group.bench_function("to_word", |bencher| bencher.iter(|| black_box(header(7)).to_word()));
    let word = header(7).to_word();
    group.bench_function("from_word", |bencher| bencher.iter(|| Header::from_word(black_box(word))));
}

fn filled(memory: &mut [u8], payload: &[u8]) -> usize {
    let mut writer = Writer::new(memory);
    for stream in 0..FRAMES {
        if let Some(room) = writer.data(stream, payload.len()) {
            room.copy_from_slice(payload);
        }
    }
    writer.len()
}

fn batches(criterion: &mut Criterion) {
    let payload = [7; MESSAGE_BYTES as usize];
    let mut memory = vec![0; 16 << 10];
    let mut group = criterion.benchmark_group("batch of 64 x 64 B");
    group.throughput(Throughput::Elements(FRAMES.into()));
    group.bench_function("write", |bencher| bencher.iter(|| filled(&mut memory, black_box(&payload))));
    let length = filled(&mut memory, &payload);
    let bytes = |record: Record<'_>| if let Record::Data { bytes, .. } = record { bytes.len() } else { 0 };
    group.bench_function("read", |bencher| {
        bencher.iter(|| Records::new(black_box(&memory[..length])).flatten().map(bytes).sum::<usize>())
    });
}

fn gathering(criterion: &mut Criterion) {
    let mut gather = Gather::new(Thresholds::default());
    criterion.bench_function("gather push and flush", |bencher| {
        bencher.iter(|| {
            let decision = gather.push(black_box(1), MESSAGE_BYTES);
            gather.on_flush();
            decision
        })
    });
}

criterion_group!(benches, headers, batches, gathering);
criterion_main!(benches);
