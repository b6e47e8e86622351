//! A file of shared memory mapped beside the code under test, as the hostile process maps it.
//! May contain `unsafe`: it maps and unmaps.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// The mapping; it goes with the value.
pub struct Memory {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: shared memory that is accessed through atomics only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps a whole file.
    pub fn map(fd: RawFd) -> Self {
        // SAFETY: all zero is a valid stat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a descriptor of the caller's, and a stat to write to.
        assert_eq!(unsafe { libc::fstat(fd, &mut stat) }, 0);
        let bytes = usize::try_from(stat.st_size).expect("a size");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap");
        Self { base: base.cast(), bytes }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The aligned word at or before `offset`, counted round.
    pub fn word(&self, offset: u64) -> &AtomicU64 {
        let offset = (offset as usize % self.bytes) & !7;
        // SAFETY: inside the mapping, whose size is a multiple of 8; everybody uses atomics there.
        unsafe { &*self.base.add(offset).cast::<AtomicU64>() }
    }

    /// Gives all its pages back: everything is zero.
    pub fn clear(&self) {
        // SAFETY: the mapping is this value's; whoever looks at it sees zeros in atomics.
        assert_eq!(unsafe { libc::madvise(self.base.cast(), self.bytes, libc::MADV_REMOVE) }, 0, "madvise");
    }

    /// Writes bytes from `offset` on, as far as they fit.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        for (number, piece) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.word(offset + number as u64 * 8).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more: references borrow the value.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// A new file of shared memory, sealed against shrinking or not.
pub fn file(bytes: u64, sealed: bool) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: a name that ends with a zero byte.
    let fd = unsafe { libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0, "memfd_create");
    // SAFETY: a new descriptor, nobody else's.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.set_len(bytes).expect("its size");
    if sealed {
        // SAFETY: a number.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) }, 0);
    }
    file
}

/// Owns a raw descriptor from here on.
pub fn own(fd: RawFd) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the callers have just been given it and keep no other.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
}
