//! Contents and sizes of files of Convoy's own, within the limit that the program has on the size of files.

use super::{Answer, answer, close, fstat, open, read, write};
use core::ffi::{CStr, c_int};
use syscalls::{Sysno, syscall};

/// ftruncate(2), to a size that RLIMIT_FSIZE allows.
pub fn ftruncate(fd: c_int, bytes: u64) -> Answer<()> {
    file_size_allowed(bytes)?;
    call!(ftruncate, fd, bytes).map(drop)
}

/// fallocate(2): `mode` is 0 or FALLOC_FL_* flags; within what RLIMIT_FSIZE allows.
pub fn fallocate(fd: c_int, mode: c_int, offset: u64, bytes: u64) -> Answer<()> {
    file_size_allowed(offset.saturating_add(bytes))?;
    call!(fallocate, fd, mode, offset, bytes).map(drop)
}

/// Writes text of our own, within what RLIMIT_FSIZE allows.
pub fn write_text(fd: c_int, text: &[u8]) -> Answer<usize> {
    if let Ok(stat) = fstat(fd)
        && stat.st_mode & libc::S_IFMT == libc::S_IFREG
    {
        file_size_allowed(stat.st_size.cast_unsigned() + text.len() as u64)?;
    }
    // SAFETY: the slice is readable.
    unsafe { write(fd, text.as_ptr(), text.len()) }
}

/// Reads a small file whole; longer contents are cut to `into`.
pub fn read_file(path: &CStr, into: &mut [u8]) -> Answer<usize> {
    let fd = open(path, libc::O_RDONLY, 0)?;
    let mut filled = 0;
    let result = loop {
        let rest = &mut into[filled..];
        if rest.is_empty() {
            break Ok(filled);
        }
        // SAFETY: `rest` is writable memory of this length.
        match unsafe { read(fd, rest.as_mut_ptr(), rest.len()) } {
            Ok(0) => break Ok(filled),
            Ok(count) => filled += count,
            Err(libc::EINTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    let _ = close(fd);
    result
}

/// EFBIG where a file would grow beyond RLIMIT_FSIZE: the kernel's answer would be a signal as well (SIGXFSZ).
fn file_size_allowed(bytes: u64) -> Answer<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    match call!(prlimit64, 0, libc::RLIMIT_FSIZE, 0, &mut limit as *mut libc::rlimit) {
        Ok(_) if limit.rlim_cur < bytes => Err(libc::EFBIG),
        _ => Ok(()),
    }
}
