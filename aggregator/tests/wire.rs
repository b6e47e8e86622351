//! Headers, block references and batches: round trips, and any bytes in.

use convoy_aggregator::scatter::{Frame, Frames, append};
use convoy_aggregator::wire::{
    ALIGNMENT, BlockRef, HEADER_BYTES, Header, Kind, MAX_PAYLOAD, MAX_SLOT, WireError, span,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Pad), Just(Kind::Data), Just(Kind::Block)]
}

prop_compose! {
    fn headers()(kind in kinds(), generation: u8, slot in 0..=MAX_SLOT, length in 0..=MAX_PAYLOAD) -> Header {
        Header { kind, generation, slot, length }
    }
}

fn frame(kind: Kind, slot: u32, payload: &[u8]) -> Header {
    let length = payload.len() as u32;
    Header { kind, generation: 7, slot, length }
}

proptest! {
    #[test]
    fn a_header_survives_its_word(header in headers()) {
        prop_assert_eq!(Header::from_word(header.to_word()), Ok(header));
    }

    #[test]
    fn any_word_is_a_header_that_gives_it_back_or_an_unknown_kind(word: u64) {
        match Header::from_word(word) {
            Ok(header) => prop_assert_eq!(header.to_word(), word),
            Err(error) => prop_assert_eq!(error, WireError::Kind(word as u8)),
        }
    }

    #[test]
    fn every_known_kind_decodes_with_any_fields(fields: u64, kind in 1u64..=3) {
        let word = fields & !0xff | kind;
        prop_assert_eq!(Header::from_word(word)?.to_word(), word);
    }

    #[test]
    fn a_block_reference_survives_its_word(word: u64, block: u32, length: u32) {
        prop_assert_eq!(BlockRef::from_word(word).to_word(), word);
        let reference = BlockRef { block, length };
        prop_assert_eq!(BlockRef::from_word(reference.to_word()), reference);
    }

    #[test]
    fn a_span_is_the_least_aligned_room(length: u32) {
        let need = HEADER_BYTES + length as usize;
        prop_assert_eq!(span(length) % ALIGNMENT, 0);
        prop_assert!(span(length) >= need && span(length) - need < ALIGNMENT);
    }

    #[test]
    fn a_batch_gives_its_frames_back(
        frames in vec((kinds(), 0..=MAX_SLOT, vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let mut batch = Vec::new();
        for (kind, slot, payload) in &frames {
            append(&mut batch, frame(*kind, *slot, payload), payload)?;
        }
        let read = Frames::new(&batch).collect::<Result<Vec<_>, _>>()?;
        let sent: Vec<_> = frames
            .iter()
            .map(|(kind, slot, payload)| Frame { header: frame(*kind, *slot, payload), payload })
            .collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn any_bytes_are_frames_up_to_one_error(bytes in vec(prop_oneof![0u8..6, any::<u8>()], 0..200)) {
        let mut used = 0;
        let mut frames = Frames::new(&bytes);
        for frame in frames.by_ref() {
            let Ok(frame) = frame else { break };
            let _ = frame.block();
            let begin = used + HEADER_BYTES;
            prop_assert_eq!(frame.payload, &bytes[begin..begin + frame.header.length as usize]);
            used += span(frame.header.length);
        }
        prop_assert!(used <= bytes.len());
        prop_assert!(frames.next().is_none());
    }

    #[test]
    fn a_batch_cut_anywhere_ends_in_an_error_unless_between_frames(
        payloads in vec(vec(any::<u8>(), 0..40), 1..10),
        cut: prop::sample::Index,
    ) {
        let mut batch = Vec::new();
        let mut ends = vec![0];
        for payload in &payloads {
            append(&mut batch, frame(Kind::Data, 1, payload), payload)?;
            ends.push(batch.len());
        }
        let cut = cut.index(batch.len());
        let last = Frames::new(&batch[..cut]).last();
        if ends.contains(&cut) {
            prop_assert!(last.is_none_or(|frame| frame.is_ok()));
        } else {
            prop_assert_eq!(last, Some(Err(WireError::Truncated)));
        }
    }
}

#[test]
fn zeroed_memory_is_not_a_frame() {
    assert_eq!(Header::from_word(0), Err(WireError::Kind(0)));
    let read: Vec<_> = Frames::new(&[0; 64]).take(3).collect();
    assert_eq!(read, [Err(WireError::Kind(0))]);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_batch_alone() {
    let good = frame(Kind::Data, 1, b"abc");
    let mut batch = vec![1, 2, 3];
    for bad in
        [Header { length: 4, ..good }, Header { length: 2, ..good }, Header { slot: MAX_SLOT + 1, ..good }]
    {
        assert_eq!(append(&mut batch, bad, b"abc"), Err(WireError::Field));
    }
    let long = vec![0; MAX_PAYLOAD as usize + 1];
    let refused = append(&mut batch, frame(Kind::Data, 1, &long), &long);
    assert_eq!(refused, Err(WireError::Field));
    assert_eq!(batch, [1, 2, 3]);
}

#[test]
fn only_a_block_frame_of_one_reference_names_a_block() {
    let reference = BlockRef { block: 3, length: 70_000 };
    let word = reference.to_word().to_le_bytes();
    let named = |kind, payload| Frame { header: frame(kind, 1, payload), payload }.block();
    assert_eq!(named(Kind::Block, &word[..]), Ok(reference));
    assert_eq!(named(Kind::Data, &word[..]), Err(WireError::BlockRef));
    assert_eq!(named(Kind::Block, &word[..7]), Err(WireError::BlockRef));
    assert_eq!(named(Kind::Block, &[0; 9][..]), Err(WireError::BlockRef));
}
