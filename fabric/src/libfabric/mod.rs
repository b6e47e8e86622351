//! Rails over libfabric: any provider with reliable endpoints, loaded while the program runs.
//!
//! Providers `tcp` and `verbs` are used with connected endpoints (FI_EP_MSG), all others with FI_EP_RDM
//! and an exchange of messages. Either way a link has an endpoint of its own, so that what was
//! outstanding on it ends with it; the completion queue is one per rail, until its entries are used up. Writes
//! are fi_writemsg(3) with the immediate as remote CQ data, or, where a provider has no FI_RMA, messages that
//! the receiving side copies into place.
//!
//! An endpoint that is closed takes its peer's with it at once with connected endpoints. With the others, the side that
//! disconnects says so in a message; if that is lost, the peer notices when it writes, after the provider's
//! own time-outs.

#[allow(unsafe_code)]
mod bindings;
mod connection;
#[allow(unsafe_code)]
mod core;
mod discover;
#[allow(unsafe_code)]
mod endpoint;
mod handshake;
#[allow(unsafe_code)]
mod info;
#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
mod memories;
#[allow(unsafe_code)]
mod object;
#[allow(unsafe_code)]
mod port;
#[allow(unsafe_code)]
mod post;
mod profile;
#[allow(unsafe_code)]
mod progress;
mod rail;
mod slots;
mod wire;

use std::fmt;
use std::net::IpAddr;

pub use discover::{RailInfo, discover};

use crate::{Error, Fabric};
use info::{Info, Wanted};
use rail::Rail;

/// The end of a rail on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// An address of one of the host's interfaces.
    Address(IpAddr),
    /// What the provider calls a device: a domain, like `mlx5_0` or `eth0`.
    Device(String),
}

impl From<&str> for Local {
    fn from(text: &str) -> Local {
        text.parse().map_or_else(|_| Local::Device(text.to_owned()), Local::Address)
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Address(address) => address.fmt(f),
            Local::Device(name) => f.write_str(name),
        }
    }
}

/// How writes get to where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By the provider if it can, else with messages.
    Best,
    /// With messages that the receiving side copies.
    Messages,
}

/// Major and minor version of libfabric's interface.
///
/// # Errors
/// It is not installed, or too old.
pub fn version() -> Result<(u32, u32), Error> {
    library::library().map(|library| (library.found >> 16, library.found & 0xffff))
}

/// Opens a rail of the provider with this name, in libfabric's spelling (`tcp`, `verbs`, `udp;ofi_rxd`), at the given
/// end of the host or the provider's first. Both ends of a link need the same provider and the same way of placement.
///
/// The first call in a process loads the library, and sets RDMAV_FORK_SAFE, FI_UNIVERSE_SIZE and IPATH_NO_BACKTRACE in the
/// environment unless they are there; it is best made before other threads read the environment.
///
/// # Errors
/// There is no libfabric, no such provider or device, or the device refuses.
pub fn open(provider: &str, local: Option<&Local>, placement: Placement) -> Result<Box<dyn Fabric>, Error> {
    let library = library::library()?;
    let kinds: &[bool] = match placement {
        Placement::Best => &[false, true],
        Placement::Messages => &[true],
    };
    for &messages in kinds {
        for ordered in [true, false] {
            let wanted = Wanted { provider, local, messages, ordered };
            let Some(info) = Info::query(library, &wanted)? else { continue };
            let mut offers: Vec<_> = info.offers_for(&wanted).collect();
            // Of a device's addresses rather one of IP.
            offers.sort_by_key(|offer| offer.source_address().is_none());
            if let Some(offer) = offers.first() {
                return Ok(Box::new(Rail::open(library, offer.copy()?, messages)?));
            }
        }
    }
    let place = local.map_or_else(String::new, |local| format!(" at {local}"));
    Err(Error(format!("libfabric has no provider {provider}{place}")))
}
