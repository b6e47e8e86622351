//! What is kept of numbered batches until each of them is settled, in whatever order that happens: an entry is there for a batch
//! that is not settled, and for no other. So one that stays unsettled for long costs its own entry, and none of those behind it.

use alloc::collections::VecDeque;

/// Values by sequence number, in the order of the numbers, which wrap; all of them are within half of the numbers of the oldest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled<T> {
    entries: VecDeque<(u32, T)>,
}

impl<T> Default for Unsettled<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> Unsettled<T> {
    /// Adds the entry of a batch whose number follows on those of all others.
    pub fn push(&mut self, sequence: u32, value: T) {
        self.entries.push_back((sequence, value));
    }

    /// The oldest number.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.entries.front().map(|(sequence, _)| *sequence)
    }

    /// The value of a batch.
    pub fn get_mut(&mut self, sequence: u32) -> Option<&mut T> {
        let index = self.position(sequence)?;
        self.entries.get_mut(index).map(|(_, value)| value)
    }

    /// Whether a batch has an entry.
    #[must_use]
    pub fn contains(&self, sequence: u32) -> bool {
        self.position(sequence).is_some()
    }

    /// Takes the entry of a batch out.
    pub fn remove(&mut self, sequence: u32) -> Option<T> {
        let index = self.position(sequence)?;
        self.entries.remove(index).map(|(_, value)| value)
    }

    /// Takes the oldest entry out, if its number is before `sequence`.
    pub fn pop_before(&mut self, sequence: u32) -> Option<(u32, T)> {
        let first = self.first()?;
        let before = (first.wrapping_sub(sequence) as i32) < 0;
        if before { self.entries.pop_front() } else { None }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All values, oldest first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    fn position(&self, sequence: u32) -> Option<usize> {
        let first = self.first()?;
        let distance = |number: u32| number.wrapping_sub(first);
        self.entries.binary_search_by_key(&distance(sequence), |(number, _)| distance(*number)).ok()
    }
}
