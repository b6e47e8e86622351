//! The parts of the frame codec: header words, whole batches, and the decision to gather.

use std::hint::black_box;

use convoy_aggregator::gather::{Gather, Thresholds};
use convoy_aggregator::scatter::{Frames, append};
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

fn filled(batch: &mut Vec<u8>, payload: &[u8]) -> bool {
    batch.clear();
    (0..FRAMES).all(|slot| append(batch, header(slot), payload).is_ok())
}

fn batches(criterion: &mut Criterion) {
    let payload = [7; MESSAGE_BYTES as usize];
    let mut batch = Vec::new();
    let mut group = criterion.benchmark_group("batch of 64 x 64 B");
    group.throughput(Throughput::Elements(FRAMES.into()));
    group.bench_function("append", |bencher| bencher.iter(|| filled(&mut batch, black_box(&payload))));
    filled(&mut batch, &payload);
    group.bench_function("scatter", |bencher| {
        bencher
            .iter(|| Frames::new(black_box(&batch)).flatten().map(|frame| frame.payload.len()).sum::<usize>())
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
