//! Random changes of inputs, for the runs without libFuzzer.

/// xorshift64*: the same inputs for the same seed on every machine.
pub struct Random(u64);

impl Random {
    /// From a seed, which may be anything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() >> 16) as usize % limit.max(1)
    }
}

/// The longest input that is made.
const LONGEST: usize = 4096;

/// An input made from those in `corpus`, by some changes, or of random bytes.
pub fn input(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.get(random.below(corpus.len() + 1)).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(random, corpus, &mut bytes);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match (random.below(7), bytes.get_mut(at)) {
        (0, Some(byte)) => *byte ^= 1 << random.below(8),
        (1, Some(byte)) => *byte = random.number() as u8,
        (2, Some(byte)) => *byte = [0, 1, 7, 8, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff][random.below(10)],
        (3, Some(_)) => drop(bytes.drain(at..end)),
        (4, Some(_)) => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        (5, _) => {
            let other = corpus
                .get(random.below(corpus.len()))
                .map_or(&[][..], |other| &other[random.below(other.len())..]);
            bytes.splice(at.., other.iter().copied());
        }
        _ => {
            let more: Vec<u8> = (0..1 + random.below(16)).map(|_| random.number() as u8).collect();
            bytes.splice(at..at, more);
        }
    }
}
