//! Headers and block references: round trips, and any words in.

use convoy_aggregator::wire::{
    ALIGNMENT, BlockRef, HEADER_BYTES, Header, Kind, MAX_PAYLOAD, MAX_SLOT, WireError, span,
};
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Pad), Just(Kind::Data), Just(Kind::Block)]
}

prop_compose! {
    fn headers()(kind in kinds(), generation: u8, slot in 0..=MAX_SLOT, length in 0..=MAX_PAYLOAD) -> Header {
        Header { kind, generation, slot, length }
    }
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
}

#[test]
fn zeroed_memory_is_not_a_frame() {
    assert_eq!(Header::from_word(0), Err(WireError::Kind(0)));
}
