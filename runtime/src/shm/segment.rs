//! The segment of a channel: memory that both sides map, in which nothing is trusted.
//!
//! ```text
//!   0       header: magic, geometry, the two sides            (written by the creator, read-only afterwards)
//!   4096    two lanes' cursor lines and block-return words; with an agent: which lines each side has changed
//!   12288   slots x 128 bytes: two lines per stream, one written by each side
//!   ...     slots x 16 bytes, with an agent: how much the program sends
//!   ...     ring 0, ring 1        (ring d is written by side d)
//!   ...     blocks 0, blocks 1    (block area d is written by side d)
//! ```
//! It is a memfd sealed against shrinking, so that no access can raise SIGBUS, and pages appear as they are used. The mapping
//! lies between two pages that nobody may touch.

use super::changes::Changes;
pub use super::changes::MOST_FOLLOWED as MOST_SLOTS;
pub use super::line::{JOINED, READY, RECOVERED, STAYS, SideLine, SlotState, WORTH};
use super::load::Load;
use super::ring::{ConsumerLine, ProducerLine};
use super::sleep_word::SleepWord;
use crate::process::Identity;
use crate::sys::{self, Answer, Errno};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"convoyS1");
const HEADER_BYTES: usize = 4096;
const LANES_BYTES: usize = 8192;
/// Where the changes lie in the page of the lanes.
const CHANGES_OFFSET: usize = 1024;
const PAGE: usize = 4096;
/// One slot: a line per side.
const SLOT_BYTES: usize = 128;
/// Words of 64 blocks each.
pub const BLOCK_WORDS: usize = 4;

/// Sizes of a segment; equal for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of one ring, a power of two.
    pub ring_bytes: u32,
    /// How many streams the channel can carry at a time.
    pub slots: u32,
    /// Bytes of one block, a power of two.
    pub block_bytes: u32,
    /// Blocks of one direction, at most 256.
    pub blocks: u32,
}

impl Geometry {
    fn bytes(self) -> usize {
        self.blocks_offset(2)
    }

    fn loads_offset(self) -> usize {
        HEADER_BYTES + LANES_BYTES + (self.slots as usize * SLOT_BYTES).next_multiple_of(PAGE)
    }

    /// Where the ring of a direction lies, in bytes from the beginning.
    pub fn ring_offset(self, direction: usize) -> usize {
        let loads = (self.slots as usize * size_of::<Load>()).next_multiple_of(PAGE);
        self.loads_offset() + loads + direction * self.ring_bytes as usize
    }

    fn blocks_offset(self, direction: usize) -> usize {
        self.ring_offset(2) + direction * self.blocks as usize * self.block_bytes as usize
    }

    /// Whether there can be a segment of these sizes.
    pub fn sane(self) -> bool {
        (1 << 12..=1 << 26).contains(&self.ring_bytes)
            && self.ring_bytes.is_power_of_two()
            && (1..=1 << 20).contains(&self.slots)
            && (1 << 12..=1 << 20).contains(&self.block_bytes)
            && self.block_bytes.is_power_of_two()
            && self.blocks as usize <= BLOCK_WORDS * 64
    }
}

#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    geometry: [AtomicU32; 4],
    serial: AtomicU64,
    /// How many slots each side has handed out for the first time, side 0 in the lower half. Written by both, each its own half, by
    /// compare-and-swap; a lie makes slots meet, which the streams' generations notice.
    handed_out: AtomicU64,
    sides: [SideHeader; 2],
}

/// Written by its side only.
#[repr(C, align(64))]
pub struct SideHeader {
    identity: AtomicU64,
    /// 1 once the side has mapped the segment; the creator then closes its descriptor.
    pub attached: AtomicU32,
    /// 1 while the agent, as this side, sleeps or does not look at this channel by itself. Set by the agent, cleared by
    /// the program's thread that rings it: SeqCst with a fence between publishing and looking on both sides.
    pub asleep: AtomicU32,
    /// Threads of this side that may be asleep; not used where the other side is an agent.
    pub sleepers: SleepWord,
    /// 1 once the program, as this side, takes the agent for gone: it looks once more for what is published, and never again. Set by
    /// the program, with a SeqCst fence before that look; read by the agent behind a SeqCst fence after it has published. So the
    /// program has seen what the agent has published when it finds 0.
    pub gave_up: AtomicU32,
}

