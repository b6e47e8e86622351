//! Pieces of memory that hardware, other processes or the library write into behind the compiler's back: mapped,
//! page aligned, and reached by copying only.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::{Error, Foreign};

/// A mapping, or somebody else's memory.
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
    /// Length of the mapping to end; nothing for memory of somebody else.
    mapped: Option<usize>,
    /// Keeps memory of somebody else.
    _owner: Option<Arc<dyn Foreign>>,
}

// SAFETY: a region is plain memory without any tie to a thread, and its owner can be sent.
unsafe impl Send for Region {}

impl Region {
    /// `bytes` of zeroed memory, page aligned.
    pub fn new(bytes: usize) -> Result<Region, Error> {
        Self::map(bytes, None)
    }

    /// The first `bytes` of a file that cannot shrink (a memfd sealed against it).
    pub fn of_file(file: BorrowedFd<'_>, bytes: usize) -> Result<Region, Error> {
        Self::map(bytes, Some(file))
    }

    fn map(bytes: usize, file: Option<BorrowedFd<'_>>) -> Result<Region, Error> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let length = bytes.checked_next_multiple_of(page).filter(|length| *length > 0);
        let Some(length) = length else {
            return Err(Error(format!("memory of {bytes} bytes makes no sense")));
        };
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0)
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Region { base, bytes, mapped: Some(length), _owner: None })
            }
            _ => Err(Error(format!("cannot map {bytes} bytes: {}", io::Error::last_os_error()))),
        }
    }

    /// Memory of somebody else, for a moment.
    ///
    /// # Safety
    /// The range stays mapped and readable for as long as the region lives.
    pub unsafe fn borrowed(base: *const u8, bytes: usize) -> Option<Region> {
        Some(Region { base: NonNull::new(base.cast_mut())?, bytes, mapped: None, _owner: None })
    }

    /// Memory of somebody else.
    pub fn foreign(memory: Arc<dyn Foreign>) -> Result<Region, Error> {
        let (base, bytes) = memory.range();
        let base =
            NonNull::new(base.cast_mut()).ok_or_else(|| Error(String::from("no memory at address 0")))?;
        Ok(Region { base, bytes, mapped: None, _owner: Some(memory) })
    }

    /// First byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the memory is this region's own.
    pub fn is_own(&self) -> bool {
        self.mapped.is_some()
    }

    /// Gives the pages back, but not the addresses: what is written there goes nowhere else.
    pub fn discard(&self) {
        if let Some(length) = self.mapped {
            // SAFETY: the mapping is this region's own, and its contents are not needed any more.
            unsafe { libc::madvise(self.base().cast(), length, libc::MADV_DONTNEED) };
        }
    }

    /// A part, to hand to the library; nothing when it is not inside.
    pub fn part(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        // SAFETY: the offset is inside the region or one past its end, as just compared.
        (end <= self.bytes).then(|| unsafe { self.base().add(offset) })
    }

    /// Copies out; false when the range is not inside.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(from) = self.part(offset, into.len()) else { return false };
        // SAFETY: the range is inside the region, which is mapped; `into` is this side's alone, so they do not
        // overlap. Bytes that change meanwhile are plain bytes.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        true
    }

    /// Copies in; false when the range is not inside, or the memory is somebody else's.
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        let Some(into) = self.part(offset, from.len()).filter(|_| self.is_own()) else { return false };
        // SAFETY: as in `read`, and the memory is mapped writable.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
        true
    }

    /// Copies a part of another region in; false when a range is not inside. The regions may be the same memory.
    pub fn write_from(&self, offset: usize, source: &Region, start: usize, length: usize) -> bool {
        let Some(into) = self.part(offset, length).filter(|_| self.is_own()) else { return false };
        let Some(from) = source.part(start, length) else { return false };
        // SAFETY: both ranges are inside their regions, and this one is writable; `copy` lets them overlap.
        unsafe { std::ptr::copy(from, into, length) };
        true
    }

    /// All of it; only for memory that nobody else writes to.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the mapping is writable and `bytes` long, and the borrow of the region keeps it and lets no other
        // reference be made.
        self.is_own().then(|| unsafe { std::slice::from_raw_parts_mut(self.base(), self.bytes) })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(length) = self.mapped {
            // SAFETY: the mapping was made with this base and length, and nothing refers to it any more.
            unsafe { libc::munmap(self.base().cast(), length) };
        }
    }
}

/// A number that cannot be guessed.
pub(crate) fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is eight bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 {
        return u64::from_ne_bytes(bytes);
    }
    // Without the system call, keys are merely distinct.
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
