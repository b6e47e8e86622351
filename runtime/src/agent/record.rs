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

/// How far a receiver is: it has passed so many of the sender's switches, its program has read so many bytes of the
/// channel and of the kernel connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub passed: u32,
    pub consumed: u64,
    pub kernel_read: u64,
}

/// The bytes a receiver has in the order in which they were sent, up to the first that is missing, and whether these are
/// all of them. `channel` and `kernel` are the bytes that follow on each path.
pub fn in_order(theirs: &Record, at: Place, channel: &[u8], kernel: &[u8]) -> (Vec<u8>, bool) {
    let ahead = theirs.announced.wrapping_sub(at.passed);
    if ahead > 2 {
        return (Vec::new(), false);
    }
    let (mut from_channel, mut from_kernel) = (channel, kernel);
    let (mut consumed, mut kernel_read) = (at.consumed, at.kernel_read);
    let mut bytes = Vec::with_capacity(channel.len() + kernel.len());
    for number in (1..=ahead).map(|step| at.passed.wrapping_add(step)) {
        let position = theirs.positions[number as usize & 1];
        // The path that this switch leaves.
        let (source, read) = match Path::after(number.wrapping_sub(1)) {
            Path::Kernel => (&mut from_kernel, &mut kernel_read),
            Path::Channel => (&mut from_channel, &mut consumed),
        };
        let part = position.saturating_sub(*read);
        let Some((taken, rest)) = usize::try_from(part).ok().and_then(|part| source.split_at_checked(part))
        else {
            bytes.extend_from_slice(source);
            return (bytes, false);
        };
        bytes.extend_from_slice(taken);
        *source = rest;
        *read += part;
    }
    let (last, other) = match Path::after(theirs.announced) {
        Path::Kernel => (from_kernel, from_channel),
        Path::Channel => (from_channel, from_kernel),
    };
    bytes.extend_from_slice(last);
    (bytes, other.is_empty())
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
        let at = |passed, consumed, kernel_read| Place { passed, consumed, kernel_read };
        let order = |theirs: &Record, at, channel: &str, kernel: &str| {
            let (bytes, whole) = in_order(theirs, at, channel.as_bytes(), kernel.as_bytes());
            (String::from_utf8(bytes).unwrap(), whole)
        };
        let all = |text: &str| (text.to_owned(), true);
        let some = |text: &str| (text.to_owned(), false);
        // Kernel up to 10, channel up to 4, kernel again.
        let theirs = Record { announced: 2, positions: [4, 10], sent: 4, received: 0 };
        assert_eq!(order(&theirs, at(0, 0, 7), "CCCC", "kkkKK"), all("kkkCCCCKK"));
        // The first switch passed, two channel bytes read.
        assert_eq!(order(&theirs, at(1, 2, 10), "CC", "KKK"), all("CCKKK"));
        // Both passed: nothing may be left on the channel.
        assert_eq!(order(&theirs, at(2, 4, 12), "", "K"), all("K"));
        assert_eq!(order(&theirs, at(2, 4, 12), "C", "K"), some("K"));
        // What is in order before the first gap can be read.
        assert_eq!(order(&theirs, at(0, 0, 7), "CC", "kkk"), some("kkkCC"));
        assert_eq!(order(&theirs, at(0, 0, 7), "CCCC", "kk"), some("kk"));
        // On the channel now.
        let theirs = Record { announced: 1, positions: [0, 5], sent: 3, received: 0 };
        assert_eq!(order(&theirs, at(0, 0, 5), "CCC", ""), all("CCC"));
        assert_eq!(order(&theirs, at(0, 0, 3), "C", "kk"), all("kkC"));
        assert_eq!(order(&theirs, at(0, 0, 3), "C", "k"), some("k"), "kernel bytes are missing");
        assert_eq!(order(&theirs, at(0, 0, 5), "C", "k"), some("C"), "kernel bytes too many");
        // Impossible counts of switches.
        assert_eq!(order(&theirs, at(5, 0, 0), "", ""), some(""));
    }
}
