//! A position in the program's scattered buffers (readv, sendmsg, ...). May contain `unsafe`: the buffers are
//! the program's, as it described them.

/// IOV_MAX of Linux.
const MOST_PARTS: usize = 1024;
/// Nothing is mapped below (vm.mmap_min_addr) and above (the user half of the address space).
const LOWEST: usize = 65536;
const HIGHEST: usize = 1 << 56;

/// Whether program memory can be there at all.
pub fn plausible(address: usize, bytes: usize) -> bool {
    (LOWEST..HIGHEST).contains(&address) && bytes < HIGHEST
}

/// Walks over `iovec`s while bytes are copied in or out.
#[derive(Clone, Copy)]
pub struct Cursor {
    /// What is left of the part at hand.
    base: *mut u8,
    left: usize,
    /// The parts behind it.
    next: *const libc::iovec,
    count: usize,
    remaining: usize,
    /// False: only counted (MSG_TRUNC).
    touched: bool,
}

impl Cursor {
    /// Looks at the program's buffers. EINVAL for too many of them; EFAULT for addresses that no program memory
    /// can have (other bad addresses fault, as they do in the program's own code). With `touched` false the
    /// bytes are never accessed, only counted.
    ///
    /// # Safety
    /// `parts` points to `count` iovecs whose memory stays valid as long as the cursor is used.
    #[inline]
    pub unsafe fn new(parts: *const libc::iovec, count: usize, touched: bool) -> Result<Self, i32> {
        if count != 1 {
            // SAFETY: the caller's promise.
            return unsafe { Self::of_several(parts, count, touched) };
        }
        if !plausible(parts as usize, size_of::<libc::iovec>()) {
            return Err(libc::EFAULT);
        }
        // SAFETY: the caller's promise.
        let (base, left) = unsafe { ((*parts).iov_base, (*parts).iov_len) };
        if touched && left > 0 && !plausible(base as usize, left) {
            return Err(libc::EFAULT);
        }
        if left > isize::MAX as usize {
            return Err(libc::EINVAL);
        }
        Ok(Self { base: base.cast(), left, next: core::ptr::null(), count: 0, remaining: left, touched })
    }

    /// # Safety
    /// As for [`Self::new`].
    unsafe fn of_several(parts: *const libc::iovec, count: usize, touched: bool) -> Result<Self, i32> {
        if count > MOST_PARTS {
            return Err(libc::EINVAL);
        }
        if count > 0 && !plausible(parts as usize, count * size_of::<libc::iovec>()) {
            return Err(libc::EFAULT);
        }
        let mut remaining = 0usize;
        for index in 0..count {
            // SAFETY: the caller's promise.
            let part = unsafe { &*parts.add(index) };
            if touched && part.iov_len > 0 && !plausible(part.iov_base as usize, part.iov_len) {
                return Err(libc::EFAULT);
            }
            remaining = remaining.saturating_add(part.iov_len);
        }
        if remaining > isize::MAX as usize {
            return Err(libc::EINVAL);
        }
        Ok(Self { base: core::ptr::null_mut(), left: 0, next: parts, count, remaining, touched })
    }

    /// Bytes between the position and the end.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Takes up to `bytes` from the buffers.
    ///
    /// # Safety
    /// `target` is writable for `bytes`.
    #[inline]
    pub unsafe fn take(&mut self, target: *mut u8, bytes: usize) -> usize {
        self.each(bytes, |done, part, length| {
            // SAFETY: `part` is program memory of `length` bytes, the target has room for `bytes`.
            unsafe { core::ptr::copy_nonoverlapping(part, target.add(done), length) };
        })
    }

    /// Puts up to `bytes` into the buffers.
    ///
    /// # Safety
    /// `source` is readable for `bytes`.
    #[inline]
    pub unsafe fn put(&mut self, source: *const u8, bytes: usize) -> usize {
        if !self.touched {
            return self.skip(bytes);
        }
        self.each(bytes, |done, part, length| {
            // SAFETY: `part` is program memory of `length` bytes, the source has `bytes`.
            unsafe { core::ptr::copy_nonoverlapping(source.add(done), part, length) };
        })
    }

