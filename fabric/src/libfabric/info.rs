//! fi_info: what to ask providers for, and what they offer.

use std::ffi::{CStr, CString, c_char};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;

use super::Local;
use super::bindings::*;
use super::library::Library;
use crate::Error;

/// One or more `fi_info` of the library's, freed in the end.
pub struct Info {
    library: &'static Library,
    first: NonNull<fi_info>,
}

// SAFETY: the structure is plain memory without any tie to a thread.
unsafe impl Send for Info {}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: the structure is the library's, and freed here only.
        unsafe { (self.library.freeinfo)(self.first.as_ptr()) };
    }
}

/// A provider asked for: its name and the kind of endpoint that goes with it.
pub struct Wanted<'a> {
    pub provider: &'a str,
    pub local: Option<&'a Local>,
    /// Only messages, no one-sided writes.
    pub messages: bool,
    /// Writes and messages in the order of posting.
    pub ordered: bool,
}

/// The kind of endpoint that a provider is used with.
pub fn endpoint_type(provider: &str) -> i32 {
    match provider {
        "tcp" | "verbs" => FI_EP_MSG,
        _ => FI_EP_RDM,
    }
}

fn duplicate(text: &str) -> Result<*mut c_char, Error> {
    let text = CString::new(text).map_err(|_| Error(String::from("a name with a zero byte")))?;
    // SAFETY: a string.
    Ok(unsafe { libc::strdup(text.as_ptr()) })
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the library's strings end with a zero byte and live as long as the info they are read from.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

impl Info {
    /// Takes over what the library has returned.
    ///
    /// # Safety
    /// The pointer is null, or of an info of this library that nobody else frees.
    pub unsafe fn from_raw(library: &'static Library, first: *mut fi_info) -> Option<Info> {
        NonNull::new(first).map(|first| Info { library, first })
    }

    /// Asks for what is wanted; nothing when there is no such thing.
    pub fn query(library: &'static Library, wanted: &Wanted<'_>) -> Result<Option<Info>, Error> {
        // SAFETY: without an argument fi_dupinfo makes an empty info.
        let hints = unsafe { Info::from_raw(library, (library.dupinfo)(std::ptr::null())) }
            .ok_or_else(|| Error(String::from("no memory for hints")))?;
        fill(&hints, wanted)?;
        let node = match wanted.local {
            Some(Local::Address(address)) => CString::new(address.to_string()).ok(),
            _ => None,
        };
        let (node, flags) = match &node {
            Some(node) => (node.as_ptr(), FI_SOURCE | FI_NUMERICHOST),
            None => (std::ptr::null(), 0),
        };
        let mut found = std::ptr::null_mut();
        // SAFETY: strings and hints live until the call returns; the result goes into `found`.
        let status = unsafe {
            (library.getinfo)(
                library.version,
                node,
                std::ptr::null(),
                flags,
                hints.first.as_ptr(),
                &mut found,
            )
        };
        if status == -libc::ENODATA || status == -libc::ENOENT {
            return Ok(None);
        }
        if status != 0 {
            return Err(library.error("fi_getinfo", -status));
        }
        // SAFETY: fi_getinfo has returned it for this side to free.
        Ok(unsafe { Info::from_raw(library, found) })
    }

    /// The offers of the provider, and of the device if one is wanted: neither is a matter of course.
    pub fn offers_for(&self, wanted: &Wanted<'_>) -> impl Iterator<Item = Offer<'_>> {
        // A name without a layer also finds that provider below one, and not all providers look at the device.
        self.offers().filter(|offer| {
            let device = match wanted.local {
                Some(Local::Device(name)) => offer.domain_name() == *name,
                _ => true,
            };
            device && offer.provider() == wanted.provider
        })
    }

    fn offers(&self) -> impl Iterator<Item = Offer<'_>> {
        let mut next = self.first.as_ptr();
        std::iter::from_fn(move || {
            // SAFETY: a list of the library's, which `self` keeps.
            let info = unsafe { next.as_ref() }?;
            next = info.next;
            Some(Offer { library: self.library, info })
        })
    }

    /// The first (or only) offer.
    pub fn get(&self) -> Offer<'_> {
        // SAFETY: never null, and kept by `self`.
        Offer { library: self.library, info: unsafe { self.first.as_ref() } }
    }

    /// For calls of the library.
    pub fn as_ptr(&self) -> *mut fi_info {
        self.first.as_ptr()
    }

    /// Sets how many operations an endpoint has room for.
    pub fn set_sizes(&mut self, transmit: usize, receive: usize) {
        // SAFETY: the attributes are there in every info of the library, and `self` is borrowed alone.
        unsafe {
            let info = self.first.as_mut();
            (*info.tx_attr).size = transmit;
            (*info.rx_attr).size = receive;
        }
    }

    /// A copy that leads to `peer`.
    pub fn towards(&self, peer: &[u8]) -> Result<Info, Error> {
        let copy = self.get().copy()?;
        // SAFETY: malloc'ed memory, which freeing the info frees, of the length copied; the old value is freed before.
        unsafe {
            let info = copy.first.as_ptr();
            let memory = libc::malloc(peer.len());
            if memory.is_null() {
                return Err(Error(String::from("no memory for an address")));
            }
            std::ptr::copy_nonoverlapping(peer.as_ptr(), memory.cast(), peer.len());
            libc::free((*info).dest_addr);
            (*info).dest_addr = memory;
            (*info).dest_addrlen = peer.len();
        }
        Ok(copy)
    }
}

