//! A socket for those who look from outside: where it lies, the two ends of its connection, and the words in which log lines name
//! it.

use super::{CHUNK, CHUNKS, SOCKETS, Socket};
use crate::promote::{Address, halves};
use crate::registry;
use core::fmt;
use core::net::{Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicPtr, Ordering};

/// For [`crate::anchor`].
pub const fn anchored() -> &'static [AtomicPtr<[Socket; CHUNK]>; CHUNKS] {
    &SOCKETS
}

crate::anchor::layout! {
    /// Where a socket's fields lie.
    SocketLayout of Socket { state, fd, calls, kernel_users, peer_gone, shut, over, watch, ends, offer, far }
}

/// Bytes of both ends: local address and port, the other end's address and port; IPv4 as v4-mapped, all big-endian.
pub const ENDS_BYTES: usize = crate::trace::wire::NAME_BYTES;

impl Socket {
    /// Keeps the addresses: the local one, the other end's.
    pub fn note_ends(&self, local: Address, peer: Address) {
        let ([a, b], [c, d]) = (halves(local.0), halves(peer.0));
        let ports = u64::from(local.1) << 16 | u64::from(peer.1);
        for (word, value) in self.ends.iter().zip([a, b, c, d, ports]) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Local address and port, the other end's; all zero before they were kept.
    fn ends(&self) -> (Address, Address) {
        let [a, b, c, d, ports] =
            [0, 1, 2, 3, 4].map(|index: usize| self.ends[index].load(Ordering::Relaxed));
        let whole = |high: u64, low: u64| Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        ((whole(a, b), (ports >> 16) as u16), (whole(c, d), ports as u16))
    }

    /// One word for the connection, the same at both ends and hardly ever another's.
    pub fn mark(&self) -> u64 {
        let (local, peer) = self.ends();
        let words = |(address, port): Address| {
            let [high, low] = halves(address);
            [high, low, u64::from(port)]
        };
        let [[a, b, c], [d, e, f]] = [local.min(peer), local.max(peer)].map(words);
        registry::hash(&[a, b, c, d, e, f])
    }

    /// The same as bytes, see [`ENDS_BYTES`].
    pub fn ends_bytes(&self) -> [u8; ENDS_BYTES] {
        let (local, peer) = self.ends();
        let mut bytes = [0; ENDS_BYTES];
        for (place, (address, port)) in bytes.chunks_exact_mut(ENDS_BYTES / 2).zip([local, peer]) {
            let (front, back) = place.split_at_mut(16);
            front.copy_from_slice(&address.octets());
            back.copy_from_slice(&port.to_be_bytes());
        }
        bytes
    }
}

/// `stream 127.0.0.1:40000 > 127.0.0.1:6379 (descriptor 7)`: local end, other end.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |(address, port): Address| SocketAddr::new(address.to_canonical(), port);
        let (local, peer) = self.ends();
        let fd = self.fd.load(Ordering::Relaxed);
        write!(f, "stream {} > {} (descriptor {fd})", plain(local), plain(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named_and_kept() {
        let socket = Socket::default();
        let v4 = |last: u8| core::net::Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped();
        socket.note_ends((v4(1), 4000), (v4(2), 6379));
        assert_eq!(socket.to_string(), "stream 10.0.0.1:4000 > 10.0.0.2:6379 (descriptor 0)");
        let bytes = socket.ends_bytes();
        assert_eq!(bytes[12..18], [10, 0, 0, 1, 0x0f, 0xa0]);
        assert_eq!(bytes[30..], [10, 0, 0, 2, 0x18, 0xeb]);
    }
}