/// Cursor lines of one direction and the blocks that come back to its sender.
#[repr(C, align(64))]
pub struct LaneLines {
    /// Written by the sender of this direction.
    pub producer: ProducerLine,
    /// Written by the receiver of this direction.
    pub consumer: ConsumerLine,
    /// Bit set = block given back. The receiver sets bits with Release after copying out, the sender takes them
    /// with an Acquire swap (SYNC POINT C: block memory may be written again).
    pub returned: [AtomicU64; BLOCK_WORDS],
}

crate::anchor::layout! {
    /// Where a segment's fields lie.
    SegmentLayout of Segment { base, geometry }
}
crate::anchor::layout! {
    /// Where the sizes lie.
    GeometryLayout of Geometry { ring_bytes, slots, block_bytes, blocks }
}
crate::anchor::layout! {
    /// Where the words of a segment's head lie.
    HeaderLayout of Header { sides }
}
crate::anchor::layout! {
    /// Where the words of a side lie.
    SideHeaderLayout of SideHeader { sleepers }
}
crate::anchor::layout! {
    /// Where a lane's words lie: published bytes, taken bytes.
    LaneLayout of LaneLines { producer, consumer }
}

/// Where the parts of a segment lie, in bytes.
pub mod layout {
    pub(crate) const LANES: u64 = super::HEADER_BYTES as u64;
    pub(crate) const LINES: u64 = (super::HEADER_BYTES + super::LANES_BYTES) as u64;
}

/// A mapped segment. Copies refer to the same mapping, which stays for the life of the process (a range that is
/// given up is reused, never unmapped under a reader).
#[derive(Clone, Copy)]
pub struct Segment {
    base: *mut u8,
    /// Where its parts begin, computed once.
    lines: *mut u8,
    rings: [*mut u8; 2],
    blocks: [*mut u8; 2],
    pub geometry: Geometry,
}

