//! Frames in a ring: the header word, the block that a frame names, and a walk over a ring full of anything.

use crate::input::Input;
use crate::memory::{Memory, own};
use convoy_aggregator::wire::{ALIGNMENT, BlockRef, HEADER_BYTES, Header, Kind, span};
use convoy_runtime::fuzz::{GEOMETRY, Identity, Segment};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

pub(super) fn run(bytes: &[u8]) {
    for word in bytes.chunks_exact(8) {
        one_word(u64::from_le_bytes(word.try_into().unwrap()));
    }
    walk(bytes);
}

fn one_word(word: u64) {
    assert_eq!(BlockRef::from_word(word).to_word(), word);
    let Ok(header) = Header::from_word(word) else {
        assert!(!(1..=3).contains(&(word as u8)), "a known kind is refused");
        return;
    };
    assert_eq!(header.to_word(), word);
    let room = span(header.length);
    assert!(room.is_multiple_of(ALIGNMENT) && room >= HEADER_BYTES + header.length as usize);
}

struct Ring {
    segment: Segment,
    memory: Memory,
    /// Where ring 0 begins in the file.
    offset: u64,
}

fn ring() -> &'static Ring {
    static RING: OnceLock<Ring> = OnceLock::new();
    RING.get_or_init(|| {
        let (segment, file) = Segment::create(GEOMETRY, 1, [Identity(1), Identity(2)]).unwrap();
        let file = own(file);
        let offset = super::segment::offset(&segment, segment.ring(0));
        Ring { segment, memory: Memory::map(file.as_raw_fd()), offset }
    })
}

/// As a receiver walks over what was published, beginning anywhere.
fn walk(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let capacity = u64::from(GEOMETRY.ring_bytes);
    let mut offset = u64::from(input.short()) * 8 % capacity;
    let mut available = u64::from(input.short()) * 8 % (capacity + 8);
    let ring = ring();
    ring.memory.write(ring.offset, input.bytes(capacity as usize));
    while available > 0 {
        let Ok((header, span)) = ring.segment.header_at(0, offset as usize, available) else { return };
        assert!(span <= available, "a frame beyond what was published");
        assert!(offset + span <= capacity, "a frame that wraps");
        assert!(span >= HEADER_BYTES as u64 + u64::from(header.length));
        if header.kind == Kind::Block
            && let Ok(named) = ring.segment.block_at(0, offset as usize, header)
        {
            assert!(named.block < GEOMETRY.blocks && named.length <= GEOMETRY.block_bytes);
        }
        available -= span;
        offset = (offset + span) % capacity;
    }
}
