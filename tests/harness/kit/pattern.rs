//! The bytes that streams carry: each is a function of the direction and of its position.

/// The eight bytes at positions `8 * index ..`.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut value =
        index.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 29;
    value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
    (value ^ (value >> 32)).to_le_bytes()
}

/// Fills a buffer with the bytes of a direction from a position on.
pub fn fill(seed: u64, position: u64, buffer: &mut [u8]) {
    let mut at = position;
    let mut rest = buffer;
    while !rest.is_empty() {
        let bytes = word(seed, at / 8);
        let skip = usize::try_from(at % 8).unwrap();
        let count = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&bytes[skip..skip + count]);
        at += count as u64;
        rest = later;
    }
}

/// The position of the first byte that is not what it should be.
pub fn mismatch(seed: u64, position: u64, buffer: &[u8]) -> Option<u64> {
    let mut expected = [0_u8; 4096];
    for (number, piece) in buffer.chunks(4096).enumerate() {
        let base = position + (number * 4096) as u64;
        fill(seed, base, &mut expected[..piece.len()]);
        if piece != &expected[..piece.len()] {
            let at = piece.iter().zip(&expected).position(|(left, right)| left != right).unwrap_or(0);
            return Some(base + at as u64);
        }
    }
    None
}

/// Where bytes that should not be here come from: how much is missing or comes twice.
fn origin(seed: u64, at: u64, found: &[u8]) -> String {
    let sample = &found[..found.len().min(16)];
    if sample.len() < 8 {
        return format!("{found:?}");
    }
    let start = at.saturating_sub(4 << 20);
    let mut window = vec![0; 8 << 20];
    for (direction, name) in [(seed, "this direction"), (((seed - 1) ^ 1) + 1, "the other direction")] {
        fill(direction, start, &mut window);
        if let Some(offset) = window.windows(sample.len()).position(|part| part == sample) {
            return format!("these are bytes of {name} from position {}", start + offset as u64);
        }
    }
    format!("bytes of nowhere, {sample:?}")
}

/// One direction of a stream as one process sees it: whose bytes they are, and how many have passed.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Which direction of which connection.
    pub seed: u64,
    /// The position of the next byte.
    pub position: u64,
}

impl Flow {
    /// A direction at its start.
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// The next bytes, without passing them.
    pub fn peek(&self, count: usize) -> Vec<u8> {
        let mut buffer = vec![0; count];
        fill(self.seed, self.position, &mut buffer);
        buffer
    }

    /// Bytes have passed.
    pub fn advance(&mut self, count: usize) {
        self.position += count as u64;
    }

    /// Panics unless the bytes are the next ones of this direction.
    pub fn verify(&self, buffer: &[u8]) {
        if let Some(at) = mismatch(self.seed, self.position, buffer) {
            let (first, length) = (self.position, buffer.len());
            let wrong = &buffer[usize::try_from(at - first).unwrap()..];
            let origin = origin(self.seed, at, wrong);
            panic!(
                "wrong byte at position {at} of direction {} (buffer from {first}, {length} bytes): {origin}",
                self.seed
            );
        }
    }

    /// [`Self::verify`] and [`Self::advance`].
    pub fn accept(&mut self, buffer: &[u8]) {
        self.verify(buffer);
        self.advance(buffer.len());
    }
}