    /// Moves on without copying (MSG_TRUNC).
    pub fn skip(&mut self, bytes: usize) -> usize {
        self.each(bytes, |_, _, _| {})
    }

    /// Acts on the next `bytes`, piece by piece: how many are done before it, where it is, how long it is.
    #[inline]
    fn each(&mut self, bytes: usize, mut action: impl FnMut(usize, *mut u8, usize)) -> usize {
        if bytes > self.left {
            return self.each_across(bytes, action);
        }
        if bytes > 0 {
            action(0, self.base, bytes);
        }
        self.base = self.base.wrapping_add(bytes);
        self.left -= bytes;
        self.remaining -= bytes;
        bytes
    }

    /// The same for more than is left of the part at hand.
    #[inline(never)]
    fn each_across(&mut self, bytes: usize, mut action: impl FnMut(usize, *mut u8, usize)) -> usize {
        let wanted = bytes.min(self.remaining);
        let mut done = 0;
        while done < wanted {
            if self.left == 0 {
                self.turn_to_next();
            }
            let length = self.left.min(wanted - done);
            if length > 0 {
                action(done, self.base, length);
            }
            done += length;
            self.base = self.base.wrapping_add(length);
            self.left -= length;
        }
        self.remaining -= done;
        done
    }

    /// To be called only while bytes remain, so that there is a part.
    #[cold]
    fn turn_to_next(&mut self) {
        // SAFETY: there is a part here, by the promise at construction; the next is at most one past the last.
        unsafe {
            (self.base, self.left) = ((*self.next).iov_base.cast(), (*self.next).iov_len);
            self.next = self.next.add(1);
        }
        self.count -= 1;
    }

    /// The rest as at most `limit` bytes of iovecs in `into`; for a kernel call. Returns how many were filled.
    pub fn rest(&self, limit: usize, into: &mut [libc::iovec]) -> usize {
        let mut rest = *self;
        let mut filled = 0;
        for place in into {
            let wanted = limit.min(self.remaining) - (self.remaining - rest.remaining);
            if wanted == 0 {
                break;
            }
            while rest.left == 0 {
                rest.turn_to_next();
            }
            let length = rest.left.min(wanted);
            *place = single(rest.base, length);
            rest.skip(length);
            filled += 1;
        }
        filled
    }
}

/// Whether the buffers have no room at all.
///
/// # Safety
/// `parts` points to `count` iovecs, if memory can be there.
pub unsafe fn is_empty(parts: *const libc::iovec, count: usize) -> bool {
    count == 0
        || count <= MOST_PARTS
        && plausible(parts as usize, count * size_of::<libc::iovec>())
        // SAFETY: the caller's promise.
        && (0..count).all(|index| unsafe { (*parts.add(index)).iov_len == 0 })
}

/// An iovec for one buffer.
pub fn single(base: *mut u8, bytes: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: bytes }
}

/// No iovec.
pub const EMPTY: libc::iovec = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_across_parts_and_empty_ones() {
        let mut bytes = *b"abcdefgh";
        let base = bytes.as_mut_ptr();
        // SAFETY: inside the array.
        let parts = unsafe { [single(base, 3), single(base, 0), single(base.add(3), 5)] };
        // SAFETY: the parts live long enough.
        let mut cursor = unsafe { Cursor::new(parts.as_ptr(), 3, true) }.unwrap();
        let mut target = [0u8; 8];
        // SAFETY: the target has room.
        assert_eq!(unsafe { cursor.take(target.as_mut_ptr(), 5) }, 5);
        let mut rest = [EMPTY; 4];
        assert_eq!(cursor.rest(2, &mut rest), 1);
        assert_eq!(rest[0].iov_len, 2);
        // SAFETY: the target has room for the remaining 3 bytes.
        assert_eq!(unsafe { cursor.take(target.as_mut_ptr().add(5), 100) }, 3);
        assert_eq!((&target, cursor.remaining()), (b"abcdefgh", 0));
    }
}
