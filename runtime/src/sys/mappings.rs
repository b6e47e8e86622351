//! Mappings, mostly of shared memory.

use super::{Answer, answer};
use core::ffi::c_int;
use syscalls::{Sysno, syscall};

/// Bytes in front of and behind a guarded mapping that nobody may touch: at least a page, however large those are here.
const GUARD: usize = 64 << 10;

/// Maps `bytes` of `fd` (or anonymous memory for fd -1) shared, readable and writable.
pub fn map_shared(fd: c_int, bytes: usize) -> Answer<*mut u8> {
    map_at(0, fd, bytes, 0)
}

/// Maps `bytes` of zeros that are this process's own.
pub fn map_private(bytes: usize) -> Answer<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    call!(mmap, 0, bytes, rights, flags, -1i32, 0).map(|address| address as *mut u8)
}

fn map_at(address: usize, fd: c_int, bytes: usize, fixed: c_int) -> Answer<*mut u8> {
    let anonymous = if fd < 0 { libc::MAP_ANONYMOUS | libc::MAP_NORESERVE } else { 0 };
    let flags = libc::MAP_SHARED | anonymous | fixed;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    call!(mmap, address, bytes, rights, flags, fd, 0).map(|address| address as *mut u8)
}

/// As [`map_shared`], between two places that nobody may touch: who runs over an end faults instead of reading or writing
/// what lies there by chance. To be undone by [`unmap_guarded`].
pub fn map_guarded(fd: c_int, bytes: usize) -> Answer<*mut u8> {
    let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let around = call!(mmap, 0, guarded(bytes), libc::PROT_NONE, none, -1i32, 0)?;
    map_at(around + GUARD, fd, bytes, libc::MAP_FIXED).inspect_err(|_| {
        let _ = call!(munmap, around, guarded(bytes));
    })
}

/// # Safety
/// The range was mapped by [`map_guarded`], and nothing may refer to it afterwards.
pub unsafe fn unmap_guarded(address: *mut u8, bytes: usize) {
    let _ = call!(munmap, address.wrapping_sub(GUARD), guarded(bytes));
}

/// Bytes of a mapping with its guards.
fn guarded(bytes: usize) -> usize {
    bytes.next_multiple_of(GUARD) + 2 * GUARD
}

/// # Safety
/// Nothing may refer to the range afterwards.
pub unsafe fn unmap(address: *mut u8, bytes: usize) {
    let _ = call!(munmap, address, bytes);
}

/// # Safety
/// `address..address + bytes` is a mapping of the caller; `advice` must not invalidate live references.
pub unsafe fn madvise(address: *mut u8, bytes: usize, advice: c_int) -> Answer<()> {
    call!(madvise, address, bytes, advice).map(drop)
}
