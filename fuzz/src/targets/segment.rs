//! Attaching to a segment that another process has made: its header is anything.

use crate::input::Input;
use crate::memory::{self, Memory, own};
use convoy_runtime::fuzz::{GEOMETRY, Geometry, Identity, Segment};
use std::os::fd::AsRawFd;

const SIDES: [Identity; 2] = [Identity(3 << 32 | 1), Identity(4 << 32 | 2)];
const SERIAL: u64 = 77;
/// Of the page with the header, behind which the lanes begin.
const PAGE: u64 = 4096;
/// Larger ones are refused or accepted alike, and cost time.
const LARGEST: u64 = 16 << 20;

/// Where a place of a segment lies in its file.
pub(super) fn offset(segment: &Segment, place: *const u8) -> u64 {
    let lanes = std::ptr::from_ref(segment.lane(0)) as u64;
    place as u64 - (lanes - PAGE)
}

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (made, file) = Segment::create(GEOMETRY, SERIAL, SIDES).unwrap();
    let file = own(file);
    let honest = Segment::attach(file.as_raw_fd(), SERIAL, SIDES).expect("what an honest process made");
    assert_eq!(honest.geometry, GEOMETRY);
    let header = Memory::map(file.as_raw_fd());
    for _ in 0..input.byte() % 8 {
        let offset = u64::from(input.byte()) * 8;
        let known = header.word(offset).load(std::sync::atomic::Ordering::Relaxed);
        header.write(offset, &input.near(known).to_le_bytes());
    }
    judge(file.as_raw_fd(), GEOMETRY);
    other_size(&mut input, &header);
    // SAFETY: both mappings are this function's.
    unsafe {
        made.unmap();
        honest.unmap();
    }
}

/// The same header in a file of another size, with and without the seal.
fn other_size(input: &mut Input<'_>, header: &Memory) {
    let size = input.near(header.bytes() as u64) % LARGEST;
    let file = memory::file(size, input.byte() & 3 != 0);
    if size >= PAGE {
        let copy = Memory::map(file.as_raw_fd());
        for at in (0..512).step_by(8) {
            let word = header.word(at).load(std::sync::atomic::Ordering::Relaxed);
            copy.write(at, &word.to_le_bytes());
        }
        for _ in 0..input.byte() % 4 {
            copy.write(u64::from(input.byte() % 8) * 4, &input.near(4096).to_le_bytes());
        }
    }
    judge(file.as_raw_fd(), GEOMETRY);
}

/// Refused, or as large as it says and not able to shrink.
fn judge(file: i32, usual: Geometry) {
    let Ok(segment) = Segment::attach(file, SERIAL, SIDES) else { return };
    // SAFETY: a number.
    let seals = unsafe { libc::fcntl(file, libc::F_GET_SEALS) };
    assert_ne!(seals & libc::F_SEAL_SHRINK, 0, "a file that can be truncated");
    let memory = Memory::map(file);
    assert_eq!(segment.bytes(), memory.bytes());
    assert!(segment.geometry == usual || segment.geometry.slots >= 1);
    let end = offset(&segment, segment.block(1, u32::MAX)) + u64::from(segment.geometry.block_bytes);
    assert!(segment.geometry.blocks == 0 || end <= memory.bytes() as u64, "blocks beyond the file");
    for slot in [0, segment.geometry.slots - 1, u32::MAX] {
        let line = std::ptr::from_ref(segment.line(slot, 1)).cast::<u8>();
        assert!(offset(&segment, line) + 64 <= offset(&segment, segment.ring(0)), "lines over the rings");
    }
    // The last byte is there: this would be a SIGBUS otherwise.
    memory.word(memory.bytes() as u64 - 8).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // SAFETY: the mapping is this function's.
    unsafe { segment.unmap() };
}