// SAFETY: the mapping is shared memory accessed through atomics, or under the channel's locks.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// A mapping of that many bytes, or (without a geometry) of the head only.
    fn mapped(base: *mut u8, geometry: Geometry) -> Self {
        let part = |offset: usize| base.wrapping_add(offset);
        Self {
            base,
            lines: part(HEADER_BYTES + LANES_BYTES),
            rings: [0, 1].map(|direction| part(geometry.ring_offset(direction))),
            blocks: [0, 1].map(|direction| part(geometry.blocks_offset(direction))),
            geometry,
        }
    }

    /// Makes a new segment; returns it with the descriptor that another process attaches through.
    pub fn create(geometry: Geometry, serial: u64, sides: [Identity; 2]) -> Answer<(Self, i32)> {
        let fd = sys::memfd_create(c"convoy-segment", libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
        let segment = Self::fill(fd, geometry, serial, sides).inspect_err(|_| {
            let _ = sys::close(fd);
        })?;
        Ok((segment, fd))
    }

    fn fill(fd: i32, geometry: Geometry, serial: u64, sides: [Identity; 2]) -> Answer<Self> {
        sys::ftruncate(fd, geometry.bytes() as u64)?;
        sys::fallocate(fd, 0, 0, (HEADER_BYTES + LANES_BYTES) as u64)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        sys::fcntl(fd, libc::F_ADD_SEALS, seals as usize)?;
        let segment = Self::mapped(sys::map_guarded(fd, geometry.bytes())?, geometry);
        segment.leave_out_of_dumps();
        let header = segment.header();
        let numbers = [geometry.ring_bytes, geometry.slots, geometry.block_bytes, geometry.blocks];
        for (word, number) in header.geometry.iter().zip(numbers) {
            word.store(number, Ordering::Relaxed);
        }
        header.serial.store(serial, Ordering::Relaxed);
        for (side, identity) in header.sides.iter().zip(sides) {
            side.identity.store(identity.0, Ordering::Relaxed);
            side.sleepers.begin();
        }
        header.magic.store(MAGIC, Ordering::Release);
        Ok(segment)
    }

    /// Maps a segment another process made, after checking that it is what it claims to be.
    pub fn attach(fd: i32, serial: u64, sides: [Identity; 2]) -> Answer<Self> {
        let seals = sys::fcntl(fd, libc::F_GET_SEALS, 0)?;
        let size = sys::fstat(fd)?.st_size as usize;
        if seals & libc::F_SEAL_SHRINK == 0 || size < HEADER_BYTES || !sys::is_tmpfs(fd) {
            return Err(libc::EPROTO);
        }
        let probe = Self::mapped(sys::map_shared(fd, HEADER_BYTES)?, NO_GEOMETRY);
        let geometry = probe.checked_geometry(size, serial, sides);
        // SAFETY: nothing refers to the probe's mapping any more.
        unsafe { sys::unmap(probe.base, HEADER_BYTES) };
        let geometry = geometry?;
        let segment = Self::mapped(sys::map_guarded(fd, geometry.bytes())?, geometry);
        segment.leave_out_of_dumps();
        Ok(segment)
    }

    /// Blocks hold nothing but payload: a core file would have all their pages, and the kernel would make those that were never
    /// used.
    fn leave_out_of_dumps(&self) {
        let bytes = self.geometry.blocks_offset(2) - self.geometry.blocks_offset(0);
        // SAFETY: a part of the mapping, of whole pages; nothing is invalidated.
        let _ = unsafe { sys::madvise(self.blocks[0], bytes, libc::MADV_DONTDUMP) };
    }

    fn checked_geometry(&self, size: usize, serial: u64, sides: [Identity; 2]) -> Result<Geometry, Errno> {
        let header = self.header();
        let number = |index: usize| header.geometry[index].load(Ordering::Relaxed);
        let true_words = header.magic.load(Ordering::Acquire) == MAGIC
            && header.serial.load(Ordering::Relaxed) == serial
            && header.sides.iter().zip(sides).all(|(side, id)| side.identity.load(Ordering::Relaxed) == id.0);
        let geometry =
            Geometry { ring_bytes: number(0), slots: number(1), block_bytes: number(2), blocks: number(3) };
        if true_words && geometry.sane() && geometry.bytes() == size {
            Ok(geometry)
        } else {
            Err(libc::EPROTO)
        }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.geometry.bytes()
    }

    /// Gives the pages of a channel nobody uses any more back; later reads see zeros.
    pub fn release_pages(&self) {
        // SAFETY: the range is this mapping; readers hold no references into plain memory, only atomics.
        let _ = unsafe { sys::madvise(self.base, self.geometry.bytes(), libc::MADV_REMOVE) };
    }

    /// # Safety
    /// No thread may use this segment any more.
    pub unsafe fn unmap(self) {
        // SAFETY: the caller's promise.
        unsafe { sys::unmap_guarded(self.base, self.geometry.bytes()) };
    }

    fn header(&self) -> &'static Header {
        // SAFETY: offset 0 of the mapping, which lives as long as the process; atomics only.
        unsafe { &*self.base.cast::<Header>() }
    }

    pub fn side(&self, side: usize) -> &'static SideHeader {
        &self.header().sides[side & 1]
    }

    /// Takes one of the slots that neither side has used yet, in the name of `side`; false when there is none.
    pub fn hand_out(&self, side: usize) -> bool {
        let take = |word: u64| {
            let used = (word & u64::from(u32::MAX)) + (word >> 32);
            (used < u64::from(self.geometry.slots)).then(|| word + (1 << (side * 32)))
        };
        self.header().handed_out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Cursor lines of the direction that side `sender` sends on.
    #[inline]
    pub fn lane(&self, sender: usize) -> &'static LaneLines {
        // SAFETY: inside the lanes page; atomics only.
        unsafe { &*self.base.add(HEADER_BYTES).cast::<LaneLines>().add(sender & 1) }
    }

    /// Which lines `side` has changed, where the other side does not look at each by itself.
    #[inline]
    pub fn changes(&self, side: usize) -> &'static Changes {
        // SAFETY: inside the lanes' pages; atomics only.
        unsafe { &*self.base.add(HEADER_BYTES + CHANGES_OFFSET).cast::<Changes>().add(side & 1) }
    }

    /// The line that `side` writes for `slot`; the slot must be below `geometry.slots`.
    #[inline]
    pub fn line(&self, slot: u32, side: usize) -> &'static SideLine {
        let slot = slot.min(self.geometry.slots - 1) as usize;
        // SAFETY: inside the slot table by the bound above; atomics only.
        unsafe { &*self.lines.add(slot * SLOT_BYTES + (side & 1) * 64).cast::<SideLine>() }
    }

    /// How much the program sends on a stream to another host; the slot must be below `geometry.slots`.
    #[inline]
    pub fn load(&self, slot: u32) -> &'static Load {
        let slot = slot.min(self.geometry.slots - 1) as usize;
        let offset = self.geometry.loads_offset() + slot * size_of::<Load>();
        // SAFETY: inside the loads by the bound above; atomics only.
        unsafe { &*self.base.add(offset).cast::<Load>() }
    }

    /// First byte of the ring that side `sender` writes.
    #[inline]
    pub fn ring(&self, sender: usize) -> *mut u8 {
        self.rings[sender & 1]
    }

    /// First byte of a block of side `sender`; the block must be below `geometry.blocks`.
    #[inline]
    pub fn block(&self, sender: usize, block: u32) -> *mut u8 {
        let block = block.min(self.geometry.blocks.saturating_sub(1)) as usize;
        // SAFETY: inside the mapping by the bound above.
        unsafe { self.blocks[sender & 1].add(block * self.geometry.block_bytes as usize) }
    }
}

