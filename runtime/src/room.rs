//! Memory that may not be had: what is large, or many, is asked for here, and its lack is an error for the caller, where an ordinary
//! allocation would end the program. May contain `unsafe`: a box of an array of one is a box of the one, and mappings of words.

use crate::sys::{self, Answer};
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

/// A value in a box of its own; ENOMEM.
pub fn boxed<T>(value: T) -> Answer<Box<T>> {
    let mut value = Some(value);
    let array: Box<[T; 1]> = array(|| value.take())?;
    // SAFETY: an array of one has the layout of the one.
    Ok(unsafe { Box::from_raw(Box::into_raw(array).cast()) })
}

/// So many values; ENOMEM, also when `make` has fewer.
pub fn array<T, const N: usize>(mut make: impl FnMut() -> Option<T>) -> Answer<Box<[T; N]>> {
    let mut values = Vec::new();
    values.try_reserve_exact(N).map_err(|_| libc::ENOMEM)?;
    values.extend(core::iter::from_fn(&mut make).take(N));
    values.into_boxed_slice().try_into().map_err(|_| libc::ENOMEM)
}

/// Many words of which few may ever be used: they begin as zeros, and only pages with one that was written take memory.
#[repr(C)]
pub struct Words {
    first: NonNull<AtomicU32>,
    count: usize,
}

// SAFETY: the mapping is this value's alone, and what is in it may be used by any thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// ENOMEM; EINVAL for none.
    pub fn new(count: usize) -> Answer<Self> {
        let bytes = count.checked_mul(size_of::<AtomicU32>()).ok_or(libc::ENOMEM)?;
        let memory = sys::map_private(bytes)?.cast();
        Ok(Self { first: NonNull::new(memory).ok_or(libc::ENOMEM)?, count })
    }
}

impl Deref for Words {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has so many, a page is aligned for them, and it is there as long as this value.
        unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: what was mapped in `new`, to which only borrows of this value referred.
        unsafe { sys::unmap(self.first.as_ptr().cast(), self.count * size_of::<AtomicU32>()) };
    }
}

/// So many zeros, or fewer where there is no memory for as many.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = if bytes.try_reserve_exact(count).is_ok() { count } else { count.min(FEW) };
    bytes.resize(count, 0);
    bytes
}

/// As many there are always, in the library's own reserve.
const FEW: usize = 8 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use core::sync::atomic::Ordering;

    #[test]
    fn values_are_where_they_were_put() {
        assert_eq!(*boxed([7u64; 9]).unwrap(), [7; 9]);
        let mut next = 0;
        let counted = array(|| {
            next += 1;
            Some(next)
        });
        assert_eq!(*counted.unwrap(), [1, 2, 3]);
        let words = Words::new(3).unwrap();
        words[1].store(7, Ordering::Relaxed);
        assert_eq!(words.iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>(), [0, 7, 0]);
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert!(Words::new(usize::MAX / 16).is_err());
        assert!(Words::new(usize::MAX / 2).is_err());
    }
}