fn fill(hints: &Info, wanted: &Wanted<'_>) -> Result<(), Error> {
    // SAFETY: fi_dupinfo has made the info and all its attributes; strings are malloc'ed, as freeing the info expects.
    unsafe {
        let info = &mut *hints.first.as_ptr();
        info.caps = FI_MSG | FI_SEND | FI_RECV;
        if !wanted.messages {
            info.caps |= FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
        }
        info.mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
        (*info.ep_attr).type_ = endpoint_type(wanted.provider);
        let domain = &mut *info.domain_attr;
        domain.mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
        // Memory for all peers cannot belong to the endpoint of one link; buffers can.
        domain.mr_mode |= if wanted.messages { FI_MR_ENDPOINT } else { 0 };
        domain.threading = FI_THREAD_DOMAIN;
        if wanted.ordered {
            let order = if wanted.messages { FI_ORDER_SAS } else { FI_ORDER_WAW };
            (*info.tx_attr).msg_order = order;
            (*info.rx_attr).msg_order = order;
        }
        (*info.fabric_attr).prov_name = duplicate(wanted.provider)?;
        if let Some(Local::Device(name)) = wanted.local {
            domain.name = duplicate(name)?;
        }
    }
    Ok(())
}

/// One offer of a provider.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    library: &'static Library,
    info: &'a fi_info,
}

impl<'a> Offer<'a> {
    /// A copy of it alone.
    pub fn copy(&self) -> Result<Info, Error> {
        // SAFETY: fi_dupinfo reads the info and returns a new one, or null.
        unsafe { Info::from_raw(self.library, (self.library.dupinfo)(self.info)) }
            .ok_or_else(|| Error(String::from("no memory for an info")))
    }

    pub fn raw(&self) -> &'a fi_info {
        self.info
    }

    pub fn transmit(&self) -> &'a fi_tx_attr {
        // SAFETY: the attributes are there in every info of the library, and live as long as it.
        unsafe { &*self.info.tx_attr }
    }

    pub fn receive(&self) -> &'a fi_rx_attr {
        // SAFETY: as in `transmit`.
        unsafe { &*self.info.rx_attr }
    }

    pub fn endpoint(&self) -> &'a fi_ep_attr {
        // SAFETY: as in `transmit`.
        unsafe { &*self.info.ep_attr }
    }

    pub fn domain(&self) -> &'a fi_domain_attr {
        // SAFETY: as in `transmit`.
        unsafe { &*self.info.domain_attr }
    }

    pub fn fabric_attr(&self) -> *mut fi_fabric_attr {
        self.info.fabric_attr
    }

    pub fn provider(&self) -> String {
        // SAFETY: as in `transmit`.
        text(unsafe { (*self.info.fabric_attr).prov_name })
    }

    pub fn fabric_name(&self) -> String {
        // SAFETY: as in `transmit`.
        text(unsafe { (*self.info.fabric_attr).name })
    }

    pub fn domain_name(&self) -> String {
        text(self.domain().name)
    }

    /// The own address as bytes.
    pub fn source(&self) -> &'a [u8] {
        if self.info.src_addr.is_null() {
            return &[];
        }
        // SAFETY: the address is that many bytes, and lives as long as the info.
        unsafe { std::slice::from_raw_parts(self.info.src_addr.cast(), self.info.src_addrlen) }
    }

    /// The own address, if it is one of IP.
    pub fn source_address(&self) -> Option<IpAddr> {
        ip_address(self.source())
    }
}

/// The family that a socket address begins with.
pub fn family(address: &[u8]) -> Option<u16> {
    address.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn ip_address(address: &[u8]) -> Option<IpAddr> {
    match i32::from(family(address)?) {
        libc::AF_INET => {
            let bytes: [u8; 4] = address.get(4..8)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(bytes)))
        }
        libc::AF_INET6 => {
            let bytes: [u8; 16] = address.get(8..24)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}
