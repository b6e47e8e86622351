//! Contents and sizes of files of Convoy's own, within the limit that the program has on the size of files.

use super::{Answer, answer, close, fstat, hand, open, read, write};
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

/// Opens a file for as long as `work` takes.
pub fn with_open<T>(path: &CStr, flags: c_int, mode: u32, work: impl FnOnce(c_int) -> T) -> Answer<T> {
    let _hand = hand();
    let fd = open(path, flags, mode)?;
    let result = work(fd);
    let _ = close(fd);
    Ok(result)
}

/// Reads a small file whole; longer contents are cut to `into`.
pub fn read_file(path: &CStr, into: &mut [u8]) -> Answer<usize> {
    with_open(path, libc::O_RDONLY, 0, |fd| read_whole(fd, into))?
}

fn read_whole(fd: c_int, into: &mut [u8]) -> Answer<usize> {
    let mut filled = 0;
    loop {
        let rest = &mut into[filled..];
        if rest.is_empty() {
            return Ok(filled);
        }
        // SAFETY: `rest` is writable memory of this length.
        match unsafe { read(fd, rest.as_mut_ptr(), rest.len()) } {
            Ok(0) => return Ok(filled),
            Ok(count) => filled += count,
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// EFBIG where a file would grow beyond RLIMIT_FSIZE: the kernel's answer would be a signal as well (SIGXFSZ).
fn file_size_allowed(bytes: u64) -> Answer<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    match call!(prlimit64, 0, libc::RLIMIT_FSIZE, 0, &mut limit as *mut libc::rlimit) {
        Ok(_) if limit.rlim_cur < bytes => Err(libc::EFBIG),
        _ => Ok(()),
    }
}
