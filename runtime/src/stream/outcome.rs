//! The answer of a call in one register. A `Result` in memory is written in parts and read as a whole, which a processor can only do
//! once the parts have left its store buffer; behind a message's stores, which wait for another processor, that takes longer than all
//! the rest of the call.

use crate::api::Handled;

/// A count of bytes, a negative errno, or [`Outcome::NOT_OURS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome(isize);

impl Outcome {
    /// The call is not Convoy's concern.
    pub const NOT_OURS: Self = Self(isize::MIN);

    #[inline(always)]
    pub fn failed(errno: i32) -> Self {
        Self(-(errno as isize))
    }

    #[inline(always)]
    pub fn is_failure(self) -> bool {
        self.0 < 0
    }

    #[inline(always)]
    pub fn bytes(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    #[inline(always)]
    pub fn handled(self) -> Handled {
        match self.0 {
            isize::MIN => None,
            bytes @ 0.. => Some(Ok(bytes as usize)),
            errno => Some(Err(-errno as i32)),
        }
    }
}

impl From<Result<usize, i32>> for Outcome {
    #[inline(always)]
    fn from(result: Result<usize, i32>) -> Self {
        match result {
            // No call takes or gives more than isize::MAX bytes.
            Ok(bytes) => Self(bytes as isize),
            Err(errno) => Self::failed(errno),
        }
    }
}

impl From<Handled> for Outcome {
    #[inline(always)]
    fn from(handled: Handled) -> Self {
        handled.map_or(Self::NOT_OURS, Self::from)
    }
}
