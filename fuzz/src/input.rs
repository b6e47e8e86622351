//! An input taken apart into numbers and bytes; what is missing is zero, so that every input means something.

/// The rest of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The whole input.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, at most `count`.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(count.min(self.0.len()));
        self.0 = later;
        now
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from(self.short()) | u32::from(self.short()) << 16
    }

    /// The next eight bytes.
    pub fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// A number that tends to be interesting beside `known`: near it, a power of two, huge, or anything.
    pub fn near(&mut self, known: u64) -> u64 {
        let kind = self.byte();
        let small = u64::from(kind >> 3);
        match kind & 7 {
            0 => known.wrapping_add(small),
            1 => known.wrapping_sub(small),
            2 => known.wrapping_add(small * 8),
            3 => known ^ (1 << (small * 2 + 1)),
            4 => u64::MAX - small,
            5 => small,
            6 => u64::from(self.short()),
            _ => self.long(),
        }
    }
}