const NO_GEOMETRY: Geometry = Geometry { ring_bytes: 0, slots: 1, block_bytes: 0, blocks: 0 };
const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(2 * size_of::<LaneLines>() <= CHANGES_OFFSET);
const _: () = assert!(CHANGES_OFFSET + 2 * size_of::<Changes>() <= LANES_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { ring_bytes: 65536, slots: 64, block_bytes: 16384, blocks: 8 };
    const SIDES: [Identity; 2] = [Identity(1 << 32 | 5), Identity(2 << 32 | 6)];

    #[test]
    fn both_sides_see_the_same_memory() {
        let (made, fd) = Segment::create(GEOMETRY, 9, SIDES).unwrap();
        let attached = Segment::attach(fd, 9, SIDES).unwrap();
        assert_eq!(attached.geometry, GEOMETRY);
        made.line(63, 1).limit.store(77, Ordering::Release);
        assert_eq!(attached.line(63, 1).limit.load(Ordering::Acquire), 77);
        // SAFETY: last byte of the last block of each direction.
        unsafe {
            made.block(1, 7).add(16383).write(42);
            assert_eq!(attached.block(1, 7).add(16383).read(), 42);
        }
        sys::close(fd).unwrap();
    }

    #[test]
    fn a_segment_cannot_be_truncated() {
        let (made, fd) = Segment::create(GEOMETRY, 9, SIDES).unwrap();
        for size in [0, 4096, made.bytes() as u64 - 1] {
            assert_eq!(sys::ftruncate(fd, size), Err(libc::EPERM));
        }
        assert_eq!(sys::ftruncate(fd, made.bytes() as u64 + 4096), Err(libc::EPERM), "nor grow");
        assert_eq!(sys::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE as usize), Err(libc::EPERM));
        // SAFETY: the last byte of the mapping.
        unsafe { made.block(1, 7).add(16383).write(1) };
        sys::close(fd).unwrap();
    }

    #[test]
    fn a_segment_of_somebody_else_is_refused() {
        let (_, fd) = Segment::create(GEOMETRY, 9, SIDES).unwrap();
        assert_eq!(Segment::attach(fd, 8, SIDES).err(), Some(libc::EPROTO));
        assert_eq!(Segment::attach(fd, 9, [SIDES[1], SIDES[0]]).err(), Some(libc::EPROTO));
        sys::close(fd).unwrap();
        let plain = sys::memfd_create(c"plain", libc::MFD_CLOEXEC).unwrap();
        assert!(Segment::attach(plain, 9, SIDES).is_err());
        sys::close(plain).unwrap();
    }
}
