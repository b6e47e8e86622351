//! What an end says when its stream returns to the kernel, and how the other end puts the bytes in order. Pure.

use convoy_aggregator::path::Path;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"convoyF1");

/// How far one end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Switches it has announced as a sender.
    pub announced: u32,
    /// Where the last two lie: number `i` at `i & 1`.
    pub positions: [u64; 2],
    /// Bytes it has sent through the channel.
    pub sent: u64,
    /// Bytes it has received through the channel, whether its program has read them or not.
    pub received: u64,
}

impl Record {
    /// The record as it travels.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let words = [
            MAGIC,
            u64::from(self.announced),
            self.positions[0],
            self.positions[1],
            self.sent,
            self.received,
        ];
        let mut bytes = [0; RECORD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that the bytes hold, if they hold one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?));
        if bytes.len() != RECORD_BYTES || word(0)? != MAGIC {
            return None;
        }
        Some(Self {
            announced: u32::try_from(word(1)?).ok()?,
            positions: [word(2)?, word(3)?],
            sent: word(4)?,
            received: word(5)?,
        })
    }
}

/// The bytes a receiver has in the order in which they were sent. It has `passed` so many of the sender's switches, its
/// program has read `consumed` bytes of the channel and `kernel_read` of the kernel connection; `channel` and
/// `kernel` are the bytes that follow on each path, all there are. Nothing when that cannot be.
pub fn in_order(
    theirs: &Record,
    passed: u32,
    consumed: u64,
    kernel_read: u64,
    channel: Vec<u8>,
    kernel: Vec<u8>,
) -> Option<Vec<u8>> {
    let ahead = theirs.announced.wrapping_sub(passed);
    if ahead > 2 {
        return None;
    }
    let (mut from_channel, mut from_kernel) = (channel.as_slice(), kernel.as_slice());
    let (mut consumed, mut kernel_read) = (consumed, kernel_read);
    let mut bytes = Vec::with_capacity(channel.len() + kernel.len());
    for number in (1..=ahead).map(|step| passed.wrapping_add(step)) {
        let position = theirs.positions[number as usize & 1];
        // The path that this switch leaves.
        let (source, read) = match Path::after(number.wrapping_sub(1)) {
            Path::Kernel => (&mut from_kernel, &mut kernel_read),
            Path::Channel => (&mut from_channel, &mut consumed),
        };
        let part = position.saturating_sub(*read);
        let (taken, rest) = source.split_at_checked(usize::try_from(part).ok()?)?;
        bytes.extend_from_slice(taken);
        *source = rest;
        *read += part;
    }
    let (last, other) = match Path::after(theirs.announced) {
        Path::Kernel => (from_kernel, from_channel),
        Path::Channel => (from_channel, from_kernel),
    };
    bytes.extend_from_slice(last);
    other.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let record = Record { announced: 3, positions: [1 << 40, 7], sent: 99, received: u64::MAX };
        assert_eq!(Record::decode(&record.encode()), Some(record));
        assert_eq!(Record::decode(&record.encode()[1..]), None);
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
    }

    #[test]
    fn bytes_come_in_the_order_of_the_switches() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        // Kernel up to 10, channel up to 4, kernel again.
        let theirs = Record { announced: 2, positions: [4, 10], sent: 4, received: 0 };
        let order = in_order(&theirs, 0, 0, 7, bytes("CCCC"), bytes("kkkKK"));
        assert_eq!(order, Some(bytes("kkkCCCCKK")));
        // The first switch passed, two channel bytes read.
        let order = in_order(&theirs, 1, 2, 10, bytes("CC"), bytes("KKK"));
        assert_eq!(order, Some(bytes("CCKKK")));
        // Both passed: nothing may be left on the channel.
        assert_eq!(in_order(&theirs, 2, 4, 12, bytes(""), bytes("K")), Some(bytes("K")));
        assert_eq!(in_order(&theirs, 2, 4, 12, bytes("C"), bytes("K")), None);
        // On the channel now.
        let theirs = Record { announced: 1, positions: [0, 5], sent: 3, received: 0 };
        assert_eq!(in_order(&theirs, 0, 0, 5, bytes("CCC"), bytes("")), Some(bytes("CCC")));
        assert_eq!(in_order(&theirs, 0, 0, 3, bytes("C"), bytes("kk")), Some(bytes("kkC")));
        assert_eq!(in_order(&theirs, 0, 0, 3, bytes("C"), bytes("k")), None, "kernel bytes are missing");
        assert_eq!(in_order(&theirs, 0, 0, 5, bytes("C"), bytes("k")), None, "kernel bytes too many");
        // Impossible counts of switches.
        assert_eq!(in_order(&theirs, 5, 0, 0, Vec::new(), Vec::new()), None);
    }
}
