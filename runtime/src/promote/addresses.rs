//! What a connection is known by: the addresses of its ends, its network namespace, and the key under which the ends meet in the
//! registry. May contain `unsafe`: the kernel fills in addresses, whose family says what they are.

use crate::registry::Key;
use crate::sys;
use core::net::{IpAddr, Ipv6Addr};

/// IPv4 as v4-mapped, so that both ends of a connection agree.
pub type Address = (Ipv6Addr, u16);

/// As policies name it.
pub(super) fn plain((address, port): Address) -> (IpAddr, u16) {
    (address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4), port)
}

/// The two words of an address.
pub fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

/// The socket's own or its peer's address, of a TCP socket.
pub(super) fn address(fd: i32, peer: bool) -> Option<Address> {
    // SAFETY: plain bytes.
    let mut storage: libc::sockaddr_storage = unsafe { core::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let target = (&raw mut storage).cast::<libc::sockaddr>();
    // SAFETY: the storage is writable for `length`.
    let result = unsafe {
        if peer {
            sys::getpeername(fd, target, &mut length)
        } else {
            sys::getsockname(fd, target, &mut length)
        }
    };
    result.ok()?;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in.
            let v4 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
            let ip = core::net::Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some((ip.to_ipv6_mapped(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6.
            let v6 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
            Some((Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// The addresses of a connection, the lower one first: the same at both ends.
pub type Ends = [Address; 2];

/// See [`Ends`].
pub fn ends(fd: i32) -> Option<Ends> {
    let (local, peer) = (address(fd, false)?, address(fd, true)?);
    Some([local.min(peer), local.max(peer)])
}

/// Whether two sockets are the two ends of one connection.
pub fn are_ends(one: i32, two: i32) -> bool {
    let ends = |fd| address(fd, false).zip(address(fd, true));
    ends(one).zip(ends(two)).is_some_and(|(one, two)| one.0 == two.1 && one.1 == two.0)
}

/// Also of IPv4.
pub(super) fn is_loopback(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
}

/// The same at both ends, but for which of them it is.
pub(super) fn key(fd: i32, local: Address, peer: Address) -> Key {
    let end = u32::from(local > peer);
    let (low, high) = if end == 0 { (local, peer) } else { (peer, local) };
    let [a, b] = halves(low.0);
    let [c, d] = halves(high.0);
    let ports = u64::from(low.1) << 16 | u64::from(high.1);
    Key { words: [a, b, c, d, ports, namespace(fd)], end }
}

/// The network namespace of a socket; 0 where the kernel does not tell.
pub(super) fn namespace(fd: i32) -> u64 {
    sys::network_namespace(fd).unwrap_or(0)
}
