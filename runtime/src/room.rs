//! Memory that may not be had: what is large, or many, is asked for here, and its lack is an error for the caller, where an ordinary
//! allocation would end the program. May contain `unsafe`: a box of an array of one is a box of the one.

use crate::sys::Answer;

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

/// As many values as are asked for; ENOMEM.
pub fn slice<T: Default>(count: usize) -> Answer<Box<[T]>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| libc::ENOMEM)?;
    values.extend(core::iter::repeat_with(T::default).take(count));
    Ok(values.into_boxed_slice())
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

    #[test]
    fn values_are_where_they_were_put() {
        assert_eq!(*boxed([7u64; 9]).unwrap(), [7; 9]);
        let mut next = 0;
        let counted = array(|| {
            next += 1;
            Some(next)
        });
        assert_eq!(*counted.unwrap(), [1, 2, 3]);
        assert_eq!(slice::<u8>(3).unwrap().len(), 3);
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert!(slice::<u64>(usize::MAX / 16).is_err());
    }
}
