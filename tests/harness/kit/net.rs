//! Sockets: listening, connecting, accepting, addresses.
#![allow(clippy::cast_possible_truncation)]

use std::net::{Ipv4Addr, Ipv6Addr};

use libc::{c_int, sockaddr_storage};

use super::{Outcome, sys};

/// Which addresses a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 127.0.0.1.
    V4,
    /// `::1`.
    V6,
    /// `::ffff:127.0.0.1`, an IPv6 socket that speaks IPv4.
    Mapped,
}

impl Family {
    /// The word for it in puppet commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
        }
    }

    /// The opposite of [`Self::word`].
    pub fn parse(word: &str) -> Self {
        match word {
            "v4" => Self::V4,
            "v6" => Self::V6,
            "mapped" => Self::Mapped,
            _ => panic!("no family is called {word}"),
        }
    }

    fn domain(self) -> c_int {
        if self == Self::V4 { libc::AF_INET } else { libc::AF_INET6 }
    }
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub struct Address {
    storage: sockaddr_storage,
    length: u32,
}

impl Address {
    /// The loopback address of a family with a port.
    pub fn loopback(family: Family, port: u16) -> Self {
        Self::of(family, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port)
    }

    /// The one of a host's addresses that a family means, with a port.
    pub fn of(family: Family, v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> Self {
        match family {
            Family::V4 => Self::v4(v4.octets(), port),
            Family::V6 => Self::v6(v6, port),
            Family::Mapped => Self::v6(v4.to_ipv6_mapped(), port),
        }
    }

    /// An IPv4 address.
    pub fn v4(octets: [u8; 4], port: u16) -> Self {
        let mut address = Self::empty();
        let inner = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(octets) },
            sin_zero: [0; 8],
        };
        // SAFETY: a storage has room for every kind of address.
        unsafe { (&raw mut address.storage).cast::<libc::sockaddr_in>().write(inner) };
        address.length = size_of::<libc::sockaddr_in>() as u32;
        address
    }

    fn v6(host: Ipv6Addr, port: u16) -> Self {
        let mut address = Self::empty();
        let inner = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as u16,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: host.octets() },
            sin6_scope_id: 0,
        };
        // SAFETY: a storage has room for every kind of address.
        unsafe { (&raw mut address.storage).cast::<libc::sockaddr_in6>().write(inner) };
        address.length = size_of::<libc::sockaddr_in6>() as u32;
        address
    }

    /// Room for any address, to be filled by the kernel.
    pub fn empty() -> Self {
        // SAFETY: all zeros is a valid storage.
        let storage = unsafe { std::mem::zeroed() };
        Self { storage, length: size_of::<sockaddr_storage>() as u32 }
    }

    /// For passing to a call.
    pub fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// For a call that fills it in.
    pub fn pointer_mut(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    /// Its length in bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The length, for a call that fills it in.
    pub fn length_mut(&mut self) -> &mut u32 {
        &mut self.length
    }

    /// The port; both kinds of address keep it in the same place.
    pub fn port(&self) -> u16 {
        // SAFETY: a storage is larger than an IPv4 address, and any bits are a port.
        u16::from_be(unsafe { (*(&raw const self.storage).cast::<libc::sockaddr_in>()).sin_port })
    }

    /// Family, address and whether there is a port, without the port's number.
    pub fn describe(&self) -> String {
        let port = if self.port() == 0 { "without port" } else { "with port" };
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is an IPv4 address.
                let inner = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in>() };
                format!(
                    "{} {port}, {} bytes",
                    Ipv4Addr::from(inner.sin_addr.s_addr.to_ne_bytes()),
                    self.length
                )
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that it is an IPv6 address.
                let inner = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                format!("{} {port}, {} bytes", Ipv6Addr::from(inner.sin6_addr.s6_addr), self.length)
            }
            other => format!("family {other}, {} bytes", self.length),
        }
    }
}

/// A stream socket.
pub fn socket(family: Family, extra: c_int) -> c_int {
    // SAFETY: no memory is involved.
    sys::descriptor(unsafe {
        libc::socket(family.domain(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC | extra, 0)
    })
}

/// `bind`.
pub fn bind(fd: c_int, address: &Address) -> Outcome {
    // SAFETY: a valid address with its length.
    sys::status(unsafe { libc::bind(fd, address.pointer(), address.length()) })
}

/// A listening socket on a port of the loopback device that the kernel chose, and the port.
pub fn listen(family: Family) -> (c_int, u16) {
    listen_at(family, &Address::loopback(family, 0))
}

/// The same with an address of that family.
pub fn listen_at(family: Family, address: &Address) -> (c_int, u16) {
    let fd = socket(family, 0);
    bind(fd, address).unwrap();
    // SAFETY: no memory is involved.
    sys::status(unsafe { libc::listen(fd, 4096) }).unwrap();
    (fd, local_address(fd).unwrap().port())
}

/// `connect`.
pub fn connect(fd: c_int, address: &Address) -> Outcome {
    // SAFETY: a valid address with its length.
    sys::status(unsafe { libc::connect(fd, address.pointer(), address.length()) })
}

/// Lets small messages leave at once, so that cases do not wait for delayed acknowledgements.
pub fn no_delay(fd: c_int) {
    sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32).unwrap();
}

/// A socket that is connected over the loopback device.
pub fn connected(family: Family, port: u16) -> c_int {
    connected_to(family, &Address::loopback(family, port))
}

/// The same with an address of that family.
pub fn connected_to(family: Family, address: &Address) -> c_int {
    let fd = socket(family, 0);
    connect(fd, address).unwrap_or_else(|error| panic!("connect: {error}"));
    fd
}

/// `accept4` without asking for the address.
pub fn accept(listener: c_int, flags: c_int) -> Result<c_int, super::Errno> {
    // SAFETY: both pointers may be null.
    let result = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    sys::status(result).map(|_| result)
}

/// `getsockname`.
pub fn local_address(fd: c_int) -> Result<Address, super::Errno> {
    let mut address = Address::empty();
    let (pointer, length) = (address.pointer_mut(), &raw mut address.length);
    // SAFETY: room for any address, and its length.
    sys::status(unsafe { libc::getsockname(fd, pointer, length) }).map(|_| address)
}

/// `getpeername`.
pub fn peer_address(fd: c_int) -> Result<Address, super::Errno> {
    let mut address = Address::empty();
    let (pointer, length) = (address.pointer_mut(), &raw mut address.length);
    // SAFETY: room for any address, and its length.
    sys::status(unsafe { libc::getpeername(fd, pointer, length) }).map(|_| address)
}
